//! Disks wiped: is this the machine that is meant, which of its disks, all of them at once, and a word
//! about each to the person at the console and to the appliance.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Advice, FallocateFlags, OFlags};

use super::chosen::{self, Found, now};
use super::overwrite::{Buffer, Medium, wipe};
use super::pattern::CHUNK;
use crate::backoff;
use crate::console::say;
use crate::contract::Phase;
use crate::contract::duty::{WORKS_MAX, Wipe, Wiped, Work};
use crate::contract::hardware::Disk;
use crate::contract::room::Memory;
use crate::hardware;
use crate::report::Reporter;

/// Disks at a time: a shelf has 60 to 100, and each wants two chunks of memory.
const AT_ONCE: usize = 64;
/// Between two reports, and between two words on the console.
const REPORT: Duration = Duration::from_secs(5);
const WORD: Duration = Duration::from_secs(15);
/// Direct I/O wants its bytes at a page.
const PAGE: usize = 4096;
/// Forgotten at a time: a disk may take a second for it, and is not to be asked in vain to stop.
const FORGOTTEN: u64 = 1 << 30;

/// Carries the order out, as far as it can be. True if the machine was told to stop meanwhile.
pub fn run(order: &Wipe, reporter: &mut Reporter, rings: &dyn Fn(Duration) -> bool) -> bool {
    let root = Path::new("/");
    let hardware = hardware::gather(root);
    let chosen = chosen::is_meant(&order.serial, &hardware)
        .and_then(|()| choose(&chosen::found(root), &order.disks));
    let disks = match chosen {
        Ok(disks) => disks,
        Err(why) => {
            let message = format!("nothing was wiped: {why}");
            say(&message);
            return super::surely(reporter, rings, &Phase::Finished { well: false, message });
        }
    };
    for (disk, alone) in &disks {
        let what = disk.shown();
        match alone {
            Some(why) => say(format!("{what} is left alone: {why}")),
            None => say(format!("{what} is wiped: {}", steps(order))),
        }
    }
    work(order, disks, reporter, rings)
}

/// `zeros, then all is read back`
fn steps(order: &Wipe) -> String {
    let steps: Vec<&str> = order.steps.iter().map(|step| step.as_str()).collect();
    format!("{}; read back: {}", steps.join(", "), order.verify.as_str())
}

/// Every disk of the machine, with why it is left alone. Disks that were named have to be there, all of them.
fn choose(found: &[Found], named: &[String]) -> Result<Vec<(Found, Option<String>)>, String> {
    let absent = named.iter().find(|serial| !found.iter().any(|found| found.has(serial)));
    if let Some(serial) = absent {
        return Err(chosen::absent(serial, found));
    }
    let mut seen = HashSet::new();
    let chosen = found.iter().map(|one| {
        let alone = if !one.wwid.is_empty() && !seen.insert(one.wwid.clone()) {
            Some("it is one of the others, reached by a second way".to_owned())
        } else if !named.is_empty() {
            let meant = named.iter().any(|serial| one.has(serial));
            (!meant).then(|| "it was not named".to_owned())
        } else if one.disk.bus == "usb" || one.removable {
            Some("it can be removed; it is wiped where it is named".to_owned())
        } else {
            None
        };
        (one.clone(), alone)
    });
    let chosen: Vec<_> = chosen.collect();
    if chosen.iter().all(|(_, alone)| alone.is_some()) {
        let kept: Vec<String> = found.iter().map(Found::shown).collect();
        let kept = if kept.is_empty() { String::new() } else { format!(" ({})", kept.join(", ")) };
        return Err(format!("there is no disk to wipe{kept}"));
    }
    Ok(chosen)
}

