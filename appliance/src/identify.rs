//! A machine that nobody knows by its MAC, and everybody by its BMC (S7): `[net] identify = "bmc"`. A stranger
//! that was let in to say what it is made of names the address of its BMC; if that is written for a machine
//! of the site, that BMC is asked, over the network and by the machine's own account, whether it is the one.
//! Then the stranger is that machine from its next start on: an exchanged board sits where the old one sat.
//!
//! What a stranger says is evidence and no more, and it moves nothing but what a forged MAC would move too.
//! It switches nothing: the machine is started anew by whoever reads the event.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use koboshi_initramfs::contract::Hardware;
use koboshi_ipmi::Controller;
use koboshi_ipmi::commands::guid::{Guid, Order};
use koboshi_ipmi::commands::{channel, chassis, device, lan};
use koboshi_pxe::Mac;

use crate::app::App;
use crate::hardware::Record;
use crate::ledger::now_ms;
use crate::site::{Identify, Machine, MachineName, Site};

/// A stranger was heard of within this time, or it is gone.
const PRESENT_MS: u64 = 70_000;
/// A BMC that did not prove it is asked again after this.
const AGAIN_MS: u64 = 120_000;
const PATIENCE: Duration = Duration::from_secs(20);

/// Who is who by his BMC.
#[derive(Default)]
pub struct Identities {
    found: ArcSwap<BTreeMap<Mac, Identity>>,
    /// When each stranger's BMC was asked last.
    asked: Mutex<HashMap<Mac, u64>>,
}

/// A machine that was found so.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    machine: MachineName,
    /// Of its BMC, as the site had it.
    address: Ipv4Addr,
}

impl Identities {
    /// MACs that stand for machines of this site beside those it names. One that the site names by now, or
    /// whose machine has another BMC, is not among them.
    pub fn of(&self, site: &Site) -> BTreeMap<Mac, MachineName> {
        let found = self.found.load();
        let holds = |mac: &Mac, identity: &Identity| {
            let machine = site.machines.get(&identity.machine);
            site.net.identify == Identify::Bmc
                && !site.by_mac.contains_key(mac)
                && machine.is_some_and(|machine| address(machine) == Some(identity.address))
        };
        let held = found.iter().filter(|(mac, identity)| holds(mac, identity));
        held.map(|(mac, identity)| (*mac, identity.machine.clone())).collect()
    }

    /// A machine has one board: whoever was it before is a stranger again.
    fn found(&self, mac: Mac, machine: MachineName, address: Ipv4Addr) {
        let mut found = self.found.load().as_ref().clone();
        found.retain(|_, identity| identity.machine != machine);
        found.insert(mac, Identity { machine, address });
        self.found.store(Arc::new(found));
    }

    /// Whether a stranger's BMC may be asked now.
    fn may_ask(&self, mac: Mac, now: u64) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|_, at| now.saturating_sub(*at) < AGAIN_MS);
        let last = *asked.entry(mac).or_insert(now);
        last == now
    }
}

/// Where a machine's BMC is, if it is one of its own and written as an address.
fn address(machine: &Machine) -> Option<Ipv4Addr> {
    let bmc = machine.bmc.as_ref().filter(|bmc| bmc.target.is_none())?;
    bmc.host.value.parse().ok()
}

/// The machine that a stranger would be by what it says of its BMC.
fn claimed<'a>(
    site: &'a Site,
    record: &Record,
) -> Option<(&'a MachineName, &'a Machine, Ipv4Addr)> {
    // A card of another machine in it is for people to look at.
    let stranger = record.macs().iter().all(|mac| !site.by_mac.contains_key(mac));
    let said: Ipv4Addr = record.hardware.bmc.as_ref()?.address.parse().ok()?;
    if !stranger || record.machine != record.mac.to_string() || said.is_unspecified() {
        return None;
    }
    let mut whose = site.machines.iter().filter(|(_, machine)| address(machine) == Some(said));
    let (name, machine) = whose.next()?;
    whose.next().is_none().then_some((name, &machine.value, said))
}

/// What a BMC said of itself over the network.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    on: bool,
    mac: Option<String>,
    guid: Option<Guid>,
}

async fn ask(bmc: &impl Controller) -> Result<Answer, koboshi_ipmi::Error> {
    let on = chassis::status(bmc).await?.power;
    let channel = channel::lan(bmc).await?;
    let mac = lan::basic(bmc, channel).await?.mac.map(|mac| mac.to_string());
    // Some have none.
    let guid = device::guid(bmc).await.ok();
    Ok(Answer { on, mac, guid })
}

