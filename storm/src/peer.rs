//! What others would set up for the same machines: Kea for addresses, dnsmasq for TFTP, nginx for the
//! rest, each as its manual says it is fast, with files of the same sizes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::paper::{LOADERS, PREFIX, SERVER, Sizes, noise};

/// A program to start, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// Debian's package.
    pub package: &'static str,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: Vec<(&'static str, PathBuf)>,
}

/// The name of the whole.
pub const NAME: &str = "Kea, dnsmasq (TFTP), nginx";
const HTTP: u16 = 8080;
/// 64 digits, as a digest has.
const ROOT: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

/// Writes files and settings below a directory; says what to start.
pub fn lay(at: &Path, interface: &str, sizes: &Sizes) -> io::Result<Vec<Program>> {
    let files = at.join("files");
    for dir in ["files/boot", "files/blob/sha256", "kea", "nginx"] {
        fs::create_dir_all(at.join(dir))?;
    }
    let url = format!("http://{SERVER}:{HTTP}");
    let script = format!(
        "#!ipxe\nset try:int32 0\nset pause:int32 3\n:again\nimgfree\n\
         kernel {url}/kernel initrd=initrd koboshi.server={url} koboshi.boot={:032} \
         koboshi.root=sha256:{ROOT} || goto failed\n\
         initrd --name initrd {url}/initrd || goto failed\nboot || goto failed\n\
         :failed\ninc try\niseq ${{try}} 20 && goto over ||\nsleep ${{pause}}\ngoto again\n\
         :over\nreboot\n",
        0
    );
    // dnsmasq as root serves what anybody may read, whatever our umask is.
    let put = |name: &str, bytes: Vec<u8>| {
        fs::write(files.join(name), bytes)?;
        fs::set_permissions(files.join(name), fs::Permissions::from_mode(0o644))
    };
    put("boot/all.ipxe", script.into_bytes())?;
    put("kernel", noise(sizes.kernel, 1))?;
    put("initrd", noise(sizes.initrd, 2))?;
    put(&format!("blob/sha256/{ROOT}"), noise(sizes.root, 3))?;
    for loader in LOADERS {
        put(loader, noise(sizes.loader, 4))?;
    }
    let kea = at.join("kea");
    fs::write(kea.join("kea.json"), kea_settings(interface, &kea, &url))?;
    fs::write(at.join("nginx/nginx.conf"), nginx_settings(&at.join("nginx"), &files))?;
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
    let of = |path: PathBuf| path.to_string_lossy().into_owned();
    let (kea_file, nginx_file) = (of(kea.join("kea.json")), of(at.join("nginx/nginx.conf")));
    let tftp_root = format!("--tftp-root={}", files.display());
    let tftp_on = format!("--interface={interface}");
    Ok(vec![
        Program {
            name: "kea-dhcp4",
            package: "kea-dhcp4-server",
            arguments: words(&["-c", &kea_file]),
            environment: vec![("KEA_PIDFILE_DIR", kea.clone()), ("KEA_LOCKFILE_DIR", kea)],
        },
        Program {
            name: "dnsmasq",
            package: "dnsmasq-base",
            arguments: words(&[
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--user=root",
                "--port=0",
                "--enable-tftp",
                "--tftp-max=20000",
                &tftp_root,
                &tftp_on,
            ]),
            environment: vec![],
        },
        Program {
            name: "nginx",
            package: "nginx-light",
            arguments: words(&["-c", &nginx_file, "-g", "daemon off;"]),
            environment: vec![],
        },
    ])
}

/// Leases in memory with a file behind them, as Kea is fastest; loaders by what the client says; iPXE is
/// spared its wait for a proxy, as we do.
fn kea_settings(interface: &str, at: &Path, url: &str) -> String {
    let at = at.display();
    format!(
        r#"{{"Dhcp4": {{
  "interfaces-config": {{ "interfaces": ["{interface}"], "dhcp-socket-type": "raw" }},
  "lease-database": {{ "type": "memfile", "persist": true, "name": "{at}/leases.csv", "lfc-interval": 0 }},
  "valid-lifetime": 3600,
  "option-def": [{{ "name": "ipxe", "code": 175, "type": "binary", "space": "dhcp4" }}],
  "client-classes": [
    {{ "name": "ipxe", "test": "option[77].hex == 'iPXE'", "boot-file-name": "{url}/boot/all.ipxe",
       "option-data": [{{ "name": "ipxe", "data": "B00101", "csv-format": false, "always-send": true }}] }},
    {{ "name": "http", "test": "substring(option[60].hex,0,10) == 'HTTPClient'", "boot-file-name": "{url}/ipxe.efi",
       "option-data": [{{ "name": "vendor-class-identifier", "data": "HTTPClient", "always-send": true }}] }},
    {{ "name": "efi", "test": "not member('ipxe') and option[93].hex == 0x0007", "boot-file-name": "ipxe.efi" }},
    {{ "name": "bios", "test": "not member('ipxe') and option[93].hex == 0x0000", "boot-file-name": "undionly.kpxe" }}
  ],
  "subnet4": [{{ "id": 1, "subnet": "10.77.0.0/{PREFIX}", "next-server": "{SERVER}",
    "pools": [{{ "pool": "10.77.4.0-10.77.253.255" }}] }}],
  "loggers": [{{ "name": "kea-dhcp4", "severity": "ERROR", "output_options": [{{ "output": "{at}/kea.log" }}] }}]
}} }}
"#
    )
}

fn nginx_settings(at: &Path, files: &Path) -> String {
    let (at, files) = (at.display(), files.display());
    format!(
        "user root;\nworker_processes auto;\nworker_rlimit_nofile 20000;\npid {at}/nginx.pid;\n\
         error_log {at}/error.log;\nevents {{ worker_connections 16384; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_timeout 75s;\n\
         client_body_temp_path {at}/body;\n  proxy_temp_path {at}/proxy;\n  fastcgi_temp_path {at}/fcgi;\n\
         uwsgi_temp_path {at}/uwsgi;\n  scgi_temp_path {at}/scgi;\n\
         open_file_cache max=100 inactive=60s;\n\
         server {{\n    listen {SERVER}:{HTTP} backlog=4096 reuseport;\n    root {files};\n\
         location /report/ {{ return 204; }}\n  }}\n}}\n"
    )
}
