//! Users, as `/etc/passwd` and `/etc/group` have them.

use std::fs;

use rustix::process::{Gid, Uid, getuid};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub uid: Uid,
    pub gid: Gid,
    pub groups: Vec<Gid>,
    pub name: String,
    pub home: String,
    pub shell: String,
}

impl User {
    /// What a login sets.
    pub fn environment(&self) -> impl Iterator<Item = (String, String)> {
        let pairs =
            [("HOME", &self.home), ("USER", &self.name), ("LOGNAME", &self.name), ("SHELL", &self.shell)];
        pairs.map(|(key, value)| (key.to_owned(), value.clone())).into_iter()
    }
}

/// The user that is meant by `user`, `user:group` or numbers; the service's own if nothing is said.
pub fn find(wanted: Option<&str>) -> Result<User, String> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let own = getuid().as_raw().to_string();
    search(wanted.unwrap_or(&own), &read("/etc/passwd"), &read("/etc/group"))
}

fn search(wanted: &str, passwd: &str, group: &str) -> Result<User, String> {
    let (name, group_name) = match wanted.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (wanted, None),
    };
    let lines = |text: &'_ str| {
        text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect::<Vec<Vec<String>>>()
    };
    let (users, all_groups) = (lines(passwd), lines(group));
    let number = name.parse::<u32>().ok();
    // A name may look like a number.
    let by_name = users.iter().find(|line| line.first().is_some_and(|first| first == name));
    let by_number = || {
        users.iter().find(|line| number.is_some() && line.get(2).and_then(|uid| uid.parse().ok()) == number)
    };
    let line = by_name.or_else(by_number);
    let field =
        |n: usize| line.and_then(|line| line.get(n)).map(String::as_str).filter(|text| !text.is_empty());
    let uid = field(2).and_then(|uid| uid.parse().ok()).or(number);
    let uid = uid.ok_or_else(|| format!("unable to find user {name}: no matching entries in passwd file"))?;
    let gid = match group_name {
        None => field(3).and_then(|gid| gid.parse().ok()).unwrap_or(0),
        Some(group) => {
            let line = all_groups.iter().find(|line| line.first().is_some_and(|first| first == group));
            let gid = line.and_then(|line| line.get(2)).and_then(|gid| gid.parse().ok());
            gid.or_else(|| group.parse().ok())
                .ok_or_else(|| format!("unable to find group {group}: no matching entries in group file"))?
        }
    };
    let name = field(0).map_or_else(|| uid.to_string(), str::to_owned);
    let is_member =
        |line: &&Vec<String>| line.get(3).is_some_and(|list| list.split(',').any(|member| member == name));
    let mut groups = vec![Gid::from_raw(gid)];
    if group_name.is_none() {
        let others = all_groups.iter().filter(is_member).filter_map(|line| line.get(2)?.parse().ok());
        groups.extend(others.filter(|other| *other != gid).map(Gid::from_raw));
    }
    Ok(User {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups,
        home: field(5).unwrap_or("/").into(),
        shell: field(6).unwrap_or("/bin/sh").into(),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1001::/home/ann:\n7:x:70:70::/seven:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:bob,ann\nann:x:1001:\n";

    fn of(wanted: &str) -> (u32, Vec<u32>, String, String) {
        let user = search(wanted, PASSWD, GROUP).unwrap();
        assert_eq!(user.groups[0], user.gid);
        let groups = user.groups.iter().map(|gid| gid.as_raw()).collect();
        (user.uid.as_raw(), groups, user.name, user.home)
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        assert_eq!(of("ann"), (1000, vec![1001, 50], "ann".into(), "/home/ann".into()));
        assert_eq!(of("1000"), of("ann"));
        assert_eq!(of("ann:staff"), (1000, vec![50], "ann".into(), "/home/ann".into()));
        assert_eq!(of("ann:7"), (1000, vec![7], "ann".into(), "/home/ann".into()));
        assert_eq!(of("7").0, 70);
        assert_eq!(of("1234"), (1234, vec![0], "1234".into(), "/".into()));
    }

    #[test]
    fn unknown_users_and_groups_are_told() {
        assert!(search("bob", PASSWD, GROUP).unwrap_err().contains("bob"));
        assert!(search("ann:wheel", PASSWD, GROUP).unwrap_err().contains("wheel"));
    }
}
