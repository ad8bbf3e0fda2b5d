//! Addresses somebody may come from: the `from=` of sshd(8), for addresses alone. Names are not looked up: whoever
//! answers for them could open the door.

use std::net::IpAddr;

/// A list of patterns, of which one holds an address and none that is negated does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources(Vec<Item>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    negated: bool,
    what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    /// Address and length of its prefix.
    Net(IpAddr, u8),
    /// With `*` and `?`, over the address as it is written.
    Pattern(String),
}

impl Sources {
    /// Of `10.0.0.0/8,!10.0.0.7,192.0.2.*`.
    ///
    /// # Errors
    /// What is none of that, in words.
    pub fn parse(text: &str) -> Result<Sources, String> {
        let items = text.split(',').map(|item| {
            let item = item.trim();
            let (negated, item) = match item.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, item),
            };
            let what = what(item).ok_or_else(|| {
                format!(
                    "from= has `{}`, which is no address, network or pattern of addresses (names are not looked up)",
                    item.escape_debug()
                )
            })?;
            Ok(Item { negated, what })
        });
        items.collect::<Result<_, _>>().map(Sources)
    }

    /// Whether somebody may come from there.
    pub fn hold(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let mut held = self.0.iter().filter(|item| item.what.holds(address)).peekable();
        held.peek().is_some() && held.all(|item| !item.negated)
    }
}

impl What {
    fn holds(&self, address: IpAddr) -> bool {
        match self {
            What::Net(net, length) => same_net(*net, address, *length),
            What::Pattern(pattern) => {
                matches(pattern.as_bytes(), address.to_string().to_ascii_lowercase().as_bytes())
            }
        }
    }
}

fn what(item: &str) -> Option<What> {
    if let Some((net, length)) = item.split_once('/') {
        let (net, length): (IpAddr, u8) = (net.parse().ok()?, length.parse().ok()?);
        let most = if net.is_ipv4() { 32 } else { 128 };
        return (length <= most).then_some(What::Net(net, length));
    }
    if let Ok(address) = item.parse::<IpAddr>() {
        let address = address.to_canonical();
        return Some(What::Net(address, if address.is_ipv4() { 32 } else { 128 }));
    }
    let plain = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '*' | '?');
    let wild = item.contains(['*', '?']);
    (wild && item.chars().all(plain)).then(|| What::Pattern(item.to_ascii_lowercase()))
}

fn same_net(net: IpAddr, address: IpAddr, length: u8) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    };
    let mask = !u128::MAX.checked_shr(u32::from(length)).unwrap_or(0);
    net.is_ipv4() == address.is_ipv4() && (bits(net) ^ bits(address)) & mask == 0
}

/// `*` is any text, `?` any character. Never more than their lengths multiplied.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut here, mut star) = (0, 0, None);
    while let Some(c) = text.get(here) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, here));
                at += 1;
            }
            Some(p) if p == c || *p == b'?' => {
                at += 1;
                here += 1;
            }
            _ => match star {
                // It stands for one character more.
                Some((behind, from)) => {
                    at = behind + 1;
                    here = from + 1;
                    star = Some((behind, here));
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|c| *c == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(list: &str, address: &str) -> bool {
        Sources::parse(list).unwrap().hold(address.parse().unwrap())
    }

    #[test]
    fn one_pattern_holds_and_no_negated_one_does() {
        assert!(holds("10.0.0.0/8", "10.255.1.2") && !holds("10.0.0.0/8", "11.0.0.1"));
        assert!(holds("192.0.2.*", "192.0.2.200") && !holds("192.0.2.*", "192.0.20.1"));
        assert!(holds("192.0.2.?", "192.0.2.9") && !holds("192.0.2.?", "192.0.2.10"));
        assert!(holds("*", "::1") && holds("*,!10.0.0.1", "10.0.0.2"));
        assert!(!holds("!10.0.0.1,*", "10.0.0.1") && !holds("!10.0.0.1", "10.0.0.2"));
        assert!(holds("2001:DB8::/32", "2001:db8:1::7") && !holds("2001:db8::/32", "2001:db9::"));
        assert!(holds("0.0.0.0/0", "10.0.0.1") && !holds("0.0.0.0/0", "::1"));
        // As a socket for both families shows an IPv4 address.
        assert!(holds("10.0.0.7", "::ffff:10.0.0.7"));
    }

    #[test]
    fn names_and_nonsense_are_refused() {
        for wrong in
            ["", "host.example", "*.example", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.1,", "!"]
        {
            assert!(Sources::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_list_is_read_or_refused(list in "[0-9a-f.:*?!,/x]{0,40}", address: u32) {
            if let Ok(sources) = Sources::parse(&list) {
                sources.hold(IpAddr::V4(address.into()));
            }
        }

        #[test]
        fn a_pattern_holds_what_a_regular_expression_does(pattern in "[12.*?]{0,8}", text in "[12.]{0,8}") {
            let regular = pattern.replace('.', "\\.").replace('*', ".*").replace('?', ".");
            let regular = regex::Regex::new(&format!("^{regular}$")).unwrap();
            prop_assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), regular.is_match(&text));
        }
    }
}
