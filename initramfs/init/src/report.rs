//! Telling the appliance how far we are. A report is a courtesy: it may cost a boot two seconds,
//! never more, and nobody minds when it is lost.

use std::io;
use std::time::Duration;

use crate::clock;
use crate::contract::{Phase, REPORT_MAX, Report};
use crate::http::{self, Patience, Server};

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(1),
    head: Duration::from_secs(1),
    body: Duration::from_secs(1),
};
const MESSAGE_MAX: usize = 1000;

/// Where reports go and how many went.
#[derive(Debug, Clone)]
pub struct Reporter {
    /// The appliance, if the command line names one.
    pub server: Option<Server>,
    /// The boot's id, 32 hex digits.
    pub boot: Option<String>,
    /// Number of the last report.
    pub seq: u32,
}

impl Reporter {
    /// Sends one report; the answer's `Date` if the appliance heard it.
    pub fn tell(&mut self, phase: Phase) -> io::Result<Option<u64>> {
        let (Some(server), Some(boot)) = (self.server, &self.boot) else {
            return Err(io::Error::other("nobody to report to"));
        };
        self.seq += 1;
        let uptime_ms = u64::try_from(clock::uptime().as_millis()).unwrap_or(u64::MAX);
        let json = encode(&Report { phase: bounded(phase), uptime_ms, seq: self.seq })?;
        let (head, _) = http::post(server, &format!("/report/{boot}"), &json, PATIENCE)?;
        if !(200..300).contains(&head.status) {
            return Err(io::Error::other(format!("the appliance answers {}", head.status)));
        }
        Ok(head.date)
    }
}

/// A boot id goes into a request line: anything but hex digits is not one.
pub fn boot_id(text: &str) -> Option<String> {
    (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())).then(|| text.to_owned())
}

fn encode(report: &Report) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(report)?;
    if json.len() > REPORT_MAX {
        return Err(io::Error::other("a report larger than the appliance reads"));
    }
    Ok(json)
}

fn bounded(phase: Phase) -> Phase {
    let cut = |message: String| message.chars().take(MESSAGE_MAX).collect();
    match phase {
        Phase::Trouble { message } => Phase::Trouble { message: cut(message) },
        Phase::Rescue { message } => Phase::Rescue { message: cut(message) },
        Phase::Finished { well, message } => Phase::Finished { well, message: cut(message) },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn a_report_as_the_appliance_gets_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server(listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut piece = [0; 1024];
                let n = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..n]);
            }
            stream
                .write_all(
                    b"HTTP/1.1 204 No Content\r\nDate: Mon, 23 Nov 2026 08:00:00 GMT\r\n\r\n",
                )
                .unwrap();
            String::from_utf8(request).unwrap()
        });
        let mut reporter =
            Reporter { server: Some(server), boot: boot_id(&"0f".repeat(16)), seq: 6 };
        let date = reporter.tell(Phase::Up { by: "init".to_owned() }).unwrap();
        assert_eq!(date, Some(1_795_420_800));
        let request = asked.join().unwrap();
        assert!(
            request.starts_with(&format!("POST /report/{} HTTP/1.1\r\n", "0f".repeat(16))),
            "{request}"
        );
        assert!(request.contains(r#""phase":{"phase":"up","by":"init"}"#), "{request}");
        assert!(request.contains(r#""seq":7"#), "{request}");
    }

    #[test]
    fn nobody_to_tell_is_quick_and_quiet() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let boot = boot_id(&"00".repeat(16));
        for (server, boot) in
            [(None, boot.clone()), (Some(Server(gone)), None), (Some(Server(gone)), boot)]
        {
            assert!(Reporter { server, boot, seq: 0 }.tell(Phase::Down).is_err());
        }
    }

    #[test]
    fn ids_and_sizes() {
        assert!(boot_id(&"aB".repeat(16)).is_some());
        for bad in
            ["", "00", &"zz".repeat(16), &format!("{} HTTP", "0".repeat(27)), &"00".repeat(17)]
        {
            assert!(boot_id(bad).is_none(), "{bad}");
        }
        let long = Report {
            phase: bounded(Phase::Trouble { message: "\u{1}".repeat(1 << 20) }),
            uptime_ms: 1,
            seq: 1,
        };
        assert!(encode(&long).unwrap().len() < REPORT_MAX);
    }
}
