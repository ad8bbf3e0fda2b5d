use koboshi_initramfs::contract::Phase;

use super::reports::{NOTE_MAX, words};
use super::*;
use crate::diagnosis::late::Finding;

#[test]
fn what_a_machine_wrote_cannot_drive_a_terminal() {
    let (_, note) = words(&Phase::Trouble { message: "\x1b]0;owned\x07 disk".into() });
    assert_eq!(note, "·]0;owned· disk");
    let (_, note) = words(&Phase::Up { by: "x".repeat(10_000) });
    assert_eq!(note.len(), NOTE_MAX);
}

#[test]
fn a_root_is_told_with_its_rate() {
    let phase = Phase::RootReady { bytes: 69_000_000, ms: 3_000, attempts: 2 };
    assert_eq!(words(&phase).1, "69.0 MB in 3.0 s, 23.0 MB/s, 2 tries");
}

pub(crate) fn boot(machine: &str, id: u8) -> BootRecord {
    let part =
        |name: &str| koboshi_pxe::boots::Part { name: name.into(), sha256: [0; 32], size: 1 };
    let address = Ipv4Addr::new(10, 77, 0, 11);
    let plan = koboshi_pxe::boots::Plan {
        machine: machine.into(),
        seat: Some("web1".into()),
        role: "web".into(),
        hostname: "web1".into(),
        address,
        image: "web@1".into(),
        digest: None,
        kernel: part("kernel"),
        efi: None,
        segments: vec![],
        roots: vec![part("root")],
        cmdline: String::new(),
        revision: 1,
        ticket: None,
        orders: String::new(),
        because: None,
        blobs: Vec::new(),
    };
    BootRecord {
        id: BootId([id; 16]),
        mac: Mac([2, 0, 0, 0, 0, id]),
        machine: machine.into(),
        address,
        fixed: true,
        lent: None,
        via: None,
        opened: u64::from(id),
        order: 0,
        stage: Stage::Offer,
        plan: Some(Arc::new(plan)),
        marks: Vec::new(),
        over: false,
        after: None,
        fenced: false,
    }
}

async fn kinds(events: &mut broadcast::Receiver<Event>, count: usize) -> Vec<String> {
    let mut kinds = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
        kinds.push(event.expect("told in time").expect("told").kind);
    }
    kinds
}

fn holder(machine: &str, id: u8) -> Holder {
    Holder {
        seat: "web1".into(),
        address: Ipv4Addr::new(10, 77, 0, 11),
        machine: machine.into(),
        mac: Mac([2, 0, 0, 0, 0, id]),
        boot: BootId([id; 16]),
        since: SystemTime::now(),
        heard: None,
        down: false,
    }
}

#[tokio::test]
async fn what_firmware_said_is_remembered_over_a_restart() {
    use koboshi_pxe::decide::Arch;
    use koboshi_pxe::firmware::{Firmware, Way};
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let ledger = Ledger::new(store.clone(), Vec::new(), Vec::new());
    let pxe = Firmware { arch: Arch::EFI64, way: Way::Pxe };
    ledger.firmware_told("m01", pxe).await;
    ledger.firmware_told("m01", Firmware { way: Way::Ipxe, ..pxe }).await;
    assert_eq!(ledger.firmware("m01"), Some(pxe), "its iPXE says nothing new");
    ledger.firmware_told("m01", Firmware { arch: Arch::BIOS, ..pxe }).await;
    // In order with whatever is waited for.
    ledger.event("test", None, String::new()).await;
    let mut events = ledger.follow();
    ledger.event("test", None, String::new()).await;
    kinds(&mut events, 1).await;
    let again = Ledger::new(store, Vec::new(), Vec::new());
    assert_eq!(again.firmware("m01").map(Firmware::is_efi), Some(false));
    assert_eq!(again.firmware("m02"), None);
}

