//! What a machine is told when its loader asks: to boot its plan, to wait, and for what. One
//! answer, whatever the loader's language; asking never makes a boot id, and moves a boot only if it
//! is asked from that boot's own address.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::turns::Turn;
use crate::boots::{Plan, Stage};
use crate::content::BootId;
use crate::decide::{Action, Asks, Facts};
use crate::desk::{Desk, News};
use crate::loader::{self, Language};
use crate::mac::Mac;
use crate::pace::Pauses;
use crate::script::{Place, grub, ipxe, pxelinux};

/// In nobody's language.
enum Orders {
    /// To boot.
    Boot(BootId, Arc<Plan>, String),
    /// To ask again when its turn may have come.
    Turn { says: String, seconds: u64 },
    /// To ask again: there is nothing to boot.
    Wait { says: String },
    /// To begin a boot: there is something by now.
    Begin { says: String },
}

impl Desk {
    /// The script for `GET /boot/<mac>.ipxe`.
    pub fn script(&self, mac: Mac, peer: IpAddr) -> Option<String> {
        // Over HTTP nobody asks from an address that is not its own.
        self.begins_at(peer, Some(mac));
        self.orders(Language::Ipxe, mac, peer)
    }

    /// What this machine's loader reads in its language.
    pub(super) fn orders(&self, language: Language, mac: Mac, peer: IpAddr) -> Option<String> {
        let site = self.site();
        let boot = self.boot_by(mac);
        let mac = boot.as_ref().map_or(mac, |boot| boot.mac);
        let loader = boot.as_ref().and_then(|boot| boot.loader.as_deref());
        let server = site.server_for(peer);
        let place = Place {
            server: &server,
            tftp: site.address_for(peer),
            mac,
            uart: site.freeze.uart(&site.entry(mac)),
            http: loader.is_some_and(loader::fetches_http),
            pauses: Pauses::drawn((self.draw)()),
        };
        let own = boot.as_ref().is_some_and(|boot| boot.speaks_as(peer));
        // It was started over, and that was not heard, or the site says something else by now.
        let over = own && boot.is_some_and(|boot| boot.stage >= Stage::Init);
        let (pauses, again) = (place.pauses, place.pauses.again);
        let mut orders = match over {
            true => Orders::Begin { says: "its former boot is over".to_string() },
            false => self.standing(mac, own)?,
        };
        let mut boots = String::new();
        if let Orders::Boot(id, plan, _) = &orders {
            let said = match language {
                Language::Ipxe => Ok(ipxe::boot(&server, *id, plan, pauses)),
                Language::Pxelinux => pxelinux::boot(&place, *id, plan),
                Language::Grub => grub::boot(&place, *id, plan),
            };
            match said {
                Ok(text) => boots = text,
                // Its language has no words for this plan, and an operator is told so.
                Err(why) => {
                    let says = format!("{why}; change that in the site, then restart the machine");
                    orders = Orders::Wait { says };
                }
            }
        }
        if own {
            match &orders {
                Orders::Boot(_, _, waited) => {
                    self.advance(mac, Stage::Script, format!("to {peer}{waited}"));
                }
                Orders::Turn { says, .. } | Orders::Wait { says } | Orders::Begin { says } => {
                    self.waits(mac, says.lines().next().unwrap_or_default());
                }
            }
        }
        let (server, name) = (&server, mac.to_string());
        Some(match (language, &orders) {
            (Language::Ipxe, Orders::Boot(_, plan, _)) => {
                let asks = own && plan.ticket.is_none();
                match site.menu_of(&site.entry(mac)).filter(|_| asks) {
                    Some(menu) => ipxe::menu::before_boot(&boots, server, mac, &menu),
                    None => boots,
                }
            }
            (_, Orders::Boot(..)) => boots,
            (Language::Ipxe, Orders::Turn { says, seconds }) => {
                ipxe::turn(server, &name, says, *seconds, pauses)
            }
            // It asks DHCP again before its script: that begins a boot.
            (Language::Ipxe, Orders::Wait { says } | Orders::Begin { says }) => {
                match site.menu_of(&site.entry(mac)).filter(|_| own) {
                    Some(menu) => ipxe::menu::wait(server, mac, says, &menu, pauses),
                    None => ipxe::wait(server, &name, says, pauses),
                }
            }
            (Language::Pxelinux, Orders::Turn { says, seconds }) => {
                pxelinux::wait(&place, says, *seconds)
            }
            (Language::Grub, Orders::Turn { says, seconds }) => grub::wait(&place, says, *seconds),
            (Language::Pxelinux, Orders::Wait { says }) => pxelinux::wait(&place, says, again),
            (Language::Grub, Orders::Wait { says }) => grub::wait(&place, says, again),
            (Language::Pxelinux, Orders::Begin { .. }) => pxelinux::restart(&place),
            (Language::Grub, Orders::Begin { .. }) => grub::restart(&place),
        })
    }

    /// It was told to wait: a line in its timeline the first time, a sign of life each time.
    fn waits(&self, mac: Mac, says: &str) {
        if self.boot_of(mac).is_some_and(|boot| boot.stage == Stage::Waiting) {
            self.tell(News::Alive { mac, at: SystemTime::now() });
        } else {
            self.advance(mac, Stage::Waiting, says.to_string());
        }
    }

    /// How it stands; who only looks takes no turn.
    fn standing(&self, mac: Mac, own: bool) -> Option<Orders> {
        let facts = Facts { mac, asks: Asks::Script };
        let site = self.site();
        // Where it stands its DHCP has shown, not whoever reads its orders.
        let stands = self.boot_of(mac).and_then(|boot| site.subnet_of(boot.address));
        let step = match stands {
            Some(subnet) => self.ask_on(&facts, subnet),
            None => self.ask(&facts),
        };
        match step.action {
            Action::Boot(plan) => {
                let id = self.boot_of(mac)?.id;
                let turn = match own {
                    true => self.turn(mac, Instant::now()),
                    false => Turn::Now { waited: None },
                };
                Some(match turn {
                    Turn::Now { waited } => {
                        let queued = waited
                            .map(|so_long| format!(", after {} s in the queue", so_long.as_secs()));
                        Orders::Boot(id, plan, queued.unwrap_or_default())
                    }
                    Turn::Wait { seconds, says, storm } => {
                        if let Some(text) = storm {
                            self.heard(None, "storm", text);
                        }
                        Orders::Turn { says, seconds }
                    }
                })
            }
            Action::Wait { says, begins: false } => Some(Orders::Wait { says }),
            Action::Wait { says, begins: true } => Some(Orders::Begin { says }),
            Action::Silence | Action::Address { .. } => None,
        }
    }
}
