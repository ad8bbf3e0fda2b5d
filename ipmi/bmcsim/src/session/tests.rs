//! Logging in, being refused, being forged, being forgotten.

use std::time::{Duration, Instant};

use koboshi_ipmi::crypto::{SUITE_3, SUITE_17, SUITES};
use koboshi_ipmi::message::Completion;
use koboshi_ipmi::wire::rakp::{OpenRequest, OpenResponse, Rakp1, Status};
use koboshi_ipmi::wire::v15::{self, Auth};
use koboshi_ipmi::wire::v20::{PayloadType, encode_open};
use koboshi_ipmi::{Kg, Message, NetFn, Password, Request, Response};
use proptest::prelude::*;

use super::console::{Console, Login, exchange, opening, peer};
use crate::user::{Privilege, User};
use crate::{Config, Machine};

fn machine() -> (Machine, Instant) {
    let now = Instant::now();
    let mut config = Config::with_admin("admin", Password::new("secret").unwrap());
    config.suites = SUITES.to_vec();
    config.auths = vec![Auth::Md5, Auth::Password];
    let user = User::new("guest", Password::new("guest").unwrap(), Privilege::User);
    config.users.push(user);
    (Machine::new(config, now), now)
}

fn status() -> Request {
    Request::new(NetFn::CHASSIS, 0x01, [])
}

fn power_on() -> Request {
    Request::new(NetFn::CHASSIS, 0x02, [1])
}

fn raise(privilege: u8) -> Request {
    Request::new(NetFn::APP, 0x3b, [privilege])
}

#[test]
fn every_suite_from_login_to_logout() {
    let (mut machine, now) = machine();
    for suite in SUITES {
        let mut console = Console::log_in(&mut machine, &Login::of(suite), now).unwrap();
        let mut ask = |request: Request| console.ask(&mut machine, &request, now).unwrap();
        assert_eq!(ask(status()).completion, Completion::OK, "suite {}", suite.id);
        assert_eq!(ask(power_on()).completion, Completion::PRIVILEGE, "a session begins as a user");
        assert_eq!(ask(raise(4)).data, [4]);
        assert_eq!(ask(power_on()).completion, Completion::OK);
        let close = Request::new(NetFn::APP, 0x3c, console.managed.to_le_bytes());
        assert!(console.ask(&mut machine, &close, now).is_some());
        assert_eq!(console.ask(&mut machine, &status(), now), None);
        assert_eq!(machine.bmc.sessions.open().count(), 0);
    }
}

#[test]
fn who_is_refused_and_how() {
    let (mut machine, now) = machine();
    let mut refused = |change: fn(&mut Login)| {
        let mut login = Login::of(SUITE_17);
        change(&mut login);
        Console::log_in(&mut machine, &login, now).err()
    };
    assert_eq!(refused(|_| {}), None);
    assert_eq!(refused(|login| login.password = "Secret"), Some(Status::INTEGRITY_CHECK));
    assert_eq!(refused(|login| login.name = "nobody"), Some(Status::UNAUTHORIZED_NAME));
    assert_eq!(
        refused(|login| (login.name, login.password) = ("guest", "guest")),
        Some(Status::UNAUTHORIZED_ROLE)
    );
    assert_eq!(refused(|login| login.role = 0x16), Some(Status::ROLE));
    machine.bmc.users.by_id_mut(2).unwrap().enabled = false;
    let disabled = Console::log_in(&mut machine, &Login::of(SUITE_3), now).err();
    assert_eq!(disabled, Some(Status::UNAUTHORIZED_NAME));
    let mut login = Login::of(SUITE_3);
    (login.name, login.password, login.role) = ("guest", "guest", 0x02);
    let mut console = Console::log_in(&mut machine, &login, now).unwrap();
    let answer = console.ask(&mut machine, &raise(3), now).unwrap();
    assert_eq!(answer.completion, Completion(0x81), "beyond its limit");
}

#[test]
fn the_channel_has_a_limit_too() {
    let (mut machine, now) = machine();
    let access =
        |access: u8, limit: u8| Request::new(NetFn::APP, 0x40, [1, 0x80 | access, 0x80 | limit]);
    let mut log_in = |request: Request, role| {
        machine.bmc.ask(&request, now);
        let login = Login { role, ..Login::of(SUITE_17) };
        Console::log_in(&mut machine, &login, now).err()
    };
    assert_eq!(log_in(access(2, 3), 0x14), Some(Status::UNAUTHORIZED_ROLE));
    assert_eq!(log_in(access(2, 3), 0x13), None);
    assert_eq!(log_in(access(0, 4), 0x13), Some(Status::UNAUTHORIZED_NAME), "switched off");
    assert_eq!(log_in(access(2, 4), 0x14), None);
}

