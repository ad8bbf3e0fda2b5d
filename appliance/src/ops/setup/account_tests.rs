use std::path::PathBuf;

use koboshi_bmcsim::user::{self as sim, User as Kept};
use koboshi_bmcsim::{Config, Sim};

use super::*;
use crate::site::Site;
use crate::site::tests::site as loaded;

const OURS: &str = "open-sesame-42";
const THEIRS: &str = "ADMIN-4711";

/// A BMC with accounts, and a site that has it.
struct World {
    dir: tempfile::TempDir,
    sim: Sim,
    site: Site,
    bmcs: Bmcs,
}

fn password(text: &str) -> Password {
    Password::new(text).expect("it is short")
}

fn kept(name: &str, text: &str, limit: sim::Privilege) -> Kept {
    Kept::new(name, password(text), limit)
}

fn factory() -> Kept {
    kept("ADMIN", THEIRS, sim::Privilege::Admin)
}

impl World {
    fn new(users: Vec<Kept>) -> World {
        let config = Config { users, ..Config::default() };
        World::with(config, OURS, None)
    }

    fn with(config: Config, ours: &str, port: Option<u16>) -> World {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("ours"), ours).expect("written");
        std::fs::write(dir.path().join("theirs"), THEIRS).expect("written");
        let sim = Sim::start(config).expect("a BMC");
        let port = port.unwrap_or(sim.addr().port());
        let site = loaded(&format!(
            "[net]\ninterface = \"eth1\"\n[defaults.bmc]\nuser = \"admin\"\npassword-file = {:?}\n\
             [machines]\nm01 = {{ mac = \"52:54:00:77:00:01\", bmc = {{ host = \"127.0.0.1\", port = {port} }} }}\n",
            dir.path().join("ours")
        ));
        let mut bmcs = Bmcs::passing(None, |_| {});
        bmcs.be_patient(Some(Duration::from_millis(600)));
        World { dir, sim, site, bmcs }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn by_factory(&self, disable: bool) -> Account {
        let password_file = self.file("theirs");
        Account { factory: Some(Factory { user: "ADMIN".into(), password_file }), disable }
    }

    async fn ensure(&self, account: &Account) -> Told {
        let name: MachineName = "m01".parse().expect("a name");
        let machine = self.site.machines.get(&name).expect("it is there");
        let patience =
            Patience { silent: Duration::from_millis(300), pause: Duration::from_millis(20) };
        let told = ensure(&self.bmcs, (&name, machine), account, patience).await;
        let said = format!("{told:?}");
        assert!(!said.contains(OURS) && !said.contains(THEIRS), "{said}");
        told
    }

    fn account(&self, id: u8) -> Kept {
        self.sim.with(|bmc| bmc.users.by_id(id).expect("an account").clone())
    }
}

#[tokio::test]
async fn the_factory_makes_the_account_and_goes_when_it_is_proved() {
    let world = World::new(vec![factory()]);
    let told = world.ensure(&world.by_factory(false)).await;
    assert_eq!(told.failed, None);
    assert_eq!(told.did[0], "user 3, admin, was made by ADMIN as administrator");
    assert_eq!(told.did[1], "admin logs in");
    let made = world.account(3);
    assert!(made.name == b"admin" && made.may_log_in() && made.sol, "{made:?}");
    assert_eq!(made.limit, Some(sim::Privilege::Admin));
    assert!(!made.twenty, "one of 16 bytes is good for IPMI 1.5 too");
    assert!(world.account(2).may_log_in(), "nobody asked for it to go");

    // Done twice it does nothing, and the factory's account can go now.
    std::fs::write(world.file("theirs"), "not that").expect("written");
    let told = world.ensure(&world.by_factory(true)).await;
    assert_eq!(told.failed, None);
    assert_eq!(told.did, ["its BMC knows admin as administrator already", "ADMIN is disabled"]);
    assert!(!world.account(2).may_log_in() && world.account(3).may_log_in());
    let told = world.ensure(&world.by_factory(true)).await;
    assert_eq!(told.did[1], "ADMIN was disabled already");
}

#[tokio::test]
async fn an_account_that_is_right_is_left_alone() {
    let world = World::new(vec![factory(), kept("admin", OURS, sim::Privilege::Admin)]);
    let told = world.ensure(&Account::default()).await;
    assert_eq!((told.did.len(), told.failed), (1, None));
    assert!(world.account(2).may_log_in() && world.account(4).name.is_empty());
}

