//! Orders for one boot of a machine, as they are remembered: the last one of each machine.

use koboshi_initramfs::contract::Duty;
use koboshi_initramfs::contract::duty::{Prepared, Wiped};
use koboshi_pxe::BootId;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{META, Store, StoreError, json, parse};
use crate::maintenance::After;

/// By machine's name.
pub(super) const TICKETS: TableDefinition<&str, &[u8]> = TableDefinition::new("tickets");

/// An order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Never used twice.
    #[serde(default)]
    pub id: u64,
    /// Whose.
    pub machine: String,
    /// `wipe`, `prepare-disks`, `memtest`, `setup`, `rescue`.
    pub duty: String,
    /// The image that does it.
    pub image: String,
    /// What the machine is told; nothing where booting the image is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Duty>,
    /// What the appliance does itself afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<After>,
    /// Who ordered it.
    pub by: String,
    /// When, Unix milliseconds.
    pub at: u64,
    /// It is for nobody from then on, unless it is under way.
    pub until: u64,
    /// How it stands.
    pub state: TicketState,
    /// Since when, Unix milliseconds.
    pub since: u64,
    /// The boot that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootId>,
    /// Disks that were wiped so far, or were not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Wiped>,
    /// Disks that got a file system so far, or did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<Prepared>,
    /// What came of it, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub says: String,
    /// The receipt's name, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
}

/// How an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TicketState {
    /// It waits for the machine's next boot.
    Open,
    /// A boot has it.
    Running,
    /// The machine has done its part, the appliance does the rest.
    Following,
    /// Carried out.
    Done,
    /// It could not be carried out, or not all of it.
    Failed,
    /// The machine boots again and never said that it was done.
    Unfinished,
    /// Taken back.
    Cancelled,
    /// The machine did not boot in time.
    Expired,
}

impl TicketState {
    /// `running`
    pub fn as_str(self) -> &'static str {
        match self {
            TicketState::Open => "open",
            TicketState::Running => "running",
            TicketState::Following => "following",
            TicketState::Done => "done",
            TicketState::Failed => "failed",
            TicketState::Unfinished => "unfinished",
            TicketState::Cancelled => "cancelled",
            TicketState::Expired => "expired",
        }
    }

    /// Something is still to come.
    pub fn stands(self) -> bool {
        matches!(self, TicketState::Open | TicketState::Running | TicketState::Following)
    }
}

impl Store {
    /// Writes an order in place of the machine's last one; a new one (id 0) is given its number. Queued in
    /// order; the receiver answers with it once it is on disk.
    pub async fn put_ticket(
        &self,
        mut ticket: Ticket,
    ) -> Result<oneshot::Receiver<Ticket>, StoreError> {
        self.submit(move |txn: &WriteTransaction| {
            if ticket.id == 0 {
                let mut meta = txn.open_table(META)?;
                ticket.id = meta.get("tickets")?.map_or(1, |last| last.value() + 1);
                meta.insert("tickets", ticket.id)?;
            }
            let mut table = txn.open_table(TICKETS)?;
            table.insert(ticket.machine.as_str(), json(&ticket).as_slice())?;
            Ok(ticket)
        })
        .await
    }

    /// The last order of every machine.
    pub fn tickets(&self) -> Result<Vec<Ticket>, StoreError> {
        let read = self.db.begin_read()?;
        let table = read.open_table(TICKETS)?;
        table.iter()?.map(|row| parse("tickets", row?.1.value())).collect()
    }
}
