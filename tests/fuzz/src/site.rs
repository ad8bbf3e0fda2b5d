//! A site file, half edited or worse: a site, or problems that can be drawn.

#![no_main]

use std::fs;
use std::net::Ipv4Addr;

use koboshi::site::load::{Env, Purpose, load};
use koboshi::site::reload::{diff, judge};
use koboshi::site::{Look, Problems};
use koboshi_fuzz::folder;
use libfuzzer_sys::fuzz_target;

/// Nothing outside the folder is included: after each `include` a path loses its slashes.
fn fence(bytes: &mut [u8]) {
    let mut rest = 0;
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(b"include") {
            rest = 300;
        }
        if rest > 0 && matches!(bytes[at], b'/' | b'\\') {
            bytes[at] = b'-';
        }
        rest = usize::saturating_sub(rest, 1);
    }
}

fn draw(problems: &Problems) {
    for look in [Look::Plain, Look::Fancy(60)] {
        let text = problems.render(look);
        assert!(problems.is_empty() || !text.is_empty());
        assert!(!text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\x1b')));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut text = bytes.to_vec();
    fence(&mut text);
    let path = folder().join("site.toml");
    fs::write(&path, &text).expect("room in the folder");
    let other = folder().join("rack9.toml");
    fs::write(other, include_bytes!("../../data/site/good/machines.d/rack9.toml")).expect("room");
    let eth1 = |name: &str| match name {
        "eth1" => vec![(Ipv4Addr::new(10, 77, 0, 1), 24)],
        _ => Vec::new(),
    };
    for purpose in [Purpose::Serve, Purpose::Check] {
        match load(&path, &Env { interface_network: &eth1, purpose }) {
            Ok(site) => {
                draw(&site.warnings);
                let changes = diff(&site, &site);
                assert!(changes.is_empty(), "a site differs from itself: {changes:?}");
                let _ = judge(&changes, &|_| true);
            }
            Err(problems) => {
                assert!(problems.has_errors());
                draw(&problems);
            }
        }
    }
});
