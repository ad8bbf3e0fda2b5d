//! Between the desk and the two protocols that have states of their own: a DHCP request becomes
//! facts, a step becomes an answer, and what DHCP and TFTP tell becomes lines of a timeline.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::heard::Subject;
use super::place::Whence;
use super::{Desk, Offer, Snapshot, said};
use crate::boots::{Boot, Stage};
use crate::decide::{Action, Arch, Asks, Client, Facts, Loader};
use crate::dhcp::{
    self, Address, Answer, BootFile, EventKind, MessageType, Proxying, Reason, Serving, Vendor,
    Via, Who,
};
use crate::hostile::Harm;
use crate::script::ipxe;
use crate::{loader, tftp};

impl Desk {
    /// What DHCP is to do about a client.
    pub fn dhcp(&self, request: &dhcp::Request) -> Answer {
        let site = self.site();
        let network = match site.network(request.mac, &Whence::of(request)) {
            Ok(network) => network,
            Err(stray) => {
                self.stands_nowhere(request.mac, &stray);
                return Answer::Aside;
            }
        };
        if let Some(answer) = self.bmc(&site, request, network) {
            return answer;
        }
        let subnet = network.subnet.clone();
        if self.asked_elsewhere(request, &subnet) {
            return Answer::Aside;
        }
        let discover = request.kind == MessageType::Discover;
        let facts =
            facts(request.mac, request.is_ipxe(), request.vendor(), &request.archs, discover);
        // Beside another server, what only wants an address is that server's to answer.
        let boots = !matches!(facts.asks, Asks::Dhcp { client: Client::System, .. });
        if site.proxy && !boots {
            return Answer::Aside;
        }
        if discover && boots {
            self.look_for_holder(request.mac);
        }
        let step = self.ask_on(&facts, &subnet);
        let Action::Address { address, hostname, loader, .. } = step.action else {
            return Answer::Silence;
        };
        let (who, runs) = self.shows(&site, request.mac);
        let macs = site.machines.get(&request.mac).map_or(Vec::new(), |known| known.macs.clone());
        let server = subnet.server;
        let boot = loader.map(|loader| BootFile {
            name: match loader {
                Loader::Tftp(file) => file,
                Loader::Http(file) => format!("http://{server}:{}/{file}", site.http_port),
                Loader::Script => ipxe::url(server, site.http_port, request.mac),
            },
            next_server: server,
        });
        if site.proxy {
            return match boot {
                Some(boot) => Answer::Proxy(Proxying { subnet, boot }),
                None => Answer::Aside,
            };
        }
        Answer::Serve(Serving {
            address: address.map_or(Address::Pool, Address::Fixed),
            subnet,
            hostname,
            boot,
            who,
            macs,
            runs,
        })
    }

    /// Whether the site knows a client, and whether it runs.
    fn shows(&self, site: &Snapshot, mac: crate::Mac) -> (Who, bool) {
        let (inner, now) = (self.inner(), Instant::now());
        let runs = inner.runs(site, mac, now);
        let booted = inner.boots.of(mac).is_some_and(|boot| boot.stage >= Stage::Loader);
        let who = match site.machines.contains_key(&mac) {
            true => Who::Machine,
            false if booted => Who::Booted,
            false => Who::Stranger,
        };
        (who, runs)
    }