#[test]
fn the_bmcs_own_key_and_long_passwords() {
    let (mut machine, now) = machine();
    machine.bmc.config.kg = Some(Kg::new(b"own").unwrap());
    let mut login = Login::of(SUITE_17);
    assert!(Console::log_in(&mut machine, &login, now).is_err());
    login.kg = Some(Kg::new(b"own").unwrap());
    assert!(Console::log_in(&mut machine, &login, now).is_ok());
    machine.bmc.config.kg = None;
    login.kg = None;
    login.password = "12345678901234567890";
    let password = Password::new(login.password).unwrap();
    machine.bmc.users.by_id_mut(2).unwrap().password = password;
    assert!(Console::log_in(&mut machine, &login, now).is_ok());
    machine.bmc.faults.sixteen = true;
    assert!(Console::log_in(&mut machine, &login, now).is_err());
    login.password = "1234567890123456";
    assert!(Console::log_in(&mut machine, &login, now).is_ok());
}

#[test]
fn forged_replayed_and_strange_packets_change_nothing() {
    let (mut machine, now) = machine();
    let mut console = Console::log_in(&mut machine, &Login::of(SUITE_17), now).unwrap();
    console.ask(&mut machine, &raise(4), now).unwrap();
    let message = Message::request(&power_on(), 9).encode();
    let good = console.seal(PayloadType::Ipmi, &message);
    for at in 4..good.len() {
        let mut forged = good.clone();
        forged[at] ^= 0x10;
        assert_eq!(exchange(&mut machine, &forged, now), None, "byte {at}");
        assert!(!machine.bmc.chassis.on, "byte {at}");
    }
    assert!(exchange(&mut machine, &good, now).is_some());
    assert!(machine.bmc.chassis.on);
    machine.bmc.chassis.on = false;
    assert_eq!(exchange(&mut machine, &good, now), None, "a replay");
    assert!(!machine.bmc.chassis.on);
    console.sequence += 40;
    assert_eq!(console.ask(&mut machine, &status(), now), None, "far beyond the window");
    console.sequence = 3;
    assert!(console.ask(&mut machine, &status(), now).is_some());
    // Outside a session nobody may do anything but log in.
    let bytes = encode_open(PayloadType::Ipmi, &message);
    exchange(&mut machine, &bytes, now);
    let bytes = v15::encode(Auth::None, 0, 0, &Password::default(), &message);
    exchange(&mut machine, &bytes, now);
    assert!(!machine.bmc.chassis.on);
}

#[test]
fn slots_run_out_and_come_back_by_the_reaper() {
    let (mut machine, now) = machine();
    let login = Login::of(SUITE_3);
    let mut consoles: Vec<Console> = (0..machine.bmc.sessions.slots)
        .map(|_| Console::log_in(&mut machine, &login, now).unwrap())
        .collect();
    let full = Console::log_in(&mut machine, &login, now).err();
    assert_eq!(full, Some(Status::NO_RESOURCES));
    let later = now + Duration::from_secs(30);
    assert!(consoles[0].ask(&mut machine, &status(), later).is_some());
    let due = machine.deadline().unwrap();
    assert_eq!(due, now + Duration::from_secs(60));
    machine.poll(due);
    assert_eq!(machine.bmc.sessions.open().count(), 1, "who spoke lives on");
    assert!(Console::log_in(&mut machine, &login, due).is_ok());
    assert!(consoles[0].ask(&mut machine, &status(), due).is_some());
    assert_eq!(consoles[1].ask(&mut machine, &status(), due), None);
}

#[test]
fn logins_that_nobody_ends_take_no_slot_and_no_memory() {
    let (mut machine, now) = machine();
    for console in 0..1000 {
        let open = OpenRequest { tag: 0, privilege: 0, console, suite: SUITE_3.into() };
        let answer = opening(&mut machine, PayloadType::OpenRequest, &open.encode(), now).unwrap();
        assert_eq!(OpenResponse::decode(&answer).unwrap().status, Status::OK);
    }
    assert!(machine.bmc.sessions.list.len() <= super::HALF_OPEN);
    assert!(Console::log_in(&mut machine, &Login::of(SUITE_3), now).is_ok());
}