#[tokio::test]
async fn one_with_another_password_or_too_little_privilege_is_renewed() {
    for wrong in [
        kept("admin", "another", sim::Privilege::Admin),
        kept("admin", OURS, sim::Privilege::Operator),
        kept("admin", OURS, sim::Privilege::User),
        Kept { enabled: false, ..kept("admin", OURS, sim::Privilege::Admin) },
    ] {
        let world = World::new(vec![factory(), wrong]);
        let told = world.ensure(&world.by_factory(true)).await;
        assert_eq!(told.failed, None, "{:?}", told.did);
        assert_eq!(told.did[0], "user 3, admin, was renewed by ADMIN as administrator");
        assert_eq!(told.did[2], "ADMIN is disabled");
        assert!(world.account(4).name.is_empty(), "no second one of that name");
    }
}

#[tokio::test]
async fn the_sites_name_may_be_the_factorys_with_another_password() {
    let world = World::new(vec![kept("admin", THEIRS, sim::Privilege::Admin)]);
    let password_file = world.file("theirs");
    let factory = Some(Factory { user: "admin".into(), password_file });
    let told = world.ensure(&Account { factory, disable: false }).await;
    assert_eq!(told.failed, None);
    assert_eq!(told.did[0], "user 2, admin, was renewed by admin as administrator");
}

#[tokio::test]
async fn a_wrong_factory_password_changes_nothing() {
    let world = World::new(vec![factory()]);
    std::fs::write(world.file("theirs"), "nobody's").expect("written");
    let told = world.ensure(&world.by_factory(true)).await;
    let failed = told.failed.expect("it is refused");
    assert!(told.did.is_empty() && failed.contains("refuses the factory account too"), "{failed}");
    assert!(failed.contains("nothing was changed"), "{failed}");
    assert!(world.account(2).may_log_in() && world.account(3).name.is_empty());
    // Nor does one that cannot be read any more, or none at all.
    std::fs::remove_file(world.file("theirs")).expect("removed");
    let failed = world.ensure(&world.by_factory(false)).await.failed.expect("no file");
    assert!(failed.contains("theirs: No such file"), "{failed}");
    let failed = world.ensure(&Account::default()).await.failed.expect("no factory");
    assert!(failed.contains("--factory-user NAME"), "{failed}");
}

#[tokio::test]
async fn a_silent_bmc_is_told_from_one_that_refuses() {
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = nobody.local_addr().expect("an address").port();
    let world = World::with(Config::with_admin("ADMIN", password(THEIRS)), OURS, Some(port));
    let told = world.ensure(&world.by_factory(false)).await;
    let failed = told.failed.expect("nobody answers");
    assert!(failed.contains("its BMC at 127.0.0.1 could not be asked"), "{failed}");
    assert!(failed.contains("its accounts are as they were"), "{failed}");
    assert!(told.did.is_empty());
}

#[tokio::test]
async fn a_bmc_that_is_full_says_so() {
    let mut users = vec![factory()];
    users.extend((0..14).map(|n| kept(&format!("u{n}"), "x", sim::Privilege::User)));
    let world = World::new(users);
    let failed = world.ensure(&world.by_factory(true)).await.failed.expect("no room");
    assert!(failed.contains("no room for another account"), "{failed}");
    assert!(world.account(2).may_log_in());
}

#[tokio::test]
async fn a_long_password_is_kept_at_twenty_bytes() {
    let long = "seventeen bytes..";
    let config = Config { users: vec![factory()], ..Config::default() };
    let world = World::with(config, long, None);
    let told = world.ensure(&world.by_factory(false)).await;
    assert_eq!(told.failed, None);
    assert!(world.account(3).twenty);
}

#[test]
fn a_free_id_is_neither_the_nameless_nor_a_fixed_one() {
    use koboshi_ipmi::commands::user::UserAccess;
    let user = |id: u8, name: &str| {
        let limit = Limit::Admin;
        let access = UserAccess { callback: false, link: false, messaging: true, limit };
        User { id, name: name.into(), enabled: Some(true), access, sol: None }
    };
    let users = [user(2, "ADMIN"), user(4, "ops")];
    assert_eq!(slot(&users, 10, 0, "admin"), Some(3));
    assert_eq!(slot(&users, 10, 4, "admin"), Some(5));
    assert_eq!(slot(&users, 10, 1, "ops"), Some(4));
    assert_eq!(slot(&users, 2, 0, "admin"), None);
    assert_eq!(slot(&[], 1, 255, "admin"), None);
}
