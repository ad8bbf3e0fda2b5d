//! One disk made ready: what was on it is cleared away, a partition made where that is wanted, the file system by
//! its own tool, and then it is read back as it will be looked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, OFlags};

use super::held::{END, Ends};
use crate::contract::duty::FileSystem;
use crate::disks::superblock::Found;
use crate::errand;

/// A tool that has not ended by then has found a disk that does not answer. Discarding a large flash disk takes
/// minutes; the rest of an ext4 is made when it is mounted first.
const PATIENCE: Duration = Duration::from_secs(3600);
/// The kernel has read a table of partitions, and the devices are there.
const APPEARS: Duration = Duration::from_secs(10);
/// Of what a tool says: xfs tells first what is wrong, and then its whole usage.
const LINES_MAX: usize = 3;

/// What is made.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// The disk's name: `vda`.
    pub name: &'a str,
    /// Its device.
    pub path: &'a Path,
    /// What goes on it.
    pub fs: FileSystem,
    /// Its label.
    pub label: &'a str,
    /// In a partition.
    pub partition: bool,
    /// There were partitions before.
    pub parted: bool,
}

impl Job<'_> {
    /// How many steps there are to be told of.
    pub fn steps(&self) -> u64 {
        if self.partition { 4 } else { 3 }
    }
}

/// Why it came to nothing.
#[derive(Debug, PartialEq, Eq)]
pub enum Stop {
    /// The machine was told to stop.
    Told,
    /// In words.
    Because(String),
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Because(why)
    }
}

/// Told a step and how many are done, several times a second; it waits a moment, and true means to stop.
pub type Tell<'a> = &'a mut dyn FnMut(&str, u64) -> bool;

/// What came of it.
#[derive(Debug, Default)]
pub struct Made {
    /// In words and in order, also of one that went wrong.
    pub steps: Vec<String>,
    /// Where the file system lies: `vda1`.
    pub device: String,
    /// What it is, as it was read back.
    pub found: Option<Found>,
}

/// Does all of it. What was done is in `made` whatever comes.
pub fn make(job: Job<'_>, made: &mut Made, tell: Tell<'_>) -> Result<(), Stop> {
    let mut step = 0;
    if tell("clearing", step) {
        return Err(Stop::Told);
    }
    clear(job.path)?;
    made.steps.push("its first and last MiB cleared".to_owned());
    let disk = job.path.to_string_lossy();
    if job.parted {
        reread(&disk, step, tell)?;
    }
    step += 1;
    let (mut device, mut path) = (job.name.to_owned(), job.path.to_owned());
    if job.partition {
        let name = format!("--change-name=1:{}", job.label);
        let args = ["--new=1:0:0", "--typecode=1:8300", &name, &disk];
        run(&["/sbin/sgdisk", "/usr/sbin/sgdisk"], &args, "partition", step, tell)?;
        device = first_part(Path::new("/sys"), job.name, step, tell)?;
        path = job.path.with_file_name(&device);
        // What was there in a partition of the same beginning or end.
        clear(&path)?;
        made.steps.push(format!("{device} made, a GPT partition over the whole disk"));
        step += 1;
    }
    made.device = device;
    made.found = Some(lay(&path, job.fs, job.label, step, tell)?);
    let fs = job.fs.as_str();
    made.steps.push(format!("mkfs.{fs} -L {} on {}, read back", job.label, made.device));
    Ok(())
}

/// The kernel forgets the partitions that were there. Whoever looks at one in this moment keeps it from that.
fn reread(disk: &str, step: u64, tell: Tell<'_>) -> Result<(), Stop> {
    let begun = Instant::now();
    loop {
        let blockdev = ["/sbin/blockdev", "/usr/sbin/blockdev"];
        match run(&blockdev, &["--rereadpt", disk], "clearing", step, tell) {
            Err(Stop::Because(_)) if begun.elapsed() < APPEARS => {
                if tell("clearing", step) {
                    return Err(Stop::Told);
                }
            }
            ended => return ended,
        }
    }
}