#[test]
fn a_login_message_that_comes_twice_is_answered_the_same() {
    let (mut machine, now) = machine();
    let open = OpenRequest { tag: 1, privilege: 4, console: 5, suite: SUITE_17.into() };
    let open = |machine: &mut Machine| {
        let answer = opening(machine, PayloadType::OpenRequest, &open.encode(), now);
        answer.map(|answer| OpenResponse::decode(&answer).unwrap().agreed.unwrap().managed)
    };
    let managed = open(&mut machine).unwrap();
    assert_eq!(open(&mut machine), Some(managed));
    let name = b"admin".to_vec();
    let one = Rakp1 { tag: 2, managed, random: [1; 16], role: 0x14, name }.encode();
    let two = opening(&mut machine, PayloadType::Rakp1, &one, now).unwrap();
    assert_eq!(opening(&mut machine, PayloadType::Rakp1, &one, now), Some(two));
    machine.bmc.faults.once = true;
    assert_eq!(opening(&mut machine, PayloadType::Rakp1, &one, now), None);
    assert_ne!(open(&mut machine), Some(managed), "who starts again gets another session");
}

#[test]
fn faults_of_logging_in() {
    let (mut machine, now) = machine();
    machine.bmc.config.suites = vec![SUITE_17];
    let three = Login::of(SUITE_3);
    let refused = Console::log_in(&mut machine, &three, now).err();
    assert_eq!(refused, Some(Status::AUTHENTICATION));
    machine.bmc.faults.misleading = true;
    let refused = Console::log_in(&mut machine, &three, now).err();
    assert_eq!(refused, Some(Status::NO_RESOURCES));
    machine.bmc.faults.full = true;
    let refused = Console::log_in(&mut machine, &Login::of(SUITE_17), now).err();
    assert_eq!(refused, Some(Status::NO_RESOURCES));
    machine.bmc.faults = crate::Faults { opensesspriv: true, ..Default::default() };
    let mut login = Login::of(SUITE_17);
    let refused = Console::log_in(&mut machine, &login, now).err();
    assert_eq!(refused, Some(Status::INTEGRITY_CHECK), "keys are hashed with another role");
    login.privilege = 4;
    assert!(Console::log_in(&mut machine, &login, now).is_ok());
    machine.bmc.faults = crate::Faults { no_name_bit: true, ..Default::default() };
    let refused = Console::log_in(&mut machine, &login, now).err();
    assert_eq!(refused, Some(Status::INTEGRITY_CHECK));
    login.role = 4;
    assert!(Console::log_in(&mut machine, &login, now).is_ok());
    machine.bmc.faults = crate::Faults { downgrade: Some(1), ..Default::default() };
    let open = OpenRequest { tag: 1, privilege: 4, console: 5, suite: SUITE_17.into() };
    let answer = opening(&mut machine, PayloadType::OpenRequest, &open.encode(), now).unwrap();
    let agreed = OpenResponse::decode(&answer).unwrap().agreed.unwrap();
    assert_eq!((agreed.suite.authentication, agreed.suite.integrity), (1, 0));
}

#[test]
fn faults_of_talking() {
    let (mut machine, now) = machine();
    let mut console = Console::log_in(&mut machine, &Login::of(SUITE_3), now).unwrap();
    console.ask(&mut machine, &raise(4), now).unwrap();
    machine.bmc.faults.busy = 2;
    for completion in [Completion::NODE_BUSY, Completion::NODE_BUSY, Completion::OK] {
        let answer = console.ask(&mut machine, &status(), now).unwrap();
        assert_eq!(answer.completion, completion);
    }
    machine.bmc.faults.ignored.push((NetFn::CHASSIS, 0x02));
    assert_eq!(console.ask(&mut machine, &power_on(), now), None);
    assert!(!machine.bmc.chassis.on);
    machine.bmc.faults.ignored.clear();
    machine.bmc.faults.unanswered.push((NetFn::CHASSIS, 0x02));
    assert_eq!(console.ask(&mut machine, &power_on(), now), None);
    assert!(machine.bmc.chassis.on);
    machine.bmc.faults.checksums = true;
    let bytes = console.seal(PayloadType::Ipmi, &Message::request(&status(), 1).encode());
    let answer = exchange(&mut machine, &bytes, now).unwrap();
    let message = Message::decode(&console.open(&answer).1).unwrap();
    assert!(!message.checksums && message.response().unwrap().completion == Completion::OK);
}

