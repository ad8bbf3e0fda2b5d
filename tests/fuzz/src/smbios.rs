//! A board's table of slots and sockets (SMBIOS), as firmware writers left it. Whatever the bytes say, nothing is read
//! beyond them, there are no more slots than a report could hold, and those that were passed over are counted.

#![no_main]

use koboshi_initramfs::contract;
use libfuzzer_sys::fuzz_target;

#[path = "../../../initramfs/init/src/duty/setup/smbios.rs"]
mod smbios;

fn plain(text: &str) -> String {
    text.chars().take(64).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let survey = smbios::parse(bytes, plain);
    // A structure has four bytes at least, and two behind it.
    let all = survey.memory.len() + survey.processors.len() + survey.left_out as usize;
    assert!(all <= bytes.len().div_ceil(4));
    assert!(survey.memory.len() <= 512 && survey.processors.len() <= 512);
    for module in &survey.memory {
        assert!(module.mib < 1 << 31 && (module.mib == 0 || !module.unknown), "{module:?}");
    }
    assert!(survey.bmc.is_none());
});
