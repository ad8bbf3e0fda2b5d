//! The modules segment of a kernel that is unpacked at a root, as `image import` makes it, into a file:
//! `segment ROOT OUT`. For `make bench`.

use std::path::Path;
use std::process::ExitCode;

use koboshi_initramfs::{Choice, Compression, modules_segment, releases};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, out] = args.as_slice() else {
        eprintln!("segment ROOT OUT");
        return ExitCode::from(2);
    };
    let made = releases(Path::new(root)).and_then(|releases| {
        let release = releases.last().map_or("", String::as_str);
        modules_segment(Path::new(root), release, &Choice::servers(), Compression::Zstd)
    });
    match made.map(|made| std::fs::write(out, &made.bytes).map(|()| made)) {
        Ok(Ok(made)) => {
            println!(
                "{} modules, {} of {} bytes",
                made.modules.len(),
                made.bytes.len(),
                made.unpacked
            );
            ExitCode::SUCCESS
        }
        Ok(Err(error)) => {
            eprintln!("{out}: {error}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{root}: {error}");
            ExitCode::FAILURE
        }
    }
}