/// Whether it is the BMC that the machine sees from within; in words, either way. The MAC of its NIC has to
/// be the same. A GUID that is the machine's UUID makes it certain; many boards have two.
fn proved(hardware: &Hardware, answer: &Answer) -> Result<String, String> {
    if !answer.on {
        return Err("the machine behind that BMC is off".to_string());
    }
    let within = hardware.bmc.as_ref().map(|bmc| bmc.mac.to_lowercase()).unwrap_or_default();
    match &answer.mac {
        Some(mac) if *mac == within => {}
        Some(mac) => {
            return Err(format!("that BMC has the MAC {mac}, the machine's own has {within}"));
        }
        None => return Err("that BMC does not tell its MAC".to_string()),
    }
    let uuid = answer.guid.filter(|guid| is_uuid(*guid, &hardware.uuid));
    let also = if uuid.is_some() { ", and its GUID is the machine's UUID" } else { "" };
    Ok(format!("that BMC has the MAC {within}, as the machine sees it from within{also}"))
}

/// Whether the two are the same in one of the orders that firmware sends bytes in.
fn is_uuid(guid: Guid, uuid: &str) -> bool {
    let digits: String = uuid.chars().filter(|c| *c != '-').collect::<String>().to_lowercase();
    let hex = |bytes: [u8; 16]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    digits.len() == 32
        && digits.chars().any(|c| !matches!(c, '0' | 'f'))
        && [Order::Smbios, Order::Ipmi, Order::Network]
            .into_iter()
            .any(|order| hex(guid.read(order)) == digits)
}

/// Looks at the strangers that are there.
pub async fn look(app: &App) {
    let site = app.site.load_full();
    if site.net.identify != Identify::Bmc {
        return;
    }
    let known = app.identities.of(&site);
    let hardware = app.ledger.hardware();
    for record in hardware.values().filter(|record| !known.contains_key(&record.mac)) {
        let Some((name, machine, address)) = claimed(&site, record) else { continue };
        let now = now_ms();
        if !is_present(app, record.mac, now) || !app.identities.may_ask(record.mac, now) {
            continue;
        }
        let outcome = match alive(app, name, now) {
            Some(mac) => Err(format!("{name} itself is running, as {mac}")),
            None => prove(app, name, machine, record).await,
        };
        let who = Some(record.mac.to_string());
        match outcome {
            Ok(because) => {
                app.identities.found(record.mac, name.clone(), address);
                let text = format!(
                    "is {name} from its next start on: {because} (`koboshi power {name} reset` starts it; write its MAC into the site file to keep it so)"
                );
                app.ledger.event("identified", who, text).await;
                app.republish().await;
            }
            Err(why) => {
                let text = format!(
                    "says that its BMC is {name}'s ({address}), and is not taken for it: {why}"
                );
                app.ledger.event("not-identified", who, text).await;
            }
        }
    }
}

async fn prove(
    app: &App,
    name: &MachineName,
    machine: &Machine,
    record: &Record,
) -> Result<String, String> {
    let bmc = app.bmcs.of(name, machine).map_err(|failure| failure.error)?;
    match tokio::time::timeout(PATIENCE, ask(&bmc)).await {
        Ok(Ok(answer)) => proved(&record.hardware, &answer),
        Ok(Err(error)) => Err(format!("that BMC: {error}")),
        Err(_) => Err("that BMC does not answer".to_string()),
    }
}

fn is_present(app: &App, mac: Mac, now: u64) -> bool {
    let live = app.ledger.newest().get(&mac).is_some_and(|boot| !boot.over);
    live && app.ledger.heard(mac).is_some_and(|heard| now.saturating_sub(heard) < PRESENT_MS)
}

/// A NIC by which the machine of this name runs, as far as anybody knows.
fn alive(app: &App, name: &MachineName, now: u64) -> Option<Mac> {
    let newest = app.ledger.newest();
    let mut boots = newest.values().filter(|boot| boot.machine == name.as_str() && boot.sits());
    let runs = boots.find(|boot| {
        let heard = app.ledger.heard(boot.mac).unwrap_or(boot.opened);
        now.saturating_sub(heard) < PRESENT_MS
    });
    runs.map(|boot| boot.mac)
}

#[cfg(test)]
mod tests {
    use koboshi_initramfs::contract::hardware::Bmc;

    use super::*;
    use crate::site::tests::site;

