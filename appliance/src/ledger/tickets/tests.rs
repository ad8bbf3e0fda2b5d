//! Orders from their giving to their receipt.

use std::sync::Arc;

use koboshi_initramfs::contract::duty::{Duty, Setup, Step, Verify, Wipe, Wiped};

use super::*;
use crate::ledger::tests::boot;
use crate::maintenance::{Account, After};
use crate::receipts::Receipt;
use crate::store::Store;

const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

fn ticket() -> Ticket {
    let (serial, disks) = ("CZ123".to_string(), Vec::new());
    let wipe = Wipe { serial, disks, steps: vec![Step::Zeros], verify: Verify::All };
    Ticket {
        id: 0,
        machine: "m01".into(),
        duty: "wipe".into(),
        image: "wipe".into(),
        order: Some(Duty::Wipe(wipe)),
        after: None,
        by: "root".into(),
        at: 1_000,
        until: u64::MAX,
        state: TicketState::Open,
        since: 1_000,
        boot: None,
        disks: Vec::new(),
        prepared: Vec::new(),
        says: String::new(),
        receipt: None,
    }
}

/// A boot of the ticket; `segments`: something that can report.
fn of(id: u8, ticket: Option<u64>) -> BootRecord {
    let mut record = boot("m01", id);
    record.mac = MAC;
    let mut plan = record.plan.as_deref().expect("a plan").clone();
    plan.ticket = ticket;
    plan.segments = vec![plan.kernel.clone()];
    record.plan = Some(Arc::new(plan));
    record
}

async fn ledger(dir: &std::path::Path) -> Ledger {
    let store = Store::open(dir).expect("a state");
    let put = store.put_ticket(ticket()).await.expect("queued");
    assert_eq!(put.await.expect("written").id, 1);
    over(store, dir)
}

fn over(store: Store, dir: &std::path::Path) -> Ledger {
    let tickets = store.tickets().expect("read");
    let ledger = Ledger::new(store, Vec::new(), Vec::new());
    ledger.ordering(tickets, Receipts::of(dir), "lab")
}

fn boots(ledger: &Ledger, record: &BootRecord) {
    let mut inner = ledger.inner();
    inner.ids.insert(record.id, record.mac);
    inner.boots.insert(record.mac, record.clone());
}

fn state(ledger: &Ledger) -> TicketState {
    ledger.ticket("m01").expect("a ticket").0.state
}

fn disk(serial: &str) -> Phase {
    let (name, serial) = (format!("vd{serial}"), format!("\x1b[2J{serial}"));
    Phase::Wiped(Box::new(Wiped { name, serial, wiped: true, ..Wiped::default() }))
}

#[tokio::test]
async fn a_wipe_from_its_order_to_its_receipt() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = ledger(dir.path()).await;
    let other = of(1, Some(9));
    boots(&ledger, &other);
    ledger.ticket_boots(&other, Stage::Up).await;
    assert_eq!(state(&ledger), TicketState::Open, "a boot of another ticket");
    let record = of(2, Some(1));
    boots(&ledger, &record);
    ledger.ticket_boots(&record, Stage::Initramfs).await;
    assert_eq!(state(&ledger), TicketState::Open, "nothing has reported");
    ledger.ticket_boots(&record, Stage::Init).await;
    assert_eq!(state(&ledger), TicketState::Running);

    let of_boot = (record.id, MAC);
    let finished = Phase::Finished { well: true, message: "wiped\x07".into() };
    assert!(ledger.ticket_report((BootId([9; 16]), MAC), &finished).await);
    assert_eq!(state(&ledger), TicketState::Running, "not of its boot");
    assert!(!ledger.ticket_report(of_boot, &Phase::Down).await);
    let work = Work { what: "\x1b[2Jvda".into(), step: "zeros".into(), done: 1, of: 2 };
    ledger.ticket_report(of_boot, &Phase::Working { works: vec![work; 1000] }).await;
    let works = ledger.ticket("m01").expect("a ticket").1;
    assert!(works.len() == WORKS_MAX && works[0].what == "·[2Jvda");
    for serial in ["a", "b", "a"] {
        ledger.ticket_report(of_boot, &disk(serial)).await;
    }
    ledger.ticket_report(of_boot, &finished).await;
    let (ticket, works) = ledger.ticket("m01").expect("a ticket");
    assert_eq!((ticket.state, ticket.disks.len()), (TicketState::Done, 2));
    assert!(works.is_empty());
    let name = ticket.receipt.expect("a receipt");
    let signed = Receipts::of(dir.path()).read(&name).expect("it is there");
    let key = crate::receipts::public_key(&signed.key).expect("a key");
    assert_eq!(crate::receipts::verify(&signed, &key), Ok(()));
    let receipt: Receipt = serde_json::from_value(signed.receipt).expect("ours");
    assert_eq!((receipt.well, receipt.result.as_str()), (true, "wiped·"));
    assert_eq!(receipt.disks[0].serial, "·[2Jb");
    ledger.ticket_over(&of(3, None)).await;
    assert_eq!(state(&ledger), TicketState::Done, "what follows changes nothing");
}

