//! A host of a test's own: folders in place of /sys, /dev and /proc.

use std::fs;
use std::os::unix::fs::symlink;

use super::host::Host;

/// A host with an FTDI that has four interfaces, a Moxa that has two ports on one, two cheap ones with the same
/// serial number, an ACM and a port that is none of USB's.
pub(super) fn host() -> (tempfile::TempDir, Host) {
    let folder = tempfile::tempdir().unwrap();
    let sys = folder.path().to_path_buf();
    let put = |path: &str, text: &str| {
        let path = sys.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let tty = |device: &str, at: &str| {
        fs::create_dir_all(sys.join(at)).unwrap();
        fs::create_dir_all(sys.join("class/tty").join(device)).unwrap();
        symlink(sys.join(at), sys.join("class/tty").join(device).join("device")).unwrap();
    };
    let bus = "devices/pci0000:00/0000:00:14.0/usb1";
    let adapter = |socket: &str, serial: &str, product: &str| {
        put(&format!("{bus}/{socket}/product"), &format!("{product}\n"));
        if !serial.is_empty() {
            put(&format!("{bus}/{socket}/serial"), &format!("{serial}\n"));
        }
    };
    let interface = |socket: &str, number: u8| {
        put(
            &format!("{bus}/{socket}/{socket}:1.{number}/bInterfaceNumber"),
            &format!("{number:02x}\n"),
        );
        format!("{bus}/{socket}/{socket}:1.{number}")
    };
    adapter("1-1.2", "FT4QUAD", "Quad RS232-HS");
    put(&format!("{bus}/1-1.2/manufacturer"), "FTDI\n");
    for number in 0..4 {
        let at = format!("{}/ttyUSB{number}", interface("1-1.2", number));
        put(&format!("{at}/port_number"), "0\n");
        tty(&format!("ttyUSB{number}"), &at);
    }
    adapter("1-1.3", "", "UPort \u{1b}[2J1250");
    for number in 0..2 {
        let at = format!("{}/ttyUSB{}", interface("1-1.3", 0), number + 9);
        put(&format!("{at}/port_number"), &format!("{number}\n"));
        tty(&format!("ttyUSB{}", number + 9), &at);
    }
    for (socket, device) in [("1-2", "ttyUSB4"), ("1-3", "ttyUSB5")] {
        adapter(socket, "0001", "USB-Serial Controller");
        tty(device, &format!("{}/{device}", interface(socket, 0)));
    }
    adapter("1-4", "E660:58", "Pico");
    tty("ttyACM0", &interface("1-4", 2));
    for (device, kind) in [("ttyS0", "4"), ("ttyS1", "0")] {
        let at = format!("devices/pnp0/00:0{kind}/00:0{kind}:0/00:0{kind}:0.0");
        put(&format!("{at}/uevent"), "");
        tty(device, &at);
        put(&format!("class/tty/{device}/type"), kind);
    }
    for (device, driver) in [
        ("devices/pnp0/00:04", "bus/pnp/drivers/serial"),
        ("devices/pnp0/00:04/00:04:0/00:04:0.0", "bus/serial-base/drivers/port"),
        (
            "devices/pci0000:00/0000:00:14.0/usb1/1-1.2/1-1.2:1.0/ttyUSB0",
            "bus/usb-serial/drivers/ftdi_sio",
        ),
    ] {
        fs::create_dir_all(sys.join(driver)).unwrap();
        symlink(sys.join(driver), sys.join(device).join("driver")).unwrap();
    }
    // A terminal that is no port at all.
    fs::create_dir_all(sys.join("class/tty/tty1")).unwrap();
    for device in ["dev/ttyS0", "dev/ttyUSB0"] {
        put(device, "");
    }
    fs::create_dir_all(sys.join("dev/serial/by-id")).unwrap();
    symlink("../../ttyUSB0", sys.join("dev/serial/by-id/usb-FTDI-if00-port0")).unwrap();
    put("proc/consoles", "ttyS0                -W- (EC p a)    4:64\n");
    put("proc/812/comm", "agetty\n");
    put("proc/812/stat", "812 (agetty) S 1 812 812 0 -1 4194560");
    fs::create_dir_all(sys.join("proc/812/fd")).unwrap();
    symlink(sys.join("dev/ttyUSB0"), sys.join("proc/812/fd/0")).unwrap();
    (folder, Host { dev: sys.join("dev"), proc: sys.join("proc"), locks: sys.join("locks"), sys })
}
