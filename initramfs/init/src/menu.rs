//! The menu on the machine's own console, for firmware that shows its loader to nobody: a screen
//! without a serial line. What is typed goes to the appliance, which knows what the site offers; the
//! machine then starts over and is that, for one boot.

use std::io::Read;
use std::time::{Duration, Instant};

use rustix::system::RebootCommand;

use crate::console::{self, MENU_WORD, RESCUE_WORD, line_within, plain, print, say};
use crate::contract::{Menu, Phase};
use crate::http::{self, Patience, Server};
use crate::report::Reporter;
use crate::rescue::{self, Stop};

const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(3),
    head: Duration::from_secs(5),
    body: Duration::from_secs(3),
};
/// The appliance's reason is a line.
const ANSWER_MAX: u64 = 2048;
/// A machine that asks looks so often whether it has been adopted meanwhile.
const ADOPTED: Duration = Duration::from_secs(60);
/// So often the list is printed again, for whoever comes to the console later.
const LIST_AGAIN: Duration = Duration::from_secs(600);

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The next boot is that.
    Taken(String),
    /// It was none.
    Refused(String),
    /// Nobody heard it.
    Lost(String),
}

/// Offers the menu: to a machine that is nothing yet until somebody chooses, to any other only if
/// `menu` was typed by now.
pub fn offer(menu: &Menu, server: Server, reporter: &mut Reporter) -> Result<(), Stop> {
    if menu.asks {
        let _ = reporter.tell(Phase::Asks);
        return ask(menu, server, reporter);
    }
    match console::menu_was_typed() {
        true => ask(menu, server, reporter),
        false => Ok(()),
    }
}

/// Until there is an answer. Comes back with nothing typed at a machine that has something to boot.
fn ask(menu: &Menu, server: Server, reporter: &mut Reporter) -> Result<(), Stop> {
    list(menu);
    let mut listed = Instant::now();
    loop {
        print("koboshi> ");
        let Some(line) = line_within(ADOPTED) else {
            if menu.asks
                && let Verdict::Taken(says) = send("", server, reporter)
            {
                start_over(&says);
            }
            if listed.elapsed() > LIST_AGAIN {
                print("\n");
                list(menu);
                listed = Instant::now();
            }
            print("\r");
            continue;
        };
        match line.trim() {
            "" if menu.asks => {}
            "" => {
                say("nothing chosen: the boot goes on");
                return Ok(());
            }
            RESCUE_WORD => return Err(Stop::Asked),
            MENU_WORD => list(menu),
            words => match send(words, server, reporter) {
                Verdict::Taken(says) => start_over(&says),
                Verdict::Refused(why) => say(why),
                Verdict::Lost(why) => say(format!("the appliance does not answer: {why}")),
            },
        }
    }
}

fn list(menu: &Menu) {
    say("what shall this machine be?");
    menu.lines.iter().for_each(|line| say(format!("- {line}")));
    let nothing = if menu.asks { "" } else { "; just Enter to go on" };
    say(format!("a name, arguments after it (NAME key=value){nothing}; 'rescue' for a shell"));
}

fn send(words: &str, server: Server, reporter: &Reporter) -> Verdict {
    let Some(boot) = &reporter.boot else {
        return Verdict::Lost("this boot has no id".to_owned());
    };
    match http::post(server, &format!("/choose/{boot}"), words.as_bytes(), PATIENCE) {
        Err(error) => Verdict::Lost(error.to_string()),
        Ok((head, body)) => {
            let mut text = Vec::new();
            // Cut short it is still a reason.
            let _ = body.take(ANSWER_MAX).read_to_end(&mut text);
            let text = plain(String::from_utf8_lossy(&text).trim());
            match head.status {
                200 => Verdict::Taken(text),
                404 => Verdict::Lost("it knows nothing of this boot any more".to_owned()),
                413 => Verdict::Refused("that is too long for an answer".to_owned()),
                422 => Verdict::Refused(text),
                other => Verdict::Lost(format!("status {other}")),
            }
        }
    }
}

fn start_over(says: &str) {
    say(format!("{says}: the machine starts over"));
    // The last words have to leave a slow serial line first.
    std::thread::sleep(Duration::from_secs(1));
    rescue::power(RebootCommand::Restart);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::report::boot_id;

    fn answered(status: &'static str, text: &'static str) -> (Verdict, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Server(listener.local_addr().unwrap());
        let asked = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"db id=100") {
                let mut piece = [0; 1024];
                let n = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..n]);
            }
            let length = text.len();
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{text}").unwrap();
            String::from_utf8(request).unwrap()
        });
        let reporter = Reporter { server: Some(server), boot: boot_id(&"0f".repeat(16)), seq: 0 };
        let verdict = send("db id=100", server, &reporter);
        (verdict, asked.join().unwrap())
    }

    #[test]
    fn an_answer_is_taken_or_refused_in_words() {
        let (taken, request) = answered("200 OK", "role db, id=100\n");
        assert_eq!(taken, Verdict::Taken("role db, id=100".into()));
        assert!(request.starts_with(&format!("POST /choose/{} HTTP/1.1\r\n", "0f".repeat(16))));
        let (refused, _) = answered("422 Unprocessable", "no \"db\" here\x1b[2J\n");
        assert_eq!(refused, Verdict::Refused("no \"db\" here?[2J".into()));
        for (status, text) in [("404 Not Found", "no such boot\n"), ("503 Busy", "")] {
            assert!(matches!(answered(status, text).0, Verdict::Lost(_)));
        }
    }

    #[test]
    fn nobody_to_answer_is_said() {
        let gone = Server(TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        let boot = boot_id(&"0f".repeat(16));
        for boot in [None, boot] {
            let reporter = Reporter { server: Some(gone), boot, seq: 0 };
            assert!(matches!(send("db", gone, &reporter), Verdict::Lost(_)));
        }
    }
}
