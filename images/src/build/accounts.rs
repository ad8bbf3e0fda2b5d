//! Accounts of a recipe, written as `useradd` would (passwd(5), shadow(5), group(5)), each with `*`
//! for a password: no password matches it, and a key still may.

use crate::recipe::User;

/// From here on people have their numbers (login.defs, UID_MIN); 65534 is nobody.
const PEOPLE: std::ops::Range<u32> = 1000..60000;
/// Groups that packages and recipes make (adduser.conf, FIRST_SYSTEM_GID).
const SYSTEM: std::ops::Range<u32> = 100..1000;
/// Of the last change, in days since 1970: the same in every build.
const CHANGED: u32 = 19_000;

/// The account files of a root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Accounts {
    pub(super) passwd: String,
    pub(super) shadow: String,
    pub(super) group: String,
    /// Where the root has one.
    pub(super) gshadow: Option<String>,
}

impl Accounts {
    /// Adds a user, and says its number; one that is there already keeps it and its line.
    pub(super) fn add(&mut self, user: &User) -> Result<u32, String> {
        let name = &user.name;
        let uid = match field(&self.passwd, name, 2) {
            Some(uid) => {
                let uid = uid.parse().map_err(|_| format!("user {name} has no number"))?;
                if user.uid.is_some_and(|wanted| wanted != uid) {
                    return Err(format!("user {name} is there already, with number {uid}"));
                }
                uid
            }
            None => self.make(user)?,
        };
        for group in &user.groups {
            if field(&self.group, group, 2).is_none() {
                let gid = free(&self.group, SYSTEM).ok_or("no number is left for a group")?;
                self.make_group(group, gid);
            }
            self.group = joined(&self.group, group, name);
            self.gshadow = self.gshadow.as_ref().map(|text| joined(text, group, name));
        }
        Ok(uid)
    }

    fn make(&mut self, user: &User) -> Result<u32, String> {
        let name = &user.name;
        let both = format!("{}\n{}", self.passwd, self.group);
        let uid = match user.uid {
            Some(uid) => uid,
            None => free(&both, PEOPLE).ok_or("no number is left for a user")?,
        };
        if let Some(other) = holder(&self.passwd, uid) {
            return Err(format!("user {name}: number {uid} is {other}'s"));
        }
        let gid = match field(&self.group, name, 2) {
            Some(gid) => gid.parse().map_err(|_| format!("group {name} has no number"))?,
            None => {
                if let Some(other) = holder(&self.group, uid) {
                    return Err(format!("group {name}: number {uid} is {other}'s"));
                }
                self.make_group(name, uid);
                uid
            }
        };
        let (home, shell) = (user.home(), &user.shell);
        append(&mut self.passwd, &format!("{name}:x:{uid}:{gid}::{home}:{shell}"));
        if field(&self.shadow, name, 1).is_none() {
            append(&mut self.shadow, &format!("{name}:*:{CHANGED}:0:99999:7:::"));
        }
        Ok(uid)
    }

    fn make_group(&mut self, name: &str, gid: u32) {
        append(&mut self.group, &format!("{name}:x:{gid}:"));
        if let Some(gshadow) = &mut self.gshadow {
            append(gshadow, &format!("{name}:*::"));
        }
    }
}

fn append(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
}

/// A field of the line that begins with `name`.
fn field<'t>(text: &'t str, name: &str, at: usize) -> Option<&'t str> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(at)
}

/// Who has a number.
fn holder(text: &str, id: u32) -> Option<&str> {
    let line = text.lines().find(|line| {
        line.split(':').nth(2).and_then(|text| text.parse::<u32>().ok()) == Some(id)
    })?;
    line.split(':').next()
}

/// The first number nobody has.
fn free(text: &str, mut range: std::ops::Range<u32>) -> Option<u32> {
    range.find(|id| holder(text, *id).is_none())
}

/// The text with `user` among the members of `group`.
fn joined(text: &str, group: &str, user: &str) -> String {
    let line = |line: &str| match line.rsplit_once(':') {
        Some((before, members)) if line.split(':').next() == Some(group) => {
            let has = members.split(',').any(|member| member == user);
            let comma = if members.is_empty() || has { "" } else { "," };
            format!("{before}:{members}{comma}{}\n", if has { "" } else { user })
        }
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(toml: &str) -> User {
        toml::from_str(toml).unwrap()
    }

    fn accounts() -> Accounts {
        Accounts {
            passwd: "root:x:0:0:root:/root:/bin/bash\nold:x:1000:1000::/home/old:/bin/sh".into(),
            shadow: "root:*:19000:0:99999:7:::\n".into(),
            group: "root:x:0:\nadm:x:4:syslog\nold:x:1000:\n".into(),
            gshadow: Some("root:*::\nadm:*::syslog\n".into()),
        }
    }

    #[test]
    fn users_are_added_as_useradd_does_and_twice_is_once() {
        let mut accounts = accounts();
        let ops = user("name = 'ops'\ngroups = ['adm', 'wheel']\nkeys = ['ssh-ed25519 AAAA']");
        assert_eq!(accounts.add(&ops), Ok(1001));
        assert!(accounts.passwd.ends_with("\nops:x:1001:1001::/home/ops:/bin/bash\n"));
        assert!(accounts.passwd.contains("/bin/sh\nops"), "a last line without its end");
        assert!(accounts.shadow.ends_with("\nops:*:19000:0:99999:7:::\n"));
        let group = "root:x:0:\nadm:x:4:syslog,ops\nold:x:1000:\nops:x:1001:\nwheel:x:100:ops\n";
        assert_eq!(accounts.group, group);
        let gshadow = "root:*::\nadm:*::syslog,ops\nops:*::\nwheel:*::ops\n";
        assert_eq!(accounts.gshadow.as_deref(), Some(gshadow));
        let once = accounts.clone();
        assert_eq!(accounts.add(&ops), Ok(1001));
        assert_eq!(accounts, once);
    }

    #[test]
    fn numbers_belong_to_one() {
        let mut accounts = accounts();
        assert_eq!(accounts.add(&user("name = 'db'\nuid = 999\nhome = '/srv'")), Ok(999));
        assert!(accounts.passwd.contains("db:x:999:999::/srv:"));
        let said = accounts.add(&user("name = 'other'\nuid = 999")).unwrap_err();
        assert_eq!(said, "user other: number 999 is db's");
        assert!(accounts.add(&user("name = 'old'\nuid = 7")).is_err());
        assert_eq!(accounts.add(&user("name = 'old'")), Ok(1000));
        let said = accounts.add(&user("name = 'x'\nuid = 4")).unwrap_err();
        assert_eq!(said, "group x: number 4 is adm's");
    }
}
