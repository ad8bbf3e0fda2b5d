//! Words of the site file and of the command line: host lists, templates, and every value that is
//! written as a text of its own.

#![no_main]

use koboshi::site::hostlist::{HostList, MOST, expand, fold, is_list};
use koboshi::site::{
    Cidr, Console, ImageRef, Lease, MachineName, Pool, Power, RootSize, Serial, Unknown, template,
};
use libfuzzer_sys::{Corpus, fuzz_target};

fuzz_target!(|text: &str| -> Corpus {
    // 65,536 names of a long text are a lot of memory, and no other code.
    if text.len() > 400 {
        return Corpus::Reject;
    }
    if let Ok(hosts) = expand(text) {
        assert!(!hosts.is_empty() && hosts.len() <= MOST);
        let names: Vec<&str> = hosts.iter().map(|host| host.name.as_str()).collect();
        // Only what can be a machine's name is ever folded.
        if names.len() < 2000 && names.iter().all(|name| name.parse::<MachineName>().is_ok()) {
            let again = expand(&fold(&names)).expect("a folded list is a list");
            let mut again: Vec<&str> = again.iter().map(|host| host.name.as_str()).collect();
            let mut names = names.clone();
            names.sort_unstable();
            again.sort_unstable();
            names.dedup();
            assert_eq!(names, again);
        }
        for host in hosts.iter().take(3) {
            for plain in [true, false] {
                let _ = template::fill("{n}/{n1+1:02x}/{n2-3}", &host.numbers, plain);
                let _ = template::fill(text, &host.numbers, plain);
            }
        }
    }
    if let Ok(list) = text.parse::<HostList>() {
        let group = |name: &str| if name.len() < 9 { Ok(vec![name.to_string()]) } else { Err(()) };
        let _ = list.resolve(group);
    }
    let _ = (is_list(text), template::asks(text));
    let numbers = ["07".to_string(), "999999999999999999".to_string()];
    for numbers in [&numbers[..], &numbers[..1], &numbers[1..], &[]] {
        let _ = template::fill(text, numbers, false);
    }
    let _ = (text.parse::<Cidr>(), text.parse::<Pool>(), text.parse::<Serial>());
    let _ = (text.parse::<ImageRef>(), text.parse::<RootSize>(), text.parse::<Lease>());
    let _ = (text.parse::<Console>(), text.parse::<Power>(), text.parse::<Unknown>());
    Corpus::Keep
});
