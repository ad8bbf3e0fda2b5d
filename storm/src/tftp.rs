//! A transfer, the client's side (RFC 1350, 2347, 2348, 2349, 7440), as two kinds of firmware do it: both
//! ask for the size first and break that off with an ERROR, then read in earnest.

use std::time::Duration;

/// The server's port for requests.
pub const PORT: u16 = 69;

/// How a firmware reads.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// What the question for the size ends with: its code and words.
    goodbye: (u16, &'static str),
    blksize: u16,
    windowsize: Option<u16>,
    timeout: Duration,
    tries: u32,
}

/// EDK2, `PxeBcMtftp.c`: 4 s, six tries; `PcdPxeTftpWindowSize` is 4.
pub const EDK2: Manner = Manner {
    goodbye: (8, "User aborted the transfer"),
    blksize: 1468,
    windowsize: Some(4),
    timeout: Duration::from_secs(4),
    tries: 6,
};
/// A vendor's PXE ROM: blocks of 1,456 bytes, no windows. Its time-outs are nowhere written down; a
/// second, six times, is on the short side.
pub const PXE_ROM: Manner = Manner {
    goodbye: (0, "TFTP Aborted"),
    blksize: 1456,
    windowsize: None,
    timeout: Duration::from_secs(1),
    tries: 6,
};

/// A datagram for the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Our port: another one for the question and for the file.
    pub from: u16,
    /// Its port.
    pub to: u16,
    /// The packet.
    pub bytes: Vec<u8>,
}

/// What comes of a datagram, or of a time-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Wait,
    /// To be sent, in order. `again`: for the second time.
    Send {
        /// What.
        sent: Vec<Sent>,
        /// It was sent before.
        again: bool,
    },
    /// All of it is here; the last acknowledgement is still to be sent.
    Done {
        /// Bytes of the file.
        bytes: u64,
        /// The last acknowledgement.
        sent: Sent,
    },
    /// It will not come.
    Failed(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Asks for the size.
    Size,
    /// Has asked for the file.
    Asking,
    /// Blocks come.
    Reading,
}

/// One transfer.
#[derive(Debug)]
pub struct Transfer {
    manner: Manner,
    name: String,
    phase: Phase,
    port: u16,
    server: u16,
    /// The last datagram, to be sent again.
    last: Sent,
    deadline: Duration,
    tries: u32,
    blksize: u16,
    window: u16,
    /// The last block in order.
    block: u16,
    in_window: u16,
    bytes: u64,
    size: Option<u64>,
}

impl Transfer {
    /// Begins one from this port and the next, by what is to be sent.
    pub fn begin(manner: Manner, name: &str, port: u16, now: Duration) -> (Transfer, Sent) {
        let last = request(port, name, &[("tsize", 0), ("blksize", u64::from(manner.blksize))]);
        let transfer = Transfer {
            manner,
            name: name.to_string(),
            phase: Phase::Size,
            port,
            server: PORT,
            last: last.clone(),
            deadline: now + manner.timeout,
            tries: 1,
            blksize: 512,
            window: 1,
            block: 0,
            in_window: 0,
            bytes: 0,
            size: None,
        };
        (transfer, last)
    }

    /// When [`Transfer::on_deadline`] is to be called.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How often the datagram that waits for its answer was sent.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// The size of a whole DATA packet. A kernel hands over several of them as one where nobody has cut
    /// them yet.
    pub fn packet_size(&self) -> usize {
        usize::from(self.blksize) + 4
    }

    /// A datagram to `port` from the server's port `from`.
    pub fn heard(&mut self, (from, port): (u16, u16), datagram: &[u8], now: Duration) -> Step {
        if port != self.port || (self.phase == Phase::Reading && from != self.server) {
            return Step::Wait;
        }
        let [0, opcode, rest @ ..] = datagram else { return Step::Wait };
        match (opcode, self.phase) {
            (5, _) => {
                let text = rest.get(2..).unwrap_or_default();
                Step::Failed(String::from_utf8_lossy(text).trim_end_matches('\0').to_string())
            }
            (6, Phase::Size) => {
                self.size = option(rest, "tsize").or(self.size);
                let bytes = error(self.manner.goodbye);
                let goodbye = Sent { from: self.port, to: from, bytes };
                let ask = self.ask(now);
                Step::Send { sent: vec![goodbye, ask], again: false }
            }
            // It knows no options: this is the file already.
            (3, Phase::Size | Phase::Asking) => {
                (self.phase, self.server) = (Phase::Reading, from);
                (self.blksize, self.window) = (512, 1);
                self.data(rest, now)
            }
            (6, Phase::Asking) => {
                (self.phase, self.server) = (Phase::Reading, from);
                let number = |name| option(rest, name).and_then(|value| u16::try_from(value).ok());
                self.blksize = number("blksize").filter(|size| *size >= 8).unwrap_or(512);
                self.window = number("windowsize").unwrap_or(1).max(1);
                self.size = option(rest, "tsize").or(self.size);
                let sent = self.acknowledge(now);
                Step::Send { sent: vec![sent], again: false }
            }
            (3, Phase::Reading) => self.data(rest, now),
            _ => Step::Wait,
        }
    }

