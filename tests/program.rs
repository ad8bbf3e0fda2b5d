//! The command line as a user meets it, without an appliance.

use std::process::{Command, Output};

use tempfile::TempDir;

use crate::world::{KOBOSHI, text};

const SITE: &str = r#"[site]
name = "fukuoka-1"

[net]
interface = "nowhere0"
cidr = "10.77.0.0/24"
pool = "10.77.0.200-10.77.0.250"
unknown = "rescue"

[roles.web]
image = "web"

[roles.rescue]
image = "rescue"

[machines]
m01 = { mac = ["52:54:00:77:00:01"], loader = "snponly.efi" }
m02 = { mac = ["52:54:00:77:00:02"] }

[seats]
web1 = { role = "web", ip = "10.77.0.11" }

[matrix]
m01 = "web1"
m02 = "spare"
"#;

struct Here(TempDir);

impl Here {
    fn new(site: &str) -> Here {
        let dir = TempDir::new().expect("a directory");
        std::fs::write(dir.path().join("site.toml"), site).expect("written");
        Here(dir)
    }

    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(KOBOSHI);
        command.current_dir(self.0.path()).args(words).env("KOBOSHI_STATE", self.0.path());
        command.output().expect("koboshi runs")
    }

    /// Exit code and everything it printed.
    fn says(&self, words: &[&str]) -> (i32, String) {
        let output = self.run(words);
        (output.status.code().expect("an exit code"), text(&output))
    }
}

#[test]
fn explain_names_the_line_that_decided() {
    let here = Here::new(SITE);
    let line = |needle: &str| {
        let at = SITE.lines().position(|line| line.starts_with(needle)).expect("the line is there");
        format!("site.toml:{}", at + 1)
    };
    let explain = |words: &[&str]| {
        let mut all = vec!["explain", "--site", "site.toml"];
        all.extend(words);
        here.says(&all)
    };
    // A known machine, by name, seat and MAC.
    for who in ["m01", "web1", "52:54:00:77:00:01", "5254.0077.0001"] {
        let (code, said) = explain(&[who]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("10.77.0.11 as web1, then snponly.efi over TFTP"), "{said}");
        let matrix = format!("the matrix gives the machine this seat   {}", line("m01 = \"web1\""));
        assert!(said.contains(&matrix), "{said}");
        let loader = format!("the site names the loader snponly.efi   {}", line("m01 = {"));
        assert!(said.contains(&loader), "{said}");
    }
    // An unknown one.
    let (code, said) = explain(&["52:54:00:99:99:99", "--arch", "efi64"]);
    assert_eq!(code, 0, "{said}");
    let unknown = format!("no machine has this MAC: net.unknown decides   {}", line("unknown ="));
    assert!(said.contains(&unknown) && said.contains("ipxe.efi over TFTP"), "{said}");
    // Malformed ones.
    for who in ["52:54:00:77:00", "52:54:00:77:00:zz", "ff:ff:ff:ff:ff:ff"] {
        let (code, said) = explain(&[who]);
        assert!(code == 0 && said.contains("no answer at all"), "{said}");
        assert!(said.contains(&format!("   {}", line("interface"))), "{said}");
    }
    let (_, said) = explain(&["52:54:00:77:00"]);
    assert!(said.contains("is not a MAC address"), "{said}");
    let (code, said) = explain(&["m01", "--arch", "99"]);
    assert!(code == 0 && said.contains("architecture 99"), "{said}");
    let (code, said) = explain(&["m1"]);
    assert!(code == 2 && said.contains("neither a machine nor a seat"), "{said}");
}

#[test]
fn check_says_every_error_at_once() {
    let broken = SITE
        .replace("m02 = \"spare\"", "m02 = \"web1\"")
        .replace("ip = \"10.77.0.11\"", "ip = \"10.78.0.11\"")
        .replace("image = \"web\"", "imgae = \"web\"");
    let (code, said) = Here::new(&broken).says(&["check", "--site", "site.toml"]);
    assert_eq!(code, 2, "{said}");
    for part in ["web1", "10.78.0.11", "imgae", "image"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let (code, said) = Here::new(SITE).says(&["check", "--site", "site.toml"]);
    assert!(code == 0 && said.contains("2 machines, 1 seats, 2 roles"), "{said}");
}

#[test]
fn without_an_appliance_the_error_says_what_to_do() {
    let (code, said) = Here::new(SITE).says(&["status"]);
    assert!(code == 1 && said.contains("is `koboshi serve` running"), "{said}");
}

#[test]
fn completions_and_manual_come_from_the_same_words() {
    let here = Here::new(SITE);
    for shell in ["bash", "zsh", "fish"] {
        let (code, said) = here.says(&["completions", shell]);
        assert!(code == 0 && said.contains("explain"), "{shell}: {said}");
    }
    let (code, said) = here.says(&["man"]);
    assert!(code == 0 && said.contains("koboshi\\-explain"), "{said}");
}