#[tokio::test]
async fn a_seat_is_held_from_the_promise_until_the_desk_says_that_it_is_free() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let ledger = Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
    let mut events = ledger.follow();
    let held = || {
        let held = store.holdings().expect("read");
        held.into_iter().map(|held| (held.machine, held.boot)).collect::<Vec<_>>()
    };
    let m01 = ("m01".to_string(), BootId([1; 16]));
    ledger.opened(boot("m01", 1), Some("web1".into()), &[]).await;
    // The desk would never say this; if it did, the books are not changed by it, and it is told.
    ledger.opened(boot("m02", 2), Some("web1".into()), &[]).await;
    assert_eq!(kinds(&mut events, 1).await, ["conflict"]);
    assert_eq!(held(), std::slice::from_ref(&m01));

    // Its firmware begins another boot: it has not left by that alone.
    let over = [(BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]))];
    let mut other = boot("m01", 3);
    other.plan = None;
    ledger.opened(other, None, &over).await;
    ledger.freed(holder("m02", 2), "it is not its holder".into(), 9).await;
    assert_eq!(kinds(&mut events, 1).await, ["freed"]);
    assert_eq!(held(), [m01]);
    ledger.freed(holder("m01", 1), "its firmware began another boot".into(), 9).await;
    assert_eq!(kinds(&mut events, 1).await, ["freed"]);
    assert_eq!(held(), []);
}

#[tokio::test]
async fn a_fence_ends_boots_on_disk_before_it_is_answered() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let ledger = Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
    let mut events = ledger.follow();
    ledger.opened(boot("m01", 1), Some("web1".into()), &[]).await;
    let over = [(BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]))];
    let by = "by hand, by root".to_string();
    ledger.fenced("m01".into(), &over, vec![holder("m01", 1)], by, 9).await;
    let record = store.boot(BootId([1; 16])).expect("read").expect("remembered");
    assert!(record.over && record.fenced);
    assert_eq!(
        record.marks.last().map(|mark| mark.note.as_str()),
        Some("fenced: by hand, by root")
    );
    assert!(store.holdings().expect("read").is_empty());
    let event = tokio::time::timeout(Duration::from_secs(10), events.recv()).await;
    let event = event.expect("told in time").expect("told");
    assert_eq!(event.text, "is fenced, by hand, by root; free is web1");
}

#[tokio::test]
async fn how_long_a_restart_took_is_counted_from_the_machines_own_last_word() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let ledger = Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
    let mac = Mac([2, 0, 0, 0, 0, 1]);
    let now = now_ms() + 1_000_000;
    ledger.opened(BootRecord { opened: now, ..boot("m01", 1) }, None, &[]).await;
    let id = BootId([1; 16]);
    ledger.mark(id, Stage::Loader, "snponly.efi".into(), now + 4_000, Source::Wire).await;
    assert_eq!(ledger.heard(mac), Some(now + 4_000), "its firmware speaks for it at first");
    ledger.mark(id, Stage::Up, String::new(), now + 20_000, Source::Machine).await;
    // Its firmware, which asks for the size of its loader before it fetches it; or somebody else.
    ledger.mark(id, Stage::Up, "asked for the size".into(), now + 60_100, Source::Wire).await;
    assert_eq!(ledger.heard(mac), Some(now + 20_000));
    let second = BootRecord { mac, opened: now + 60_000, ..boot("m01", 2) };
    ledger.opened(second, None, &[(id, mac)]).await;
    assert_eq!(ledger.newest()[&mac].after, Some(40_000));
}

#[tokio::test]
async fn a_late_boot_is_said_to_be_unless_it_has_moved_and_teaches_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let ledger = Arc::new(Ledger::new(store.clone(), Vec::new(), Vec::new()));
    let (id, mac) = (BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]));
    ledger.opened(boot("m01", 1), None, &[]).await;
    ledger.mark(id, Stage::Ack, String::new(), 1_000, Source::Wire).await;
    let cause = crate::diagnosis::late::Cause {
        seen: "never asked for ipxe.efi".into(),
        late: crate::store::Late { usual: "a firewall".into(), next: "open it".into() },
    };
    let finding = |stage| Finding { id, machine: "m01".into(), stage, cause: cause.clone() };
    ledger.is_late(&finding(Stage::Offer), 2_000).await;
    assert_eq!(ledger.newest()[&mac].marks.len(), 1, "it has moved on since");
    ledger.is_late(&finding(Stage::Ack), 2_000).await;
    let marks = ledger.newest()[&mac].marks.clone();
    assert_eq!((marks[1].note.as_str(), marks[1].stage), ("never asked for ipxe.efi", Stage::Ack));
    assert_eq!(ledger.heard(mac), Some(1_000), "that was no sign of life");
    let kept =
        store.append(Event { id: 0, at: 0, kind: "x".into(), who: None, text: String::new() });
    kept.await.expect("queued").await.expect("all before it is on disk");
    let shown = crate::ops::boots::show(&store.boots_of("m01").expect("read"));
    assert!(
        shown.contains("LATE        never asked for ipxe.efi\n")
            && shown.contains("usually: a firewall\n")
            && shown.contains("next: open it\n"),
        "{shown}"
    );
    // A new process: what was said late was no sign of life either.
    let again = Ledger::new(store.clone(), store.newest_boots(|_| {}).expect("read"), Vec::new());
    assert_eq!(again.heard(mac), Some(1_000));
}