/// The file system, made and read back.
fn lay(path: &Path, fs: FileSystem, label: &str, step: u64, tell: Tell<'_>) -> Result<Found, Stop> {
    let device = path.to_string_lossy();
    let (programs, force) = match fs {
        FileSystem::Ext4 => (["/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"], "-F"),
        FileSystem::Xfs => (["/sbin/mkfs.xfs", "/usr/sbin/mkfs.xfs"], "-f"),
    };
    let name = format!("mkfs.{}", fs.as_str());
    run(&programs, &["-q", force, "-L", label, &device], &name, step, tell)?;
    if tell("reading back", step + 1) {
        return Err(Stop::Told);
    }
    let found = read_back(path).map_err(|error| format!("it does not read back: {error}"))?;
    match found {
        Some(found)
            if found.kind.file_system() == Some(fs.as_str())
                && found.label == label
                && !found.uuid.is_empty() =>
        {
            Ok(found)
        }
        Some(found) => {
            let (kind, label) = (found.kind.name(), found.label);
            Err(format!("what reads back is {kind} LABEL={label}").into())
        }
        None => Err("nothing reads back of what was made".to_owned().into()),
    }
}

/// From the disk: what its cache has, it has to have written before.
fn read_back(path: &Path) -> io::Result<Option<Found>> {
    let mut file = File::open(path)?;
    file.sync_all()?;
    let size = file.seek(SeekFrom::End(0))?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(Ends::read(path, size)?.identify())
}

/// Zeros at both ends: superblocks, tables of partitions, labels of RAID, LVM and ZFS. For ourselves alone: one that
/// is mounted or part of something is refused by the kernel.
fn clear(path: &Path) -> Result<(), String> {
    let zeros = || {
        let exclusive = OFlags::EXCL.bits().cast_signed();
        let mut file =
            OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path)?;
        let size = file.seek(SeekFrom::End(0))?;
        let zeros = vec![0; usize::try_from(size).unwrap_or(END).min(END)];
        file.write_all_at(&zeros, 0)?;
        file.write_all_at(&zeros, size - zeros.len() as u64)?;
        file.sync_all()
    };
    zeros().map_err(|error| match error.raw_os_error() {
        Some(16) => "it is in use: mounted, or part of a RAID or LVM".to_owned(),
        Some(30) => "it cannot be written: write-protected".to_owned(),
        _ => format!("it cannot be cleared: {error}"),
    })
}

/// Runs a tool of the image to its end.
fn run(
    programs: &[&str],
    args: &[&str],
    what: &str,
    step: u64,
    tell: Tell<'_>,
) -> Result<(), Stop> {
    let Some(program) = programs.iter().find(|path| Path::new(path).exists()) else {
        let name = programs.first().copied().unwrap_or_default();
        return Err(format!(
            "the image has no {name}: `koboshi image build setup` makes one that has"
        )
        .into());
    };
    let failed = |error: io::Error| Stop::Because(format!("{program} does not run: {error}"));
    let mut errand = errand::here(program, args).map_err(failed)?;
    loop {
        if let Some(ended) = errand.ended().map_err(failed)? {
            if ended.well {
                return Ok(());
            }
            let lines = ended.said.lines().map(str::trim).filter(|line| !line.is_empty());
            let said: Vec<&str> = lines.take(LINES_MAX).collect();
            return Err(format!("{program}: {}", said.join("; ")).into());
        }
        if errand.age() > PATIENCE {
            errand.give_up();
            return Err(
                format!("{program} has not ended after {} min", PATIENCE.as_secs() / 60).into()
            );
        }
        if tell(what, step) {
            errand.give_up();
            return Err(Stop::Told);
        }
    }
}