/// What the machine found is kept; the rest is the appliance's, over a restart of it and of the machine.
#[tokio::test]
async fn a_set_up_is_kept_and_followed() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("a state");
    let order = Some(Duty::Setup(Setup::default()));
    let after = Some(After { account: Some(Account::default()), ..After::default() });
    let set_up = Ticket { duty: "setup".into(), order, after, ..ticket() };
    store.put_ticket(set_up.clone()).await.expect("queued").await.expect("written");
    let former = over(store.clone(), dir.path());
    let record = of(2, Some(1));
    boots(&former, &record);
    let survey = |left_out| {
        let mut survey = Survey { left_out, ..Survey::default() };
        survey.board.serial = "\x1b[2JUM19".into();
        Phase::Surveyed(Box::new(survey))
    };
    assert!(former.ticket_report((record.id, MAC), &survey(1)).await, "and no more");
    assert_eq!(former.survey("m01"), None, "it has no ticket yet");
    former.ticket_boots(&record, Stage::Up).await;
    former.ticket_report((record.id, MAC), &survey(1)).await;
    former.ticket_report((record.id, MAC), &survey(2)).await;
    let kept = former.survey("m01").expect("kept");
    assert_eq!((&*kept.survey.board.serial, kept.survey.left_out), ("·[2JUM19", 2));
    let finished = Phase::Finished { well: true, message: "surveyed".into() };
    former.ticket_report((record.id, MAC), &finished).await;
    assert_eq!(state(&former), TicketState::Following);
    former.followed().await;
    let mut events = former.follow();
    former.event("x", None, String::new()).await;
    while events.recv().await.expect("an event").kind != "x" {}

    let ledger = over(store.clone(), dir.path());
    boots(&ledger, &record);
    ledger.ticket_over(&of(3, None)).await;
    let [following] = &ledger.following()[..] else { panic!("it is forgotten") };
    assert_eq!((&*following.says, ledger.survey("m01")), ("surveyed", Some(kept)));
    ledger.ticket_ends(following, false, "surveyed; its BMC refuses".into()).await;
    let (ended, _) = ledger.ticket("m01").expect("a ticket");
    assert_eq!((ended.state, &*ended.says), (TicketState::Failed, "surveyed; its BMC refuses"));
    assert!(ledger.following().is_empty());
    let signed = Receipts::of(dir.path()).read(&ended.receipt.expect("a receipt"));
    let receipt: Receipt = serde_json::from_value(signed.expect("there").receipt).expect("ours");
    assert_eq!(receipt.survey.as_ref().map(|survey| survey.left_out), Some(2));
    assert!(!receipt.well && receipt.witnesses[2].contains("the appliance did"), "{receipt:?}");

    // What the machine could not do is not gone on with.
    let again = Ticket { id: 0, ..set_up };
    store.put_ticket(again).await.expect("queued").await.expect("written");
    let ledger = over(store, dir.path());
    let record = of(4, Some(2));
    boots(&ledger, &record);
    ledger.ticket_boots(&record, Stage::Up).await;
    let failed = Phase::Finished { well: false, message: "the BMC is silent".into() };
    ledger.ticket_report((record.id, MAC), &failed).await;
    let (ended, _) = ledger.ticket("m01").expect("a ticket");
    assert_eq!(ended.says, "the BMC is silent; the rest was left undone");
    assert!(ledger.following().is_empty());
}

#[tokio::test]
async fn one_that_is_broken_off_is_said_to_be() {
    let dir = tempfile::tempdir().expect("a directory");
    let record = of(2, Some(1));
    let former = ledger(dir.path()).await;
    boots(&former, &record);
    former.ticket_boots(&record, Stage::Up).await;
    former.ticket_report((record.id, MAC), &disk("a")).await;
    former.ticket_over(&record).await;
    assert_eq!(state(&former), TicketState::Running, "that is its own boot");
    // The last write is on disk when an event after it is.
    let mut events = former.follow();
    former.event("x", None, String::new()).await;
    while events.recv().await.expect("an event").kind != "x" {}
    // The appliance is started anew, and the machine boots.
    let ledger = over(former.store.clone(), dir.path());
    assert_eq!(state(&ledger), TicketState::Running);
    ledger.ticket_over(&of(3, None)).await;
    let (ticket, _) = ledger.ticket("m01").expect("a ticket");
    assert_eq!(ticket.state, TicketState::Unfinished);
    let signed = Receipts::of(dir.path()).read(&ticket.receipt.expect("a receipt too"));
    let receipt: Receipt = serde_json::from_value(signed.expect("there").receipt).expect("ours");
    assert!(!receipt.well && receipt.result.starts_with("NOT finished"), "{receipt:?}");
    assert_eq!(receipt.disks.len(), 1);
}

/// A full disk may take an order long after its giver has gone.
#[tokio::test]
async fn an_order_that_nobody_waits_for_any_more_is_taken_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path()).expect("a state");
    let (disk, written) = oneshot::channel();
    let mut waits = Box::pin(heard_of(store.clone(), written));
    assert!(futures::poll!(&mut waits).is_pending());
    drop(waits);
    let put = store.put_ticket(ticket()).await.expect("queued");
    disk.send(put.await.expect("written")).expect("the ledger listens");
    let taken_back = async {
        while store.tickets().expect("read").iter().any(|ticket| ticket.state.stands()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), taken_back).await.expect("taken back");
}