#[test]
fn session_info_and_closing_somebody_elses() {
    let (mut machine, now) = machine();
    let mut one = Console::log_in(&mut machine, &Login::of(SUITE_3), now).unwrap();
    let two = Console::log_in(&mut machine, &Login::of(SUITE_17), now).unwrap();
    let info = |data: &[u8]| Request::new(NetFn::APP, 0x3d, data);
    let mine = one.ask(&mut machine, &info(&[0]), now).unwrap().data;
    assert_eq!((mine.len(), &mine[1..6]), (18, &[5, 2, 2, 2, 0x11][..]));
    assert_eq!(mine[6..10], [127, 0, 0, 1]);
    assert_eq!(mine[16..], peer().port().to_le_bytes());
    let other = one.ask(&mut machine, &info(&[2]), now).unwrap().data;
    let mut by_id = vec![0xff];
    by_id.extend(two.managed.to_le_bytes());
    assert_eq!(one.ask(&mut machine, &info(&by_id), now).unwrap().data, other);
    assert_eq!(one.ask(&mut machine, &info(&[0xfe, other[0]]), now).unwrap().data, other);
    assert_eq!(one.ask(&mut machine, &info(&[3]), now).unwrap().data, [0, 5, 2]);
    let close = Request::new(NetFn::APP, 0x3c, two.managed.to_le_bytes());
    let refused = one.ask(&mut machine, &close, now).unwrap().completion;
    assert_eq!(refused, Completion::PRIVILEGE);
    one.ask(&mut machine, &raise(4), now).unwrap();
    assert_eq!(one.ask(&mut machine, &close, now).unwrap().completion, Completion::OK);
    assert_eq!(machine.bmc.sessions.open().count(), 1);
    assert_eq!(one.ask(&mut machine, &close, now).unwrap().completion, Completion(0x87));
}

/// A console of IPMI 1.5, message by message.
struct Old {
    session: u32,
    sequence: u32,
    auth: Auth,
    password: Password,
}

impl Old {
    fn ask(&mut self, machine: &mut Machine, request: &Request, now: Instant) -> Option<Response> {
        let message = Message::request(request, 1).encode();
        let bytes = v15::encode(self.auth, self.session, self.sequence, &self.password, &message);
        if self.sequence > 0 {
            self.sequence += 1;
        }
        let answer = exchange(machine, &bytes, now)?;
        let packet = v15::Packet::decode(&answer[4..]).unwrap();
        assert!(packet.is_authentic(&self.password));
        Message::decode(packet.payload).unwrap().response()
    }

    fn log_in(machine: &mut Machine, auth: Auth, password: &str, now: Instant) -> Option<Old> {
        let password = Password::new(password).unwrap();
        let mut old = Old { session: 0, sequence: 0, auth: Auth::None, password };
        let mut data = vec![auth.number()];
        data.extend(b"admin\0\0\0\0\0\0\0\0\0\0\0");
        let answer = old.ask(machine, &Request::new(NetFn::APP, 0x39, data), now)?;
        let (id, challenge) = answer.data.split_first_chunk::<4>()?;
        (old.session, old.auth) = (u32::from_le_bytes(*id), auth);
        let mut data = vec![auth.number(), 4];
        data.extend(challenge);
        data.extend([5, 0, 0, 0]);
        let activate = Request::new(NetFn::APP, 0x3a, data);
        let answer = old.ask(machine, &activate, now)?;
        assert_eq!(Some(&answer), old.ask(machine, &activate, now).as_ref(), "asked twice");
        let data: [u8; 10] = answer.data.try_into().ok()?;
        old.sequence = u32::from_le_bytes([data[5], data[6], data[7], data[8]]);
        Some(old)
    }
}