/// The name of a disk's first partition, once the kernel has it.
fn first_part(sys: &Path, disk: &str, step: u64, tell: Tell<'_>) -> Result<String, Stop> {
    let begun = Instant::now();
    let is_first = |at: &PathBuf| {
        fs::read_to_string(at.join("partition")).is_ok_and(|number| number.trim() == "1")
    };
    loop {
        let entries = fs::read_dir(sys.join("class/block").join(disk)).into_iter().flatten();
        let found = entries.flatten().map(|entry| entry.path()).find(is_first);
        let name = found.as_ref().and_then(|at| at.file_name()).map(|name| name.to_string_lossy());
        if let Some(name) = name
            && Path::new("/dev").join(name.replace('!', "/")).exists()
        {
            // cciss!c0d0p1 lies in a folder of /dev that the disk lies in as well.
            let last = name.rsplit('!').next().unwrap_or_default();
            return Ok(last.to_owned());
        }
        if begun.elapsed() > APPEARS {
            return Err("the partition was made, and the kernel does not show it"
                .to_owned()
                .into());
        }
        if tell("partition", step) {
            return Err(Stop::Told);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disks::superblock::Kind;

    fn disk(size: u64) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        File::create(&path).unwrap().set_len(size).unwrap();
        (dir, path)
    }

    fn go_on(_: &str, _: u64) -> bool {
        std::thread::sleep(Duration::from_millis(5));
        false
    }

    fn job(path: &Path, fs: FileSystem) -> Job<'_> {
        Job { name: "disk", path, fs, label: "db-1", partition: false, parted: false }
    }

    /// What Debian's tools make is what our reader finds, on a disk that held other things before.
    #[test]
    fn what_is_made_reads_back() {
        for (fs, kind) in [(FileSystem::Ext4, Kind::Ext), (FileSystem::Xfs, Kind::Xfs)] {
            let (_dir, path) = disk(320 << 20);
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            // A RAID's old superblock, which no mkfs takes away, and LVM's.
            file.write_all_at(&0xa92b_4efc_u32.to_le_bytes(), (320 << 20) - 65_536).unwrap();
            file.write_all_at(b"LABELONE", 512).unwrap();
            let mut made = Made::default();
            let mut seen = Vec::new();
            make(job(&path, fs), &mut made, &mut |step, done| {
                seen.push((step.to_owned(), done));
                go_on(step, done)
            })
            .unwrap();
            let found = made.found.unwrap();
            assert_eq!((found.kind, found.label.as_str()), (kind, "db-1"));
            assert_eq!((found.uuid.len(), made.device.as_str(), made.steps.len()), (36, "disk", 2));
            seen.dedup();
            let name = format!("mkfs.{}", fs.as_str());
            let steps = [("clearing".to_owned(), 0), (name, 1), ("reading back".to_owned(), 2)];
            assert_eq!(seen, steps);
        }
    }

    #[test]
    fn what_goes_wrong_is_told() {
        let mut made = Made::default();
        // Too small for an XFS: its own tool says so.
        let (_dir, path) = disk(16 << 20);
        let Err(Stop::Because(why)) = make(job(&path, FileSystem::Xfs), &mut made, &mut go_on)
        else {
            panic!("{made:?}")
        };
        assert!(why.starts_with("/sbin/mkfs.xfs: ") && why.contains("300MB"), "{why}");
        assert_eq!(made.steps, ["its first and last MiB cleared"]);
        let missing = Path::new("/nonexistent/disk");
        let Err(Stop::Because(why)) = make(job(missing, FileSystem::Ext4), &mut made, &mut go_on)
        else {
            panic!("{made:?}")
        };
        assert!(why.contains("cannot be cleared"), "{why}");
        let Err(Stop::Because(why)) = run(&["/nonexistent/mkfs"], &[], "mkfs", 0, &mut go_on)
        else {
            panic!("it ran")
        };
        assert!(why.contains("the image has no /nonexistent/mkfs"), "{why}");
    }

    /// A tool that hangs ends with the order.
    #[test]
    fn told_to_stop() {
        let (_dir, path) = disk(16 << 20);
        let mut made = Made::default();
        assert_eq!(
            make(job(&path, FileSystem::Ext4), &mut made, &mut |_, _| true),
            Err(Stop::Told)
        );
        assert!(made.steps.is_empty());
        let mut times = 0;
        let mut later = |_: &str, _| {
            times += 1;
            go_on("", 0) || times > 3
        };
        let begun = Instant::now();
        assert_eq!(run(&["/bin/sleep"], &["600"], "mkfs", 0, &mut later), Err(Stop::Told));
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
