//! What a kernel module says of itself: the `.modinfo` section of its ELF file, `key=value` texts
//! with NULs between. Read for `firmware=`, the files a driver will ask the kernel for.

/// The values of a key, in order. A file that is no ELF, or a broken one, says nothing.
pub(crate) fn values<'a>(module: &'a [u8], key: &str) -> Vec<&'a str> {
    let Some(section) = modinfo(module) else { return Vec::new() };
    section
        .split(|byte| *byte == 0)
        .filter_map(|text| std::str::from_utf8(text).ok())
        .filter_map(|text| text.strip_prefix(key)?.strip_prefix('='))
        .collect()
}

/// ELF-64, little endian (x86-64, arm64): file header 0x00–0x3f, section headers of 0x40 bytes.
fn modinfo(elf: &[u8]) -> Option<&[u8]> {
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers = usize::try_from(u64_at(elf, 0x28)?).ok()?;
    let size = usize::from(u16_at(elf, 0x3a)?);
    let count = usize::from(u16_at(elf, 0x3c)?);
    let names = usize::from(u16_at(elf, 0x3e)?);
    if size < 0x40 {
        return None;
    }
    let header = |index: usize| {
        let start = headers.checked_add(index.checked_mul(size)?)?;
        elf.get(start..start.checked_add(0x40)?)
    };
    let content = |header: &[u8]| {
        let start = usize::try_from(u64_at(header, 0x18)?).ok()?;
        let len = usize::try_from(u64_at(header, 0x20)?).ok()?;
        elf.get(start..start.checked_add(len)?)
    };
    let names = content(header(names)?)?;
    (0..count).find_map(|index| {
        let header = header(index)?;
        let name = names.get(u32_at(header, 0)? as usize..)?;
        name.starts_with(b".modinfo\0").then(|| content(header))?
    })
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// An ELF file with nothing but a `.modinfo` section.
#[cfg(test)]
pub(crate) fn tiny_module(modinfo: &[u8]) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut elf = vec![0; 0x40];
    elf[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let (modinfo_at, names_at) = (elf.len(), elf.len() + modinfo.len());
    elf.extend_from_slice(modinfo);
    elf.extend_from_slice(names);
    let headers = elf.len();
    for (name, start, len) in
        [(0, 0, 0), (1, modinfo_at, modinfo.len()), (10, names_at, names.len())]
    {
        let mut header = [0; 0x40];
        header[..4].copy_from_slice(&u32::to_le_bytes(name));
        header[0x18..0x20].copy_from_slice(&(start as u64).to_le_bytes());
        header[0x20..0x28].copy_from_slice(&(len as u64).to_le_bytes());
        elf.extend_from_slice(&header);
    }
    elf[0x28..0x30].copy_from_slice(&(headers as u64).to_le_bytes());
    elf[0x3a..0x40].copy_from_slice(&[0x40, 0, 3, 0, 2, 0]);
    elf
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SAYS: &[u8] = b"license=GPL\0firmware=a/b.fw\0firmwareX=no\0\0\0firmware=c.bin\0";

    #[test]
    fn firmware_in_order() {
        let module = tiny_module(SAYS);
        assert_eq!(values(&module, "firmware"), ["a/b.fw", "c.bin"]);
        assert_eq!(values(&module, "license"), ["GPL"]);
        assert!(values(b"", "firmware").is_empty());
        assert!(values(b"\x7fELF\x02\x01", "firmware").is_empty());
        assert!(values(&[&b"\x7fELF\x02\x01"[..], &[0xff; 200]].concat(), "firmware").is_empty());
    }

    proptest! {
        #[test]
        fn a_broken_module_is_a_silent_one(cut in 0usize..600, at in 0usize..600, byte: u8) {
            let mut module = tiny_module(SAYS);
            let at = at % module.len();
            module[at] = byte;
            module.truncate(cut);
            values(&module, "firmware");
        }
    }
}