/// All at once, and what comes of it.
fn work(
    order: &Wipe,
    disks: Vec<(Found, Option<String>)>,
    reporter: &mut Reporter,
    rings: &dyn Fn(Duration) -> bool,
) -> bool {
    let (alone, disks): (Vec<_>, Vec<_>) = disks.into_iter().partition(|(_, why)| why.is_some());
    let disks: Vec<Found> = disks.into_iter().map(|(found, _)| found).collect();
    let board = Arc::new(Board::new(&disks));
    let count = disks.len();
    let room = usize::try_from(Memory::now().available / 4).unwrap_or(usize::MAX) / (2 * CHUNK);
    let (tell, told) = mpsc::channel();
    let disks = Arc::new(disks);
    for _ in 0..count.min(AT_ONCE).min(room.max(1)) {
        let (board, disks, order) = (board.clone(), disks.clone(), order.clone());
        let tell = tell.clone();
        thread::spawn(move || {
            while let Some((n, found)) = board.next(&disks) {
                // The other end is there until it has them all.
                let _ = tell.send(one(&order, found, n, &board));
            }
        });
    }
    drop(tell);
    for (found, why) in alone {
        let wiped = Wiped {
            note: why.map(|why| format!("left alone: {why}")).unwrap_or_default(),
            ..begun(&found)
        };
        if super::surely(reporter, rings, &Phase::Wiped(Box::new(wiped))) {
            board.stop();
            return true;
        }
    }
    let (mut bad, mut done) = (Vec::new(), 0);
    let (mut report, mut word) = (Instant::now(), Instant::now());
    while done < count {
        if rings(Duration::from_millis(200)) {
            board.stop();
            say("told to stop: the disks are NOT wiped");
            return true;
        }
        while let Ok(wiped) = told.try_recv() {
            done += 1;
            let (name, serial) = (&wiped.name, &wiped.serial);
            match wiped.wiped {
                true => {
                    say(format!("{name} {serial} is wiped; {} MiB read back", wiped.verified >> 20))
                }
                false => {
                    say(format!("{name} {serial} is NOT wiped: {}", wiped.note));
                    bad.push(format!("{name} {serial}"));
                }
            }
            if super::surely(reporter, rings, &Phase::Wiped(Box::new(wiped))) {
                board.stop();
                return true;
            }
        }
        if report.elapsed() >= REPORT && done < count {
            report = Instant::now();
            let works = board.works().iter().take(WORKS_MAX).cloned().collect();
            // The next one comes in a moment.
            let _ = reporter.tell(Phase::Working { works });
        }
        if word.elapsed() >= WORD {
            word = Instant::now();
            board.lines().iter().for_each(say);
        }
    }
    let message = match bad.as_slice() {
        [] if count == 1 => "its disk is wiped".to_owned(),
        [] => format!("its {count} disks are wiped"),
        bad => format!("NOT wiped: {}; {} of {count} are", bad.join(", "), count - bad.len()),
    };
    say(&message);
    super::surely(reporter, rings, &Phase::Finished { well: bad.is_empty(), message })
}

/// How far each disk is, and whose turn it is.
struct Board {
    works: Mutex<Vec<Work>>,
    next: AtomicUsize,
    stopped: AtomicBool,
    began: Instant,
}

impl Board {
    fn new(disks: &[Found]) -> Board {
        let work = |found: &Found| Work {
            what: format!("{} {}", found.disk.name, found.disk.serial),
            step: "waits".to_owned(),
            done: 0,
            of: found.bytes,
        };
        let works = Mutex::new(disks.iter().map(work).collect());
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        Board { works, next, stopped, began: Instant::now() }
    }

    fn next<'a>(&self, disks: &'a [Found]) -> Option<(usize, &'a Found)> {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        Some((n, disks.get(n)?))
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn works(&self) -> MutexGuard<'_, Vec<Work>> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, n: usize, step: &str, done: u64, of: u64) {
        if let Some(work) = self.works().get_mut(n) {
            if work.step != step {
                step.clone_into(&mut work.step);
            }
            (work.done, work.of) = (done, of);
        }
    }

    /// `vda VD-07: zeros, 37 %, 2 min left`
    fn lines(&self) -> Vec<String> {
        let since = self.began.elapsed().as_secs();
        let line = |work: &Work| {
            let percent = work.done.saturating_mul(100).checked_div(work.of).unwrap_or(0);
            let left = since.saturating_mul(work.of.saturating_sub(work.done));
            let left = left.checked_div(work.done).map(|left| format!(", {} min left", left / 60));
            format!("{}: {}, {percent} %{}", work.what, work.step, left.unwrap_or_default())
        };
        self.works().iter().filter(|work| work.done < work.of).map(line).collect()
    }
}

fn begun(found: &Found) -> Wiped {
    let Disk { name, model, serial, bus, .. } = found.disk.clone();
    let now = now();
    Wiped {
        name,
        model,
        serial,
        bus,
        bytes: found.bytes,
        began: now,
        ended: now,
        ..Wiped::default()
    }
}

fn one(order: &Wipe, found: &Found, n: usize, board: &Board) -> Wiped {
    let mut wiped = begun(found);
    let device = match Device::open(found) {
        Ok(device) => device,
        Err(error) => {
            board.set(n, "failed", 1, 1);
            wiped.note = match error.raw_os_error() {
                Some(16) => "it is in use: mounted, or part of a RAID or LVM".to_owned(),
                _ => format!("it does not open: {error}"),
            };
            return wiped;
        }
    };
    let outcome =
        wipe(&device, &order.steps, order.verify, backoff::random(), &mut |step, done, of| {
            board.set(n, step, done, of);
            !board.stopped.load(Ordering::Relaxed)
        });
    board.set(n, "done", 1, 1);
    wiped.wiped = outcome.is_well();
    wiped.note = match &outcome.given_up {
        Some(why) => why.clone(),
        None if outcome.is_well() => String::new(),
        None => format!(
            "{} blocks were not written, {} not read back, {} read back as something else",
            outcome.bad, outcome.unread, outcome.differing
        ),
    };
    wiped.block = u32::try_from(device.block).unwrap_or(0);
    (wiped.steps, wiped.bad, wiped.unread) = (outcome.steps, outcome.bad, outcome.unread);
    (wiped.differing, wiped.verified, wiped.ended) = (outcome.differing, outcome.verified, now());
    wiped
}

