//! The initramfs of a kernel that is unpacked at a root, less the orders of a boot, as the appliance makes it
//! (the common segment, then the one of modules that `image import` packs), into a file:
//! `segment ROOT BUSYBOX OUT`. For `make bench`.

use std::path::Path;
use std::process::ExitCode;

use koboshi_initramfs::{Choice, Compression, INIT, common, modules_segment, releases};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, busybox, out] = args.as_slice() else {
        eprintln!("segment ROOT BUSYBOX OUT");
        return ExitCode::from(2);
    };
    match make(Path::new(root), busybox, out) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

fn make(root: &Path, busybox: &str, out: &str) -> Result<String, String> {
    let busybox = std::fs::read(busybox).map_err(|error| format!("{busybox}: {error}"))?;
    let releases = releases(root).map_err(|error| error.to_string())?;
    let release = releases.last().ok_or("no modules there")?;
    let made = modules_segment(root, release, &Choice::servers(), Compression::Zstd)
        .map_err(|error| error.to_string())?;
    let common = common(INIT, Some(&busybox));
    let archive = [&common[..], &made.bytes].concat();
    std::fs::write(out, &archive).map_err(|error| format!("{out}: {error}"))?;
    let (modules, bytes, first) = (made.modules.len(), archive.len(), common.len());
    Ok(format!("{modules} modules of {release}, {bytes} bytes, {first} of them common"))
}
