//! A day of one DHCP server: requests of eight machines, answers of the link and of the disk, losses of power and
//! the clock, in any order. No two machines ever hold one address.

#![no_main]

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use koboshi_fuzz::Input;
use koboshi_pxe::Mac;
use koboshi_pxe::dhcp::{
    Address, Answer, Effect, Kept, LeaseChange, MessageType, Now, Packet, Request, Server, Serving,
    Subnet, Ticket, Who,
};
use libfuzzer_sys::fuzz_target;

fn at(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, last)
}

/// Addresses worth naming: the pool, seats, and what is neither.
fn address(byte: u8) -> Option<Ipv4Addr> {
    let all = [0, 1, 11, 12, 200, 201, 202, 203, 254, 255];
    match all.get(usize::from(byte)) {
        Some(0) => None,
        Some(last) => Some(at(*last)),
        None => Some(Ipv4Addr::new(10, 99, 0, byte)),
    }
}

fn subnet() -> Arc<Subnet> {
    let mut subnet = Subnet::new(at(1), at(0), 24);
    subnet.pool = Some(at(200)..=at(203));
    subnet.lease = Duration::from_secs(600);
    subnet.reserved = Arc::new([at(11), at(12)].into());
    Arc::new(subnet)
}

fn request(input: &mut Input) -> Request {
    let mac = Mac([0x52, 0x54, 0, 0x77, 0, input.byte() % 8]);
    let kind = match input.byte() % 5 {
        0 => MessageType::Discover,
        1 => MessageType::Request,
        2 => MessageType::Decline,
        3 => MessageType::Release,
        _ => MessageType::Inform,
    };
    let mut request = Request::bare(kind, mac);
    request.requested = address(input.byte());
    request.ciaddr = address(input.byte()).unwrap_or(Ipv4Addr::UNSPECIFIED);
    request.server_id = match input.byte() % 3 {
        0 => None,
        1 => Some(at(1)),
        _ => Some(at(9)),
    };
    request
}

fuzz_target!(|bytes: &[u8]| {
    let input = &mut Input(bytes);
    let start = Instant::now();
    let mut now = Now { mono: start, wall: 1_700_000_000 };
    let subnet = subnet();
    let mut server = Server::restore(Kept::default(), now);
    let mut probes = VecDeque::new();
    let mut commits: VecDeque<(Ticket, LeaseChange, bool)> = VecDeque::new();
    // What the disk holds, as a loss of power leaves it; and what is written and not there yet, with those who
    // wait for it.
    let mut disk = Kept::default();
    let mut written: Vec<(LeaseChange, Option<Ticket>)> = Vec::new();
    // Who was told that a pool address is theirs, and until when they may believe it.
    let mut told: HashMap<Ipv4Addr, (Mac, Instant)> = HashMap::new();
    let mut steps = 0;
    while input.more() && steps < 400 {
        steps += 1;
        let effects = match input.byte() % 8 {
            0..=2 => {
                let request = request(input);
                let answer = match input.byte() % 4 {
                    0 => Answer::Silence,
                    choice => Answer::Serve(Serving {
                        address: match choice {
                            1 => Address::Fixed(at(11 + request.mac.0[5] % 2)),
                            _ => Address::Pool,
                        },
                        subnet: subnet.clone(),
                        hostname: None,
                        boot: None,
                        who: match request.mac.0[5] % 3 {
                            0 => Who::Machine,
                            1 => Who::Booted,
                            _ => Who::Stranger,
                        },
                        macs: Vec::new(),
                        runs: false,
                    }),
                };
                if matches!(request.kind, MessageType::Decline | MessageType::Release) {
                    let given = request.requested.unwrap_or(request.ciaddr);
                    for address in [given, request.ciaddr] {
                        if told.get(&address).is_some_and(|(mac, _)| *mac == request.mac) {
                            told.remove(&address);
                        }
                    }
                }
                server.handle(&request, answer, now)
            }
            3 => match probes.pop_front() {
                Some(address) => {
                    // Who has it answers; others may.
                    let held = told.get(&address).is_some_and(|(_, until)| *until > now.mono);
                    server.probed(address, input.byte() % 4 == 0 || held, now)
                }
                None => server.probed(at(input.byte()), true, now),
            },
            4 => match commits.pop_front() {
                Some((ticket, change, durable)) => {
                    let ok = input.byte() % 4 != 0;
                    if ok {
                        written.push((change, durable.then_some(ticket)));
                    }
                    if ok && durable { Vec::new() } else { server.committed(ticket, ok, now) }
                }
                None => {
                    let mut effects = Vec::new();
                    for (change, waits) in written.drain(..) {
                        disk.apply(change);
                        effects.extend(waits.map(|ticket| server.committed(ticket, true, now)));
                    }
                    effects.concat()
                }
            },
            5 => {
                let seconds = u64::from(input.byte()).pow(2) / 4;
                now.mono += Duration::from_secs(seconds);
                now.wall =
                    now.wall.saturating_add_signed(seconds as i64 - i64::from(input.byte() / 64));
                server.on_deadline(now)
            }
            6 => server.keep(Mac([0x52, 0x54, 0, 0x77, 0, input.byte() % 8]), now),
            _ if input.byte() % 8 == 0 => {
                // kill -9: what was not written never was. And with the host's power goes what was not on disk.
                (probes, commits) = (VecDeque::new(), VecDeque::new());
                let power = input.byte() % 2 == 0;
                let last = if power { usize::from(input.byte()) } else { usize::MAX };
                written.drain(..).take(last).for_each(|(change, _)| disk.apply(change));
                if power {
                    disk.lose_power(now.wall);
                }
                disk.restart(now.wall);
                server = Server::restore(disk.clone(), now);
                Vec::new()
            }
            _ => continue,
        };
        for effect in effects {
            match effect {
                Effect::Send(out) => {
                    let reply = Packet::decode(&out.bytes).expect("what we send can be read");
                    let mac = Mac(*reply.chaddr.first_chunk().expect("16 bytes"));
                    let lent = reply.options.fixed::<4>(51).map(u32::from_be_bytes);
                    let pool = subnet.gives(reply.yiaddr);
                    // One machine, one address: what else it had is free again after an ACK of one,
                    // and all of it after a NAK.
                    let ends = match reply.options.get(53) {
                        Some([5]) => lent.is_some(),
                        Some([6]) => true,
                        _ => false,
                    };
                    if ends {
                        told.retain(|address, (owner, _)| {
                            *owner != mac || *address == reply.yiaddr
                        });
                    }
                    if reply.options.get(53) == Some(&[5]) && pool {
                        let lent = lent.expect("an ACK of a pool address says for how long");
                        if let Some((owner, until)) = told.get(&reply.yiaddr) {
                            assert!(
                                *owner == mac || *until <= now.mono,
                                "one address, two machines"
                            );
                        }
                        let until = now.mono + Duration::from_secs(lent.into());
                        told.insert(reply.yiaddr, (mac, until));
                    }
                }
                Effect::Probe { address, .. } => probes.push_back(address),
                Effect::Commit { ticket, change, durable } => {
                    commits.push_back((ticket, change, durable));
                }
                Effect::Tell(_) => {}
            }
        }
        let leases = server.leases(now);
        assert!(leases.windows(2).all(|two| two[0].record.address != two[1].record.address));
        let _ = server.next_deadline();
    }
});
