//! `koboshi bootdev m01 pxe`: what a machine starts from next. The EFI bit is what its firmware said of itself
//! when it last booted by the network: a UEFI machine that is told "PXE" without it starts from its disk.

use koboshi_ipmi::commands::boot::{self, BootFlags, Device};
use koboshi_ipmi::{Controller, Error};
use serde::{Deserialize, Serialize};

use super::many::{Deed, Failure, On, Operation, Said};

/// What is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Query {
    /// What it starts from: a name that IPMI knows. None: only say what is set.
    #[serde(default)]
    pub device: Option<String>,
    /// Every time, not only the next.
    #[serde(default)]
    pub persistent: bool,
    /// As EFI or as a PC BIOS does. None: as its firmware is known to do.
    #[serde(default)]
    pub efi: Option<bool>,
}

impl Query {
    fn device(&self) -> Result<Option<Device>, String> {
        let Some(name) = &self.device else { return Ok(None) };
        let names: Vec<&str> = Device::names().collect();
        let device = Device::by_name(name);
        device.map(Some).ok_or_else(|| format!("no boot device {name:?}: {}", names.join(", ")))
    }

    /// As EFI does? Told by whoever asks, else by the machine's last netboot, else by what its BMC has now:
    /// boards without a PC BIOS read back EFI whatever they are told.
    async fn set(
        &self,
        bmc: &impl Controller,
        device: Device,
        known: Option<bool>,
    ) -> Result<BootFlags, Error> {
        if let Some(efi) = self.efi.or(known) {
            return boot::set(bmc, device, efi, self.persistent).await;
        }
        match boot::set(bmc, device, false, self.persistent).await {
            Err(Error::NotKept { .. }) => boot::set(bmc, device, true, self.persistent).await,
            outcome => outcome,
        }
    }
}

impl Operation for Query {
    const NAME: &'static str = "bootdev";

    fn headings(&self) -> &'static [&'static str] {
        &["BOOTS FROM               ", "NOTE"]
    }

    fn deed(&self) -> Option<Deed> {
        let device = self.device.as_ref()?;
        let every = if self.persistent { ", every time" } else { "" };
        Some(Deed::harmless(format!("boot device {device}{every}")))
    }

    fn check(&self, _machines: usize) -> Result<(), String> {
        self.device().map(drop)
    }

    async fn run(&self, on: &On) -> Result<Said, Failure> {
        let bmc = on.bmc()?;
        let known = on.is_efi();
        let device = self.device().map_err(|error| Failure::new("usage", error))?;
        let flags = match device {
            None => boot::get(&bmc).await?,
            Some(device) => self.set(&bmc, device, known).await?,
        };
        let guessed =
            device.is_some_and(|device| device != Device::None) && self.efi.or(known).is_none();
        let note = match (guessed, flags.efi) {
            (false, _) => "",
            (true, true) => "it is not known whether its firmware is UEFI: its BMC insists on EFI",
            (true, false) => {
                "it is not known whether its firmware is UEFI: set as for a BIOS; --efi if it is"
            }
        };
        let data = serde_json::json!({ "boot": flags, "efi-known": known });
        Ok(Said::line(&flags.words(), [note.to_string()], data))
    }
}