#[test]
fn sessions_of_ipmi_1_5() {
    let (mut machine, now) = machine();
    for auth in [Auth::Md5, Auth::Password] {
        assert!(Old::log_in(&mut machine, auth, "wrong", now).is_none());
        let mut old = Old::log_in(&mut machine, auth, "secret", now).unwrap();
        assert_eq!(old.ask(&mut machine, &raise(4), now).unwrap().data, [4]);
        assert_eq!(old.ask(&mut machine, &power_on(), now).unwrap().completion, Completion::OK);
        old.sequence -= 1;
        assert_eq!(old.ask(&mut machine, &power_on(), now), None, "a replay");
        old.auth = Auth::None;
        assert_eq!(old.ask(&mut machine, &power_on(), now), None, "without a code");
        old.auth = auth;
        let close = Request::new(NetFn::APP, 0x3c, old.session.to_le_bytes());
        assert_eq!(old.ask(&mut machine, &close, now).unwrap().completion, Completion::OK);
        assert_eq!(machine.bmc.sessions.open().count(), 0);
    }
    machine.bmc.config.auths.clear();
    assert!(Old::log_in(&mut machine, Auth::Md5, "secret", now).is_none(), "it knows 2.0 alone");
}

#[test]
fn what_a_bmc_says_it_can_do() {
    let (mut machine, now) = machine();
    let ask = |machine: &mut Machine, channel| {
        machine.bmc.ask(&Request::new(NetFn::APP, 0x38, [channel, 4]), now)
    };
    assert_eq!(ask(&mut machine, 0x8e).data, [1, 0x94, 0x04, 0x03, 0, 0, 0, 0]);
    assert_eq!(ask(&mut machine, 0x0e).data, [1, 0x14, 0x04, 0, 0, 0, 0, 0]);
    machine.bmc.faults.no_v2_bit = true;
    assert_eq!(ask(&mut machine, 0x8e).completion, Completion::INVALID_FIELD);
    assert_eq!(ask(&mut machine, 0x0e).completion, Completion::OK);
    let mut suites = Vec::new();
    for part in 0x80..0x84 {
        let request = Request::new(NetFn::APP, 0x54, [0x0e, 0, part]);
        let data = machine.bmc.ask(&request, now).data;
        suites.extend_from_slice(&data[1..]);
    }
    assert_eq!(suites.len(), 5 * SUITES.len());
    assert_eq!(suites[15..20], [0xc0, 3, 1, 0x41, 0x81]);
    assert_eq!(suites[30..], [0xc0, 17, 3, 0x44, 0x81]);
}

proptest! {
    /// An administrator's own packets, but with any payload in them.
    #[test]
    fn any_payload_of_somebody_who_is_logged_in(payloads in proptest::collection::vec((any::<u8>(), any::<Vec<u8>>()), 0..20)) {
        let (mut machine, now) = machine();
        let mut console = Console::log_in(&mut machine, &Login::of(SUITE_3), now).unwrap();
        for (kind, payload) in payloads {
            let kind = if kind & 1 == 0 { PayloadType::Ipmi } else { PayloadType::Sol };
            let bytes = console.seal(kind, &payload);
            exchange(&mut machine, &bytes, now);
        }
    }

    /// Any payload where a login message is expected, at each stage of one.
    #[test]
    fn any_login(payload: Vec<u8>) {
        let (mut machine, now) = machine();
        for kind in [PayloadType::OpenRequest, PayloadType::Rakp1, PayloadType::Rakp3] {
            exchange(&mut machine, &encode_open(kind, &payload), now);
        }
        prop_assert_eq!(machine.bmc.sessions.open().count(), 0);
    }
}

/// A host's port that is joined with itself: what is typed comes back with the acknowledgement.
#[test]
fn an_echo_is_one_packet() {
    use koboshi_ipmi::wire::sol::Sol;
    let (mut machine, now) = machine();
    machine.bmc.config.serial = crate::config::Serial::Echo;
    let mut console = Console::log_in(&mut machine, &Login::of(SUITE_17), now).unwrap();
    console.ask(&mut machine, &raise(4), now).unwrap();
    let activate = Request::new(NetFn::APP, 0x48, [1, 1, 0xc0, 0, 0, 0]);
    assert_eq!(console.ask(&mut machine, &activate, now).unwrap().completion, Completion::OK);
    let typed = [b'x'; 150];
    let packet = Sol { sequence: 1, ack: 0, accepted: 0, flags: 0, data: &typed };
    let bytes = console.seal(PayloadType::Sol, &packet.encode());
    let answer = exchange(&mut machine, &bytes, now).unwrap();
    let (kind, payload) = console.open(&answer);
    let packet = Sol::decode(&payload).unwrap();
    assert_eq!((kind, packet.ack, packet.accepted), (PayloadType::Sol, 1, 150));
    assert_eq!(packet.data, typed);
    assert_eq!(machine.transmit(), None);
}
