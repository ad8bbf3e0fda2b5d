//! Somebody at a machine's console chooses what it shall be: what is offered there, and where an answer
//! goes. It stands with the boot that is under way, for the one boot that follows, and is believed only
//! from the address which that machine was given.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::{Desk, News, Snapshot, said};
use crate::content::BootId;
use crate::decide::{Chosen, Entry, Place, Unknown};
use crate::mac::Mac;
use crate::menu::Menu;
use crate::pace::Pauses;
use crate::script::ipxe::menu;

/// Why an answer was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoChoice {
    /// It is none that the site offers; why, for whoever typed it.
    Refused(String),
    /// No boot under way has this id or address.
    NotYours,
}

impl Snapshot {
    /// What a machine is offered, if anything.
    pub fn menu_of(&self, entry: &Entry) -> Option<Menu> {
        match entry {
            Entry::Known(known) => {
                let seat = match &known.place {
                    Place::Seat(seat) => Some((seat.name.clone(), seat.role.clone())),
                    _ => None,
                };
                Some(Menu { seat, roles: self.menu.clone()? })
            }
            Entry::Unknown(unknown) => match unknown.as_ref() {
                Unknown::Menu(roles) => Some(Menu { seat: None, roles: roles.clone() }),
                _ => None,
            },
        }
    }
}

impl Desk {
    /// `GET /choose/<mac>`: an answer typed in the loader becomes a script: to ask DHCP again, or why
    /// it was no answer and the menu once more.
    pub fn choose_in_loader(&self, mac: Mac, peer: IpAddr, words: &str) -> Option<String> {
        let site = self.site.load();
        let menu = site.menu_of(&site.entry(mac))?;
        let pauses = Pauses::drawn((self.draw)());
        let server = &site.server_for(peer);
        Some(match self.choose(mac, peer, words, true) {
            Ok(says) => menu::again(server, mac, &says, pauses),
            Err(NoChoice::Refused(why)) => menu::refused(server, mac, &menu, &why),
            Err(NoChoice::NotYours) => {
                let says = "this machine's address is not its own any more; it asks for one again";
                menu::again(server, mac, says, pauses)
            }
        })
    }

    /// `POST /choose/<boot>`: one typed at `koboshi-init`, which starts the machine over.
    pub fn choose_in_init(
        &self,
        id: BootId,
        peer: IpAddr,
        words: &str,
    ) -> Result<String, NoChoice> {
        let own =
            self.inner().boots.get(id).filter(|boot| boot.speaks_as(peer)).map(|boot| boot.mac);
        let mac = own.ok_or(NoChoice::NotYours)?;
        // Nobody came, and it asks whether it was adopted meanwhile.
        if let (true, Entry::Known(known)) = (words.is_empty(), self.site.load().entry(mac)) {
            return Ok(format!("this machine is {} by now", known.name));
        }
        self.choose(mac, peer, words, false)
    }

    fn choose(
        &self,
        mac: Mac,
        peer: IpAddr,
        words: &str,
        in_loader: bool,
    ) -> Result<String, NoChoice> {
        let site = self.site.load();
        let refused = |why: &str| Err(NoChoice::Refused(why.to_string()));
        let entry = site.entry(mac);
        let Some(menu) = site.menu_of(&entry) else {
            return refused("the site offers nothing to choose here");
        };
        let (id, stage, says) = {
            let mut inner = self.inner();
            let boot = inner.find(&entry, mac).filter(|boot| boot.speaks_as(peer));
            let (id, mac, stage) =
                boot.map(|boot| (boot.id, boot.mac, boot.stage)).ok_or(NoChoice::NotYours)?;
            if !inner.spend(id) {
                return refused("too many answers at once; try again in a second");
            }
            let choice = menu.understand(words).map_err(NoChoice::Refused)?;
            let says = choice.says();
            let chosen = Chosen { choice: Arc::new(choice), in_loader };
            if let Some(boot) = inner.boots.of_mut(mac) {
                boot.chosen = Some((chosen, Instant::now()));
            }
            (id, stage, says)
        };
        let note = format!("{says}{}", said::TYPED);
        self.tell(News::Mark { id, stage, note, at: SystemTime::now() });
        Ok(says)
    }
}
