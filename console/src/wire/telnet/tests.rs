//! A telnet peer's words and what becomes of them, without sockets.

use proptest::prelude::*;

use super::options::ECHO;
use super::parse::{DO, DONT, WILL, WONT};
use super::*;

/// A peer's end.
struct Far {
    telnet: Telnet,
    now: Instant,
    out: Vec<u8>,
}

impl Far {
    fn new(settings: Option<Settings>) -> Far {
        let telnet = Telnet::new("ts1 port 4001".to_string(), settings);
        let mut far = Far { telnet, now: Instant::now(), out: Vec::new() };
        far.telnet.begin(far.now, &mut far.out);
        assert_eq!(far.takes(), [IAC, DO, SGA, IAC, WILL, COM_PORT]);
        far
    }

    /// One that does RFC 2217.
    fn with_port(settings: Option<Settings>) -> (Far, Vec<u8>) {
        let mut far = Far::new(settings);
        assert_eq!(far.says(&[IAC, DO, COM_PORT]), [""; 0]);
        let told = far.takes();
        let binary = [IAC, WILL, BINARY, IAC, DO, BINARY];
        let told = told.strip_suffix(&binary).expect("BINARY both ways").to_vec();
        far.says(&[IAC, DO, BINARY, IAC, WILL, BINARY]);
        assert_eq!(far.takes(), [0; 0]);
        (far, told)
    }

    fn says(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut events = Vec::new();
        self.telnet.heard(bytes, self.now, &mut events, &mut self.out);
        events.iter().map(words).collect()
    }

    fn takes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    fn types(&mut self, bytes: &[u8]) -> Vec<u8> {
        Codec::<()>::typed(&mut self.telnet, bytes, &mut self.out);
        self.takes()
    }

    /// Until what is waited for.
    fn waits(&mut self) -> Vec<String> {
        self.now = Codec::<()>::deadline(&self.telnet).expect("it waits for something");
        let mut events = Vec::new();
        self.telnet.past(self.now, &mut events, &mut self.out);
        events.iter().map(words).collect()
    }
}