/// A disk of the machine.
struct Device {
    file: File,
    direct: bool,
    size: u64,
    block: usize,
}

impl Device {
    /// For ourselves alone: one that is mounted or part of something is refused by the kernel.
    fn open(found: &Found) -> io::Result<Device> {
        let path = found.path();
        let open = |flags: OFlags| {
            let flags = (flags | OFlags::EXCL).bits().cast_signed();
            OpenOptions::new().read(true).write(true).custom_flags(flags).open(&path)
        };
        let (file, direct) = match open(OFlags::DIRECT) {
            Ok(file) => (file, true),
            Err(error) if error.raw_os_error() == Some(22) => (open(OFlags::empty())?, false),
            Err(error) => return Err(error),
        };
        let block = rustix::fs::ioctl_blksszget(&file).unwrap_or(512).max(512);
        let block = usize::try_from(block).unwrap_or(512);
        let size = found.bytes - found.bytes % block as u64;
        if size == 0 {
            return Err(io::Error::other("it has no size"));
        }
        Ok(Device { file, direct, size, block })
    }
}

impl Medium for Device {
    fn size(&self) -> u64 {
        self.size
    }

    fn block(&self) -> usize {
        self.block
    }

    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        // Else an error would show only at the end, and nobody could say where.
        if self.direct { Ok(()) } else { self.file.sync_data() }
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        if !self.direct {
            let len = std::num::NonZeroU64::new(bytes.len() as u64);
            rustix::fs::fadvise(&self.file, at, len, Advice::DontNeed)?;
        }
        self.file.read_exact_at(bytes, at)
    }

    /// `blkdev_fallocate` of the kernel: without KEEP_SIZE it refuses, and without a disk that promises zeros
    /// afterwards it says EOPNOTSUPP.
    fn discard(&self) -> io::Result<()> {
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let mut at = 0;
        while at < self.size {
            let len = (self.size - at).min(FORGOTTEN);
            rustix::fs::fallocate(&self.file, how, at, len)?;
            at += len;
        }
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn buffer(&self) -> Buffer {
        Buffer::aligned(PAGE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(name: &str, bus: &str, serial: &str) -> Found {
        let disk =
            Disk { name: name.into(), bus: bus.into(), serial: serial.into(), ..Disk::default() };
        Found { disk, bytes: 1 << 30, ..Found::default() }
    }

    #[test]
    fn only_fixed_disks_are_wiped_unless_one_is_named() {
        let all = [
            disk("sda", "sata", "S1"),
            disk("sdb", "usb", "U1"),
            Found { removable: true, ..disk("mmcblk0", "mmc", "C1") },
            disk("nvme0n1", "nvme", "N1"),
        ];
        let wiped = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(|serial| (*serial).to_owned()).collect();
            let chosen = choose(&all, &named)?;
            let kept = chosen.into_iter().filter(|(_, alone)| alone.is_none());
            Ok::<_, String>(kept.map(|(found, _)| found.disk.name).collect::<Vec<_>>())
        };
        assert_eq!(wiped(&[]).unwrap(), ["sda", "nvme0n1"]);
        assert_eq!(wiped(&["u1"]).unwrap(), ["sdb"]);
        assert_eq!(wiped(&["N1", "C1"]).unwrap(), ["mmcblk0", "nvme0n1"]);
        let why = wiped(&["N1", "X9"]).unwrap_err();
        assert!(why.contains("\"X9\"; there are: sda S1"), "{why}");
        assert!(choose(&[], &[]).unwrap_err().contains("no disk to wipe"));
        assert!(choose(&all[1..2], &[]).unwrap_err().contains("sdb U1"));
    }

    #[test]
    fn a_disk_with_two_ways_is_wiped_once() {
        let path = |name| Found { wwid: "naa.5000c500".into(), ..disk(name, "scsi", "Z1") };
        for named in [&[][..], &["Z1".to_owned()]] {
            let chosen = choose(&[path("sda"), path("sdb")], named).unwrap();
            assert!(chosen[0].1.is_none() && chosen[1].1.is_some(), "{chosen:?}");
        }
    }

    #[test]
    fn a_file_is_a_disk_to_the_kernel_calls_too() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&b"secret! ".repeat(1 << 17), 0).unwrap();
        let device = Device { file, direct: false, size: 1 << 20, block: 512 };
        device.discard().unwrap();
        let mut bytes = vec![1; 1 << 20];
        device.read(0, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn the_board_says_how_far_it_is() {
        let board = Board::new(&[disk("vda", "virtio", "VD-07"), disk("vdb", "virtio", "VD-08")]);
        board.set(0, "zeros", 1 << 29, 1 << 30);
        board.set(1, "done", 1, 1);
        board.set(7, "nowhere", 1, 1);
        assert_eq!(board.lines(), ["vda VD-07: zeros, 50 %, 0 min left"]);
        assert_eq!(board.next(&[]), None);
    }
}
