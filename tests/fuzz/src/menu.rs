//! What was typed at a menu, as iPXE sends it and as the console has it: nothing is chosen that is not
//! offered, and every argument can stand on a kernel's command line.
//!
//! First byte: what is offered.

#![no_main]

use std::sync::Arc;

use koboshi_pxe::menu::{
    Becomes, Menu, Offered, WORDS_MAX, decode, fits_cmdline, is_argument, not_for_ipxe,
};
use libfuzzer_sys::fuzz_target;

fn menu(what: u8) -> Menu {
    let offered = |role: &str, trouble: Option<&str>| Offered {
        role: role.to_string(),
        trouble: trouble.map(str::to_string),
    };
    let roles = [offered("web", None), offered("db", None), offered("lb", Some("no image"))];
    let roles = roles.into_iter().take(usize::from(what & 3)).collect();
    let seat = (what & 4 != 0).then(|| ("web1".to_string(), "web".to_string()));
    Menu { seat, roles: Arc::new(roles) }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((what, typed)) = bytes.split_first() else { return };
    let menu = menu(*what);
    let typed = String::from_utf8_lossy(typed);
    let decoded = decode(&typed);
    assert!(decoded.len() <= 3 * typed.len());
    for words in [&*typed, &decoded] {
        match menu.understand(words) {
            Err(why) => assert!(!why.is_empty() && why.len() <= 6 * WORDS_MAX + 200),
            Ok(choice) => {
                match &choice.becomes {
                    Becomes::Seat => assert!(menu.seat.is_some()),
                    Becomes::Role(role) => assert!(
                        menu.roles.iter().any(|one| one.role == *role && one.trouble.is_none())
                    ),
                }
                for (key, value) in &choice.args {
                    assert!(
                        is_argument(key) && fits_cmdline(value) && not_for_ipxe(value).is_none()
                    );
                    assert!(!value.contains(char::is_whitespace), "{value:?}");
                }
                assert!(choice.says().len() <= 2 * WORDS_MAX);
            }
        }
    }
});