fn words(event: &Event) -> String {
    match event {
        Event::Data { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
        Event::Mark(Mark::Unset { why }) => why.clone(),
        Event::Mark(mark) => format!("{mark:?}"),
        other => panic!("{other:?}"),
    }
}

fn sub(command: u8, value: &[u8]) -> Vec<u8> {
    [&[IAC, SB, COM_PORT, command], value, &[IAC, SE]].concat()
}

#[test]
fn a_plain_server_has_characters_as_telnet_has_them() {
    let mut far = Far::new(None);
    assert_eq!(far.says(&[IAC, WILL, ECHO, IAC, WILL, SGA, IAC, DONT, COM_PORT]), [""; 0]);
    assert_eq!(far.takes(), [IAC, DO, ECHO]);
    assert_eq!(far.types(b"ls\r\xff\n"), b"ls\r\0\xff\xff\n");
    assert_eq!(far.says(b"a\r\0b\xff\xf3c"), ["a\rb", "Break", "c"]);
    far.telnet.begin_to(Operation::Break, far.now, &mut far.out).unwrap();
    assert_eq!(far.takes(), [IAC, BRK]);
    assert_eq!(Codec::<()>::settled(&mut far.telnet), Some(Ok(())));
    let cannot = far.telnet.begin_to(Operation::Dtr(false), far.now, &mut far.out);
    assert!(cannot.unwrap_err().to_string().starts_with("ts1 port 4001 does not do RFC 2217"));
    // QEMU's: it is binary both ways.
    assert_eq!(far.says(&[IAC, WILL, BINARY, IAC, DO, BINARY]), [""; 0]);
    assert_eq!(far.takes(), [IAC, DO, BINARY, IAC, WILL, BINARY]);
    assert_eq!(far.types(b"\r\xff"), b"\r\xff\xff");
    assert_eq!(far.says(b"\r\0"), ["\r\0"]);
    assert_eq!(Codec::<()>::deadline(&far.telnet), None);
}

#[test]
fn a_login_daemon_hears_of_a_terminal() {
    let mut far = Far::new(None);
    assert_eq!(far.says(&[IAC, DO, TERMINAL_TYPE, IAC, DO, 31]), [""; 0]);
    assert_eq!(far.takes(), [IAC, WILL, TERMINAL_TYPE, IAC, WONT, 31]);
    far.says(&[IAC, SB, TERMINAL_TYPE, SEND, IAC, SE]);
    assert_eq!(far.takes(), b"\xff\xfa\x18\x00vt220\xff\xf0");
}

#[test]
fn a_port_is_set_and_what_is_not_as_asked_is_told_once() {
    let (mut far, told) = Far::with_port(Some("255,7e2,rtscts".parse().unwrap()));
    let expected = [
        sub(0, b""),
        sub(1, &[0, 0, 0, 255, 255]),
        sub(2, &[7]),
        sub(3, &[3]),
        sub(4, &[2]),
        sub(5, &[3]),
        sub(10, &[30]),
        sub(11, &[128]),
    ];
    assert_eq!(told, expected.concat());
    assert_eq!(far.says(&sub(100, b"box\x1b 9")), [""; 0]);
    let as_asked = [sub(101, &[0, 0, 0, 255, 255]), sub(102, &[7]), sub(105, &[3])];
    assert_eq!(far.says(&as_asked.concat()), [""; 0]);
    let other = sub(101, &9600_u32.to_be_bytes());
    let why = "the terminal server (box 9) has 9600 bit/s in place of 255 bit/s";
    assert_eq!(far.says(&[other.clone(), other].concat()), [why]);
    // An answer to a BREAK says nothing of flow control.
    assert_eq!(far.says(&sub(105, &[6])), [""; 0]);
    assert_eq!(
        far.says(&sub(103, &[1])),
        ["the terminal server (box 9) has no parity in place of even parity"]
    );
    assert_eq!(far.takes(), [0; 0]);
}

#[test]
fn a_server_that_cannot_set_its_port_is_used_as_it_is() {
    let mut far = Far::new(Some(Settings::at(9600)));
    let why = "ts1 port 4001 does not do RFC 2217: the port is as it is set there";
    assert_eq!(far.says(&[IAC, DONT, COM_PORT, b'a']), [why, "a"]);
    assert_eq!(Codec::<()>::deadline(&far.telnet), None);
    let mut far = Far::new(Some(Settings::at(9600)));
    let why = "ts1 port 4001 does not say whether it does RFC 2217: the port is as it is set there";
    assert_eq!(far.waits(), [why]);
    assert_eq!(Codec::<()>::deadline(&far.telnet), None);
}

#[test]
fn a_break_has_a_length_and_is_ended_whatever_happens() {
    let (mut far, _) = Far::with_port(None);
    let begin = |far: &mut Far| {
        far.telnet.begin_to(Operation::Break, far.now, &mut far.out).unwrap();
        assert_eq!(far.takes(), sub(5, &[5]));
        assert_eq!(Codec::<()>::settled(&mut far.telnet), None);
    };
    begin(&mut far);
    let begun = far.now;
    assert_eq!(far.waits(), [""; 0]);
    assert_eq!((far.now - begun, far.takes()), (BREAK, sub(5, &[6])));
    assert_eq!(Codec::<()>::settled(&mut far.telnet), Some(Ok(())));
    begin(&mut far);
    Codec::<()>::closing(&mut far.telnet, &mut (), &mut far.out);
    assert_eq!(far.takes(), sub(5, &[6]));
    begin(&mut far);
    far.says(&[IAC, DONT, COM_PORT]);
    assert_eq!(Codec::<()>::settled(&mut far.telnet), Some(Ok(())), "it will not end it for us");
    let (mut far, _) = Far::with_port(None);
    for (operation, value) in [
        (Operation::Dtr(true), 8),
        (Operation::Dtr(false), 9),
        (Operation::Rts(true), 11),
        (Operation::Rts(false), 12),
    ] {
        far.telnet.begin_to(operation, far.now, &mut far.out).unwrap();
        assert_eq!(far.takes(), sub(5, &[value]));
    }
}

#[test]
fn what_goes_wrong_at_the_port_is_told() {
    let (mut far, _) = Far::with_port(None);
    assert_eq!(far.says(&sub(106, &[16 | 8])), ["Break"]);
    assert_eq!(far.says(&sub(106, &[8 | 4 | 2 | 96])), ["Damaged { characters: 1 }", "Overrun"]);
    assert_eq!(far.says(&sub(106, &[96])), [""; 0]);
    assert_eq!(far.says(&sub(107, &[128 | 48])), [""; 0], "as it was found");
    assert_eq!(far.says(&sub(107, &[48])), ["Carrier { up: false }"]);
    assert_eq!(far.says(&sub(107, &[32])), [""; 0], "CTS is no carrier");
    // Suspended and resumed, and never resumed.
    assert_eq!(far.says(&[sub(108, b""), sub(108, b"")].concat()), ["Unavailable"]);
    assert!(Codec::<()>::is_full(&far.telnet));
    assert_eq!(far.says(&[sub(109, b""), sub(109, b"")].concat()), ["Available"]);
    assert!(!Codec::<()>::is_full(&far.telnet));
    far.says(&sub(108, b""));
    assert_eq!(far.waits(), ["Available"]);
    assert!(!Codec::<()>::is_full(&far.telnet));
    assert_eq!(far.says(&sub(100, b"")), [""; 0]);
    assert_eq!(far.takes(), sub(0, b"koboshi"));
}

#[test]
fn who_negotiates_for_ever_is_read_on_and_not_answered_for_ever() {
    let mut far = Far::new(None);
    for _many in 0..10_000 {
        assert_eq!(far.says(&[IAC, DO, 31, b'a', IAC, WILL, ECHO, IAC, WONT, ECHO]), ["a"]);
    }
    assert!(far.takes().len() <= 3 * ANSWERS as usize);
    far.now += Duration::from_secs(1);
    for _many in 0..100 {
        far.says(&[IAC, DO, 31]);
    }
    assert_eq!(far.takes().len(), 3 * ANSWERS_A_SECOND as usize);
    // One that takes nothing is not answered either: what was typed has the room.
    far.now += Duration::from_secs(60);
    far.out = vec![b'x'; ROOM];
    far.says(&[IAC, DO, 31]);
    assert_eq!(far.out.len(), ROOM);
}

proptest! {
    #[test]
    fn anything_means_the_same_wherever_it_is_cut(
        bytes in prop::collection::vec(
            prop_oneof![
                4 => any::<u8>(), 4 => Just(IAC), 1 => Just(SB), 1 => Just(SE), 1 => Just(COM_PORT),
                1 => WILL..=DONT, 1 => 100_u8..112,
            ],
            0..600,
        ),
        piece in 1_usize..20,
    ) {
        let read = |pieces: std::slice::Chunks<u8>| {
            let (mut far, _) = Far::with_port(Some(Settings::at(9600)));
            let mut events = Vec::new();
            for piece in pieces {
                far.telnet.heard(piece, far.now, &mut events, &mut far.out);
            }
            let mut said = vec![String::new()];
            for event in &events {
                match event {
                    Event::Data { bytes, .. } => {
                        let last = said.last_mut().unwrap();
                        last.extend(bytes.iter().map(|byte| char::from(*byte)));
                    }
                    other => said.extend([words(other), String::new()]),
                }
            }
            (said, far.takes())
        };
        let whole = read(bytes.chunks(1000));
        prop_assert!(whole.1.len() <= ANSWERS as usize * 100);
        prop_assert_eq!(read(bytes.chunks(piece)), whole);
    }
}
