//! Files that are cut off, altered, or very large.

use proptest::prelude::*;

use super::*;

#[test]
fn a_half_saved_file_is_an_error_or_a_smaller_site() {
    let text = std::fs::read_to_string(data().join("good/design.toml")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.toml");
    let env = Env { interface_network: &eth1, purpose: Purpose::Serve };
    let mut fine = 0;
    for end in 0..=text.len() {
        std::fs::write(&path, &text.as_bytes()[..end]).unwrap();
        match load(&path, &env) {
            Ok(site) => fine += usize::from(site.machines.len() <= 7),
            // A few are drawn as well, all would take a minute.
            Err(problems) if end % 23 == 0 => assert!(!problems.render(Look::Plain).is_empty()),
            Err(problems) => assert!(problems.has_errors()),
        }
    }
    assert!(
        fine > 0,
        "a cut at the end of a line is valid TOML: that is what the rules of reload are for"
    );
}

fn files() -> Vec<String> {
    let mut all = vec![std::fs::read_to_string(data().join("good/design.toml")).unwrap()];
    for entry in std::fs::read_dir(data().join("bad")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "toml") {
            all.push(std::fs::read_to_string(path).unwrap());
        }
    }
    all.sort();
    all
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn any_change_of_any_byte_is_survived(
        which in any::<proptest::sample::Index>(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4u8), 1..6),
        ) {
        let files = files();
        let mut bytes = which.get(&files).clone().into_bytes();
        for (at, byte, how) in changes {
            if bytes.len() < 2 {
                break;
            }
            let at = at.index(bytes.len());
            let piece = [b"[".as_slice(), b"{n}", b"\"", b"\n", b"=", b",", b"{", b"}", b"0", b"."][usize::from(byte) % 10];
            match how {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                2 => drop(bytes.splice(at..at, piece.iter().copied())),
                _ => bytes.truncate(at.max(1)),
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("site.toml");
        std::fs::write(&path, &bytes).unwrap();
        if let Err(problems) = load(&path, &Env { interface_network: &eth1, purpose: Purpose::Check }) {
            prop_assert!(problems.has_errors());
            let _ = problems.render(Look::Plain);
            let _ = serde_json::to_string(&problems).unwrap();
        }
    }
}

#[test]
fn ten_thousand_machines_are_checked() {
    use std::fmt::Write;
    let mut text = String::from(
        "[net]\ninterface = \"eth1\"\ncidr = \"10.64.0.0/10\"\n[roles.web]\nimage = \"web\"\n[classes.c]\nserial = \"ttyS1,115200\"\n",
    );
    let (mut machines, mut seats, mut matrix) =
        (String::from("[machines]\n"), String::from("[seats]\n"), String::from("[matrix]\n"));
    for n in 0..10_000 {
        let (high, low) = (n / 250, n % 250 + 2);
        writeln!(machines, "m{n:05} = {{ class = \"c\", mac = [\"52:54:00:77:{high:02x}:{low:02x}\"], bmc = \"10.20.{high}.{low}\", console = \"sol\" }}").unwrap();
        writeln!(
            seats,
            "web{n} = {{ role = \"web\", ip = \"10.77.{high}.{low}\", args = {{ id = \"{n}\" }} }}"
        )
        .unwrap();
        writeln!(matrix, "m{n:05} = \"web{n}\"").unwrap();
    }
    text += &(machines + &seats + &matrix);
    let began = std::time::Instant::now();
    let site = site(&text);
    println!("10,000 machines, {} kB: {:?}", text.len() >> 10, began.elapsed());
    assert_eq!(
        (site.machines.len(), site.by_mac.len(), site.seated.len()),
        (10_000, 10_000, 10_000)
    );
    let began = std::time::Instant::now();
    let other = super::site(&text.replace("web9999\"", "spare\""));
    let changes = reload::diff(&site, &other);
    println!("read again and compared: {:?}", began.elapsed());
    assert_eq!(changes.moves.len(), 1);
    assert_eq!(reload::judge(&changes, &|_| false), reload::Verdict::Apply);
}