    /// The time-out after the last datagram is over.
    pub fn on_deadline(&mut self, now: Duration) -> Step {
        if now < self.deadline {
            return Step::Wait;
        }
        if self.tries >= self.manner.tries {
            return Step::Failed(format!("no answer to {} tries", self.tries));
        }
        self.tries += 1;
        self.deadline = now + self.manner.timeout;
        self.in_window = 0;
        Step::Send { sent: vec![self.last.clone()], again: true }
    }

    fn ask(&mut self, now: Duration) -> Sent {
        self.phase = Phase::Asking;
        self.port = self.port.wrapping_add(1);
        let mut options = vec![("blksize", u64::from(self.manner.blksize))];
        options.extend(self.manner.windowsize.map(|window| ("windowsize", u64::from(window))));
        self.last = request(self.port, &self.name, &options);
        (self.tries, self.deadline) = (1, now + self.manner.timeout);
        self.last.clone()
    }

    fn data(&mut self, rest: &[u8], now: Duration) -> Step {
        let Some((number, body)) = rest.split_first_chunk::<2>() else { return Step::Wait };
        let number = u16::from_be_bytes(*number);
        if number != self.block.wrapping_add(1) {
            // RFC 7440 §4: a hole is answered with what came before it, once. A block that is here
            // already is not, or both sides would say everything twice from then on.
            let ahead = number.wrapping_sub(self.block) < u16::MAX / 2;
            if self.window > 1 && ahead && self.in_window != u16::MAX {
                let sent = self.acknowledge(now);
                self.in_window = u16::MAX;
                return Step::Send { sent: vec![sent], again: true };
            }
            return Step::Wait;
        }
        self.block = number;
        self.bytes += body.len() as u64;
        self.in_window = if self.in_window == u16::MAX { 1 } else { self.in_window + 1 };
        (self.tries, self.deadline) = (1, now + self.manner.timeout);
        let last = body.len() < usize::from(self.blksize);
        if last {
            let sent = self.acknowledge(now);
            return match self.size.filter(|size| *size != self.bytes) {
                Some(size) => Step::Failed(format!("{} bytes came, not {size}", self.bytes)),
                None => Step::Done { bytes: self.bytes, sent },
            };
        }
        if self.in_window < self.window {
            return Step::Wait;
        }
        Step::Send { sent: vec![self.acknowledge(now)], again: false }
    }

    fn acknowledge(&mut self, now: Duration) -> Sent {
        let [high, low] = self.block.to_be_bytes();
        self.last = Sent { from: self.port, to: self.server, bytes: vec![0, 4, high, low] };
        self.in_window = 0;
        self.deadline = now + self.manner.timeout;
        self.last.clone()
    }
}

fn request(from: u16, name: &str, options: &[(&str, u64)]) -> Sent {
    let mut bytes = [&[0, 1], name.as_bytes(), b"\0octet\0"].concat();
    for (option, value) in options {
        bytes.extend_from_slice(format!("{option}\0{value}\0").as_bytes());
    }
    Sent { from, to: PORT, bytes }
}

fn error((code, message): (u16, &str)) -> Vec<u8> {
    let [high, low] = code.to_be_bytes();
    [&[0, 5, high, low], message.as_bytes(), &[0]].concat()
}