    /// What DHCP tells.
    pub fn dhcp_event(&self, event: &dhcp::Event) {
        let facts = |discover| facts(event.mac, event.ipxe, event.vendor, &event.archs, discover);
        let at = || event.address.map(|address| format!(" {address}")).unwrap_or_default();
        let mac = event.mac;
        let offer = |lender| self.offer(event, lender);
        match &event.kind {
            EventKind::Offered => {
                if let Some(offer) = offer(None) {
                    self.offered(&facts(true), &offer);
                }
            }
            EventKind::Acked => {
                if let Some(offer) = offer(None) {
                    self.acked(&facts(false), &offer, event.boot_file.as_deref());
                }
            }
            EventKind::LentElsewhere { by } => {
                if let Some(offer) = offer(Some(*by)) {
                    self.lent_elsewhere(&facts(true), &offer);
                }
            }
            EventKind::ProxyAcked => {
                if let Some(offer) = offer(Some(None)) {
                    let begins = |boot: &Boot| boot.stage < Stage::Init;
                    let live = self.boot_of(mac).filter(begins);
                    let live = live.filter(|boot| boot.speaks_from(offer.address));
                    if live.is_none() {
                        self.lent_elsewhere(&facts(true), &offer);
                    }
                    let file = event.boot_file.as_deref().unwrap_or_default();
                    self.remark(offer.address.into(), format!("asked port 4011: {file}"));
                }
            }
            EventKind::ProxyOffered => {
                let file = event.boot_file.as_deref().unwrap_or_default();
                let text = format!("is told to boot {file}, at whatever address it is lent");
                self.heard(Some(mac), "proxy", text);
            }
            EventKind::Nacked(why) => {
                self.heard(Some(mac), "nak", format!("refused{}: {why}", at()))
            }
            EventKind::Declined => {
                let text = format!("found{} in use by another machine; it rests", at());
                self.heard(Some(mac), "declined", text);
            }
            EventKind::PoolEmpty => match self.waits_nowhere(mac) {
                Some(text) => self.heard(Some(mac), "waits", text),
                None => {
                    let network = self.boots_on(event);
                    let of = network.map(|one| format!(" of {}/{}", one.network, one.prefix));
                    let text = format!("no address left in the pool{}", of.unwrap_or_default());
                    self.heard(Some(mac), "pool-empty", text);
                }
            },
            EventKind::Crowded(why) => self.harm(Harm::Strangers, 1, why.to_string()),
            EventKind::Occupied => {
                let text =
                    format!("{} answers ARP though nobody was given it; it rests", at().trim());
                let address = event.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
                self.heard_once(Some(Subject::Address(address)), "occupied", text);
            }
            EventKind::Disbelieved => {
                let text = format!(
                    "somebody answers ARP for so many addresses of the pool that it is not believed any more, \
                     last for{}: proxy ARP on a router, or an attack; ip neigh says who it is",
                    at()
                );
                self.harm(Harm::Conflicts, 1, text);
            }
            // Its firmware found nothing to load, and gives up what its boot was to have.
            EventKind::Ignored(Reason::NotItself) if self.inner().begun.waits(mac) => {}
            EventKind::Ignored(Reason::NotItself) => {
                let text = format!(
                    "its address{} was given up in its name, by somebody else: it is not believed",
                    at()
                );
                let _told_of_the_machine =
                    self.hostile.seen(Harm::Forged, 1, &format!("{mac}: {text}"), Instant::now());
                self.heard(Some(mac), Harm::Forged.as_str(), text);
            }
            EventKind::Ignored(Reason::NotServed) => {
                let who = if event.ipxe {
                    "iPXE"
                } else if event.vendor == Vendor::Pxe {
                    "PXE firmware"
                } else {
                    "a system"
                };
                let text =
                    format!("{who} asks for an address; the site does not know it, no answer");
                self.heard(Some(mac), "unknown-machine", text);
            }
            EventKind::Ignored(Reason::AddressInUse) => {
                let text = format!(
                    "the address{} that is meant for it is in use by another machine",
                    at()
                );
                self.heard(Some(mac), "conflict", text);
            }
            EventKind::Ignored(Reason::StillLent) => {
                let text = format!(
                    "the address{} that is meant for it is lent to another machine still, which nobody can ask \
                     behind a relay: it gets it once that lease is over",
                    at()
                );
                self.heard(Some(mac), "conflict", text);
            }
            EventKind::Ignored(Reason::NotStored) => {
                let text = "its lease could not be written down, so it got no answer".to_string();
                self.heard(Some(mac), "not-stored", text);
            }
            EventKind::Ignored(_) | EventKind::Released | EventKind::Informed => {}
        }
    }

    /// An address on its way, where it belongs to a boot.
    fn offer(&self, event: &dhcp::Event, lender: Option<Option<Ipv4Addr>>) -> Option<Offer> {
        let (subnet, address) = (self.boots_on(event)?, event.address?);
        if lender.is_some() && !subnet.contains(address) {
            let cidr = format!("{}/{}", subnet.network, subnet.prefix);
            let text = format!("another server lends it {address}, which is not in {cidr}");
            self.heard(Some(event.mac), "misplaced", text);
            return None;
        }
        let info = event.relay_info.clone().unwrap_or_default();
        let via =
            event.relay.map(|relay| Via { relay, circuit: info.circuit, remote: info.remote });
        Some(Offer { address, subnet, via, lender })
    }

    /// What TFTP tells.
    pub fn tftp_event(&self, event: &tftp::Event) {
        use tftp::Event;
        match event {
            Event::Begun { .. } => {}
            Event::Probed { peer, name, size } => {
                let name = self.called(peer.ip(), name);
                let text = format!("{}{name}: {} KiB", said::SIZE_ASKED, size / 1024);
                self.remark(peer.ip(), text);
            }
            Event::Done { peer, name, bytes, elapsed, resent, .. } => {
                let again = match resent {
                    0 => String::new(),
                    blocks => format!(", {blocks} blocks sent again"),
                };
                let seconds = elapsed.as_secs_f64();
                let how = format!(", {} KiB in {seconds:.1} s{again}", bytes / 1024);
                self.file_sent(*peer, name, &how);
            }
            Event::Aborted { peer, name, message, bytes, .. } => {
                let name = self.called(peer.ip(), name);
                let (kib, message) = (bytes / 1024, message.trim());
                let text = format!("{name}{}{kib} KiB: {message}", said::BROKE_OFF);
                self.remark(peer.ip(), text);
            }
            Event::TimedOut { peer, name, bytes, size } => {
                let name = self.called(peer.ip(), name);
                let of = format!("{} of {} KiB", bytes / 1024, size / 1024);
                self.remark(peer.ip(), format!("{name}{}{of}", said::FELL_SILENT));
            }
            Event::Replaced { peer, name, .. } => {
                let name = self.called(peer.ip(), name);
                self.remark(peer.ip(), format!("{name}: the client began anew"));
            }
            Event::Refused { name, .. } if loader::is_asked_in_vain(name) => {}
            Event::Refused { peer, name, why } => {
                self.remark(peer.ip(), format!("{}{name}: {why}", said::ASKED_FOR));
            }
        }
    }
}

fn facts(mac: crate::Mac, ipxe: bool, vendor: Vendor, archs: &[u16], discover: bool) -> Facts {
    let client = match vendor {
        _ if ipxe => Client::Ipxe,
        Vendor::Pxe => Client::Firmware,
        Vendor::Http => Client::HttpBoot,
        Vendor::Other | Vendor::None => Client::System,
    };
    Facts {
        mac,
        asks: Asks::Dhcp { client, archs: archs.iter().copied().map(Arch).collect(), discover },
    }
}