#[tokio::test]
async fn what_is_seen_on_the_wire_never_moves_a_machine_back_that_speaks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a new state");
    let ledger = Arc::new(Ledger::new(store, Vec::new(), Vec::new()));
    let (id, mac) = (BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]));
    ledger.opened(boot("m01", 1), None, &[]).await;
    let steps = [
        (Stage::Loader, Source::Wire, Stage::Loader),
        (Stage::Ack, Source::Wire, Stage::Loader),
        (Stage::Up, Source::Machine, Stage::Up),
        (Stage::Kernel, Source::Wire, Stage::Up),
        (Stage::Trouble, Source::Machine, Stage::Trouble),
    ];
    for (stage, source, reached) in steps {
        ledger.mark(id, stage, String::new(), 1, source).await;
        assert_eq!(ledger.newest()[&mac].stage, reached, "{stage:?}");
    }
    // A long trouble drops its middle, not its beginning or its end.
    for number in 0..1000 {
        ledger.mark(id, Stage::Trouble, format!("{number}"), 1, Source::Machine).await;
    }
    let marks = &ledger.newest()[&mac].marks;
    assert_eq!((marks.len(), marks[0].stage), (MARKS_MAX, Stage::Loader));
    assert_eq!(marks[MARKS_MAX - 1].note, "999");
}

/// Recorded and played again, cut, or no text at all: nothing moves, and it is no sign of life.
#[tokio::test]
async fn a_report_that_is_played_again_moves_nothing() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("site.toml");
    let text = "[site]\nname = \"rack\"\n[net]\ninterface = \"kb0\"\ncidr = \"10.77.0.0/24\"\n";
    std::fs::write(&path, text).expect("written");
    let env = crate::site::Env::system(crate::site::Purpose::Check);
    let site = Arc::new(crate::site::load(&path, &env).expect("a site"));
    let desk = crate::ops::explain::desk_of(&site, dir.path()).expect("a desk");
    let store = Store::open(dir.path()).expect("a new state");
    let ledger = Arc::new(Ledger::new(store, Vec::new(), Vec::new()));
    let (wishes, _wanted) = mpsc::channel(8);
    let (id, mac) = (BootId([1; 16]), Mac([2, 0, 0, 0, 0, 1]));
    ledger.opened(boot("m01", 1), Some("web1".into()), &[]).await;
    let report =
        |seq: u32, phase: &str| format!(r#"{{"phase":{phase},"uptime_ms":1,"seq":{seq}}}"#);
    let init = report(1, r#"{"phase":"init","kernel":"6","memory_mib":1,"nic":"e"}"#);
    let up = report(2, r#"{"phase":"up","by":"init"}"#);
    let cut = &up[..up.len() - 1];
    for (body, heard, stage) in [
        (init.as_bytes(), 10, Stage::Init),
        (up.as_bytes(), 20, Stage::Up),
        (init.as_bytes(), 20, Stage::Up),
        (up.as_bytes(), 20, Stage::Up),
        (cut.as_bytes(), 20, Stage::Up),
        (b"\xff\xfe\x00", 20, Stage::Up),
    ] {
        let at = if ledger.heard(mac) < Some(heard) { heard } else { 99 };
        ledger.report(&desk, &wishes, (id, mac, boot("m01", 1).address), body, at).await;
        let shown = String::from_utf8_lossy(body);
        assert_eq!(
            (ledger.heard(mac), ledger.newest()[&mac].stage),
            (Some(heard), stage),
            "{shown}"
        );
    }
}