/// An option of an OACK.
fn option(oack: &[u8], name: &str) -> Option<u64> {
    let mut words = oack.split(|byte| *byte == 0);
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        if option.eq_ignore_ascii_case(name.as_bytes()) {
            return std::str::from_utf8(value).ok()?.parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::dice::Dice;

    /// A server that does as it is told, on a wire that loses and doubles.
    fn transfer(manner: Manner, size: usize, loses: u32, doubles: u32, seed: u64) -> (Step, u32) {
        let file = vec![7; size];
        let mut dice = Dice::new(seed, 1);
        let mut now = Duration::ZERO;
        let (mut client, first) = Transfer::begin(manner, "ipxe.efi", 2000, now);
        let mut to_server = vec![first];
        let (mut agreed, mut window, mut serves) = (512usize, 1usize, 0);
        let mut again = 0;
        for _ in 0..100_000 {
            let mut answers: Vec<(u16, Vec<u8>)> = Vec::new();
            for Sent { from: port, to, bytes } in std::mem::take(&mut to_server) {
                if dice.chance(loses) {
                    continue;
                }
                match bytes[1] {
                    1 => {
                        serves = port;
                        let text = String::from_utf8_lossy(&bytes).into_owned();
                        agreed = usize::from(manner.blksize);
                        let mut oack = format!("blksize\0{agreed}\0");
                        if text.contains("tsize") {
                            oack += &format!("tsize\0{size}\0");
                        }
                        if let Some(most) = manner.windowsize.filter(|_| text.contains("window")) {
                            window = usize::from(most);
                            oack += &format!("windowsize\0{most}\0");
                        }
                        answers.push((port, [&[0, 6], oack.as_bytes()].concat()));
                    }
                    // A server that is not told so goes on with the question for a while.
                    5 => assert_eq!((port, to), (2000, 6000), "the question is broken off"),
                    4 if port == serves => {
                        assert_ne!(to, PORT, "to the transfer's own port");
                        let have = usize::from(u16::from_be_bytes([bytes[2], bytes[3]]));
                        for block in have + 1..=have + window {
                            let from = (block - 1) * agreed;
                            if from > size {
                                break;
                            }
                            let body = &file[from..size.min(from + agreed)];
                            let number = u16::try_from(block).expect("small").to_be_bytes();
                            answers.push((port, [&[0, 3], &number[..], body].concat()));
                        }
                    }
                    _ => {}
                }
            }
            for (port, bytes) in answers {
                let copies = if dice.chance(doubles) { 2 } else { 1 };
                for _ in 0..copies {
                    if dice.chance(loses) {
                        continue;
                    }
                    match client.heard((4000 + port, port), &bytes, now) {
                        Step::Wait => {}
                        Step::Send { sent, again: twice } => {
                            again += u32::from(twice);
                            to_server.extend(sent);
                        }
                        end => return (end, again),
                    }
                }
            }
            if to_server.is_empty() {
                now = client.deadline();
                match client.on_deadline(now) {
                    Step::Send { sent, .. } => {
                        again += 1;
                        to_server.extend(sent);
                    }
                    end => return (end, again),
                }
            }
        }
        panic!("it never ends");
    }

    #[test]
    fn all_sizes_come_whole_and_nobody_asks_twice_without_need() {
        for manner in [EDK2, PXE_ROM] {
            let block = usize::from(manner.blksize);
            for size in [0, 1, block - 1, block, block + 1, 4 * block, 100_000] {
                let (end, again) = transfer(manner, size, 0, 0, 1);
                assert!(matches!(end, Step::Done { bytes, .. } if bytes == size as u64), "{end:?}");
                assert_eq!(again, 0, "{size}");
            }
        }
    }

    #[test]
    fn what_is_lost_or_comes_twice_is_made_good() {
        for manner in [EDK2, PXE_ROM] {
            for seed in 0..20 {
                let (end, again) = transfer(manner, 70_000, 20_000, 50_000, seed);
                assert!(matches!(end, Step::Done { bytes: 70_000, .. }), "{seed}: {end:?}");
                assert!(again < 40, "{seed}: {again}");
            }
        }
    }

    #[test]
    fn silence_and_errors_end_it() {
        let (end, _) = transfer(EDK2, 1, 1_000_000, 0, 1);
        assert_eq!(end, Step::Failed("no answer to 6 tries".into()));
        let (mut client, _) = Transfer::begin(EDK2, "x", 2000, Duration::ZERO);
        let step = client.heard((69, 2000), b"\0\x05\0\x01no such file\0", Duration::ZERO);
        assert_eq!(step, Step::Failed("no such file".into()));
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let (mut client, _) = Transfer::begin(EDK2, "x", 2000, Duration::ZERO);
            for datagram in datagrams {
                for opcode in 0..8 {
                    let datagram = [&[0, opcode], datagram.as_slice()].concat();
                    let _ = client.heard((4000, client.port), &datagram, Duration::ZERO);
                }
            }
        }
    }
}
