//! Our session against a BMC that others wrote: OpenIPMI's `ipmi_sim`, which knows IPMI 1.5 and cipher
//! suites 0 to 3.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use koboshi_ipmi::session::{Access, Cipher, Patience, Version};
use koboshi_ipmi::wire::v15::Auth;
use koboshi_ipmi::{Bmc, Controller, Error, NetFn, Password, Privilege, Request};

/// An `ipmi_sim` of its own, ended with the test.
struct Sim {
    child: Child,
    address: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _it_is_gone_already = self.child.kill();
        let _it_is_gone_already = self.child.wait();
    }
}

fn free_port(address: Ipv4Addr) -> u16 {
    UdpSocket::bind((address, 0)).unwrap().local_addr().unwrap().port()
}

/// `last`: of an address that no other test uses.
fn sim(last: u8) -> Sim {
    let host = Ipv4Addr::new(127, 44, 1, last);
    let address = SocketAddr::from((host, free_port(host)));
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(
        at("lan.conf"),
        format!(
            "name \"sim\"\nset_working_mc 0x20\n\
             startlan 1\n addr {} {}\n priv_limit admin\n allowed_auths_callback none md2 md5 straight\n \
             allowed_auths_user none md2 md5 straight\n allowed_auths_operator none md2 md5 straight\n \
             allowed_auths_admin none md2 md5 straight\n guid a123456789abcdefa123456789abcdef\nendlan\n\
             user 1 true \"\" \"test\" user 10 none md2 md5 straight\n\
             user 2 true \"admin\" \"secret\" admin 10 none md2 md5 straight\n\
             user 4 false \"gone\" \"secret\" admin 10 none md2 md5 straight\n",
            address.ip(),
            address.port()
        ),
    )
    .unwrap();
    std::fs::write(
        at("sim.emu"),
        "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
         mc_enable 0x20\n",
    )
    .unwrap();
    std::fs::create_dir(at("state")).unwrap();
    let mut command = Command::new("ipmi_sim");
    command.arg("-n").arg("-c").arg(at("lan.conf")).arg("-f").arg(at("sim.emu"));
    command.arg("-s").arg(at("state")).stdin(Stdio::null()).process_group(0);
    let log = std::fs::File::create(at("log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let child = command.spawn().expect("ipmi_sim (package openipmi)");
    let sim = Sim { child, address, _folder: folder };
    sim.wait();
    sim
}

impl Sim {
    /// Until it answers a ping, as no BMC must but this one does.
    fn wait(&self) {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            let ping = koboshi_ipmi::wire::rmcp::ping(1);
            let _until_it_listens = socket.send_to(&ping, self.address);
            if socket.recv(&mut [0; 64]).is_ok() {
                return;
            }
        }
        panic!("ipmi_sim does not start: {}", self.log());
    }

    fn log(&self) -> String {
        std::io::stderr().flush().unwrap();
        std::fs::read_to_string(self._folder.path().join("log")).unwrap_or_default()
    }

    fn access(&self, user: &str, password: &str) -> Access {
        let mut access =
            Access::new(self.address.ip().to_string(), user, Password::new(password).unwrap());
        access.port = self.address.port();
        access
    }
}

async fn device_id(bmc: &Bmc) -> Result<Vec<u8>, Error> {
    bmc.call(Request::new(NetFn::APP, 0x01, [])).await
}

#[tokio::test]
async fn cipher_suite_3_is_found_where_17_is_not_known() {
    let sim = sim(1);
    let bmc = Bmc::new(sim.access("admin", "secret"));
    let id = device_id(&bmc).await.unwrap();
    assert_eq!(id[..2], [0x00, 0x03]);
    let facts = bmc.facts().unwrap();
    assert_eq!((facts.suite, facts.privilege), (Some(3), Privilege::Admin));
    assert_eq!(bmc.learned().suite, Some(3));
    for _ in 0..200 {
        assert_eq!(device_id(&bmc).await.unwrap(), id);
    }
    bmc.close().await;
    assert_eq!(device_id(&bmc).await, Err(Error::Closed));
}

#[tokio::test]
async fn every_suite_and_kind_by_name() {
    let sim = sim(2);
    let mut kinds: Vec<_> = [0, 1, 2, 3].map(Cipher::Suite).into();
    kinds.extend([Auth::None, Auth::Md5, Auth::Password].map(Cipher::Legacy));
    for cipher in kinds {
        let bmc = Bmc::new(Access { cipher, ..sim.access("admin", "secret") });
        let id = device_id(&bmc).await.unwrap_or_else(|error| panic!("{cipher}: {error}"));
        assert_eq!(id[1], 0x03, "{cipher}");
        assert_eq!(bmc.facts().unwrap().privilege, Privilege::Admin, "{cipher}");
        bmc.close().await;
    }
    let bmc = Bmc::new(Access { version: Version::V15, ..sim.access("admin", "secret") });
    assert_eq!(device_id(&bmc).await.unwrap()[1], 0x03);
    assert_eq!(bmc.facts().unwrap().suite, None);
    bmc.close().await;
}

#[tokio::test]
async fn who_is_not_let_in_is_told_why() {
    let sim = sim(3);
    let patience = Patience { total: Duration::from_secs(6), ..Patience::default() };
    let try_in = async |user: &str, password: &str, cipher: Cipher| {
        let bmc = Bmc::new(Access { cipher, patience, ..sim.access(user, password) });
        let error = device_id(&bmc).await.unwrap_err();
        bmc.close().await;
        error
    };
    let wrong = Error::WrongPassword { user: "admin".to_string() };
    let refused = |user: &str| Error::UserRefused { user: user.to_string() };
    assert_eq!(try_in("admin", "Secret", Cipher::Auto).await, wrong);
    assert_eq!(try_in("admin", "Secret", Cipher::Legacy(Auth::Md5)).await, wrong);
    assert_eq!(try_in("nobody", "secret", Cipher::Auto).await, refused("nobody"));
    assert_eq!(try_in("gone", "secret", Cipher::Auto).await, refused("gone"));
    assert_eq!(try_in("nobody", "x", Cipher::Legacy(Auth::Md5)).await, refused("nobody"));
    let suite = Error::SuiteRefused { tried: vec![17] };
    assert_eq!(try_in("admin", "secret", Cipher::Suite(17)).await, suite);
}

#[tokio::test]
async fn nobody_there_and_somebody_else_there() {
    let patience = Patience { total: Duration::from_secs(2), ..Patience::default() };
    let host = Ipv4Addr::new(127, 44, 1, 4);
    let access = |port: u16| {
        let access = Access::new(host.to_string(), "admin", Password::new("x").unwrap());
        Access { port, patience, ..access }
    };
    // A port where nobody listens: the host says so.
    let bmc = Bmc::new(access(free_port(host)));
    assert!(matches!(device_id(&bmc).await, Err(Error::Network(_))));
    // One that swallows everything.
    let silent = UdpSocket::bind((host, 0)).unwrap();
    let bmc = Bmc::new(access(silent.local_addr().unwrap().port()));
    let error = device_id(&bmc).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    // One that sends everything back.
    let echo = tokio::net::UdpSocket::bind((host, 0)).await.unwrap();
    let port = echo.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = echo.recv_from(&mut buffer).await {
            let line = b"220 mail.example ESMTP\r\n";
            assert!(length > 0);
            echo.send_to(line, from).await.unwrap();
        }
    });
    let bmc = Bmc::new(access(port));
    let error = device_id(&bmc).await.unwrap_err();
    assert!(matches!(error, Error::NotABmc(_)), "{error}");
    let bmc = Bmc::new(Access { host: "no-such-host.invalid".to_string(), ..access(623) });
    assert!(matches!(device_id(&bmc).await, Err(Error::Network(_))));
}