    const SITE: &str = r#"
[site]
name = "rack"
[net]
interface = "eth1"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.220"
unknown = "discover"
identify = "bmc"
[roles.rescue]
image = "rescue"
[machines]
m01 = { mac = ["52:54:00:77:00:01"], bmc = "10.78.0.1" }
m02 = { mac = ["52:54:00:77:00:02"], bmc = { host = "10.78.0.2", target = 130 } }
m03 = { mac = ["52:54:00:77:00:03"], bmc = { host = "10.78.0.2", target = 132 } }
"#;
    const NEW: Mac = Mac([0x52, 0x54, 0, 0x99, 0, 1]);

    fn record(address: &str) -> Record {
        let bmc = Bmc { channel: 1, address: address.into(), mac: "52:54:00:78:00:01".into() };
        let uuid = "6b6f626f-7368-4969-8000-525400770007".to_string();
        let hardware = Hardware { uuid, bmc: Some(bmc), ..Hardware::default() };
        Record::new(&NEW.to_string(), NEW, 1, hardware, None)
    }

    #[test]
    fn a_stranger_is_whose_bmc_it_names() {
        let site = site(SITE);
        let whose = |record: &Record| claimed(&site, record).map(|(name, ..)| name.to_string());
        assert_eq!(whose(&record("10.78.0.1")).as_deref(), Some("m01"));
        for address in ["10.78.0.9", "0.0.0.0", "", "10.78.0.2"] {
            assert_eq!(whose(&record(address)), None, "{address}");
        }
        // A machine of the site is who its MAC says.
        let known = Mac([0x52, 0x54, 0, 0x77, 0, 2]);
        assert_eq!(whose(&Record { mac: known, ..record("10.78.0.1") }), None);
        assert_eq!(whose(&Record { machine: "m09".into(), ..record("10.78.0.1") }), None);
    }

    #[test]
    fn the_bmc_itself_has_to_say_the_same() {
        let hardware = record("10.78.0.1").hardware;
        let answer = |mac: &str| Answer { on: true, mac: Some(mac.into()), guid: None };
        let right = answer("52:54:00:78:00:01");
        assert!(!proved(&hardware, &right).unwrap().contains("GUID"));
        assert!(
            proved(&hardware, &answer("52:54:00:78:00:02")).unwrap_err().contains("has the MAC")
        );
        assert!(proved(&hardware, &Answer { mac: None, ..right }).is_err());
        assert!(
            proved(&hardware, &Answer { on: false, ..right.clone() }).unwrap_err().contains("off")
        );
        let mut uuid =
            [0x6b, 0x6f, 0x62, 0x6f, 0x73, 0x68, 0x49, 0x69, 0x80, 0, 0x52, 0x54, 0, 0x77, 0, 7];
        for _ in 0..2 {
            let same = Answer { guid: Some(Guid(uuid)), ..right.clone() };
            assert!(proved(&hardware, &same).unwrap().contains("its GUID is the machine's UUID"));
            uuid.reverse();
        }
        assert!(!is_uuid(Guid([0; 16]), "00000000-0000-0000-0000-000000000000"));
        assert!(!is_uuid(Guid([0; 16]), "é"));
    }

    #[test]
    fn until_the_site_says_otherwise() {
        let identities = Identities::default();
        let m01: MachineName = "m01".parse().unwrap();
        identities.found(NEW, m01.clone(), Ipv4Addr::new(10, 78, 0, 1));
        assert_eq!(identities.of(&site(SITE)), BTreeMap::from([(NEW, m01.clone())]));
        for other in [
            SITE.replace("\"10.78.0.1\"", "\"10.78.0.11\""),
            SITE.replace("identify = \"bmc\"", "identify = \"mac\""),
            SITE.replace("m01 =", "m07 ="),
            SITE.replace("52:54:00:77:00:02", &NEW.to_string()),
        ] {
            assert_eq!(identities.of(&site(&other)), BTreeMap::new(), "{other}");
        }
        // The next board in the same place.
        let next = Mac([0x52, 0x54, 0, 0x99, 0, 2]);
        identities.found(next, m01.clone(), Ipv4Addr::new(10, 78, 0, 1));
        assert_eq!(identities.of(&site(SITE)), BTreeMap::from([(next, m01)]));
        assert!(identities.may_ask(NEW, 1_000_000) && !identities.may_ask(NEW, 1_000_100));
        assert!(identities.may_ask(NEW, 1_000_000 + AGAIN_MS));
    }
}
