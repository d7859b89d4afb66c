//! Reads `roles.toml`: which users, groups and systemd units have which roles.
//!
//! Names of users and groups are resolved when the file is read, and never again: a name that is another user's later gives that
//! one nothing. Who is a member of a group the kernel says of the one who asks.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use stockade_policies::reader::{self, Known, Section};
use stockade_policies::{Mistake, Position, Problem};

/// The file's name, in the directory of configuration.
pub const FILE: &str = "roles.toml";
/// Roles that shipped rules speak of. They needn't stand in the file: then nobody has them.
pub const SHIPPED: [&str; 5] = ["admin", "operator", "client", "auditor", "approver"];
/// The longest name of a unit, in bytes: systemd's own bound is 255, and a user's unit has its user's before it.
const MAX_UNIT: usize = 300;

const ROLE: Known<'_> = Known { key: "roles", name: "[roles.NAME]", keys: &["users", "groups", "units"] };
const USER_EXPECTED: &str = "a user's name or uid, as a text";
const GROUP_EXPECTED: &str = "a group's name or gid, as a text";
const UNIT_EXPECTED: &str =
    "a unit: `NAME.service` or `NAME.scope` of the system, `user@UID.service/NAME.service` of a user's";

/// Somebody whose number is to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account<'a> {
    /// A user, by name.
    User(&'a str),
    /// A group, by name.
    Group(&'a str),
}

/// A user or a group as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// As it's written.
    pub said: String,
    /// What that was when the file was read.
    pub id: u32,
}

/// Who has a role.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Users.
    pub users: Vec<Member>,
    /// Groups.
    pub groups: Vec<Member>,
    /// Units.
    pub units: Vec<String>,
}

/// All roles. Whose they are is looked up and never searched: a thousand roles cost nobody's request anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Roles {
    roles: BTreeMap<String, Members>,
    of_users: HashMap<u32, BTreeSet<String>>,
    of_groups: HashMap<u32, BTreeSet<String>>,
    of_units: HashMap<String, BTreeSet<String>>,
}

impl Roles {
    fn put(&mut self, role: String, members: Members) {
        for user in &members.users {
            self.of_users.entry(user.id).or_default().insert(role.clone());
        }
        for group in &members.groups {
            self.of_groups.entry(group.id).or_default().insert(role.clone());
        }
        for unit in &members.units {
            self.of_units.entry(unit.clone()).or_default().insert(role.clone());
        }
        self.roles.insert(role, members);
    }

    /// The roles of somebody, as the kernel knows him.
    #[must_use]
    pub fn of(&self, uid: u32, gids: &[u32], unit: Option<&str>) -> BTreeSet<String> {
        let by_group = gids.iter().filter_map(|gid| self.of_groups.get(gid));
        let by_unit = unit.and_then(|unit| self.of_units.get(unit));
        self.of_users.get(&uid).into_iter().chain(by_group).chain(by_unit).flatten().cloned().collect()
    }

    /// Whether there is a role of this name: the file's, or a shipped one.
    #[must_use]
    pub fn is_one(&self, name: &str) -> bool {
        SHIPPED.contains(&name) || self.roles.contains_key(name)
    }

    /// Their names and who has them.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Members)> {
        self.roles.iter().map(|(name, members)| (name.as_str(), members))
    }

    /// All names: the file's, and the shipped ones.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.roles.keys().map(String::as_str).chain(SHIPPED)
    }
}

/// Reads a text. `file`: as errors name it; `look_up`: what a name's number is, if there is such a one.
///
/// # Errors
/// All that is wrong with it, in its order; at least one mistake.
pub fn read(
    file: &str,
    text: &str,
    look_up: &dyn Fn(Account<'_>) -> Option<u32>,
) -> Result<Roles, Vec<Mistake>> {
    let mut roles = Roles::default();
    let mut mistakes = Vec::new();
    reader::document((file, text), (FILE, &[ROLE.key]), &mut mistakes, |root, mistakes| {
        for (name, section) in root.named(&ROLE, mistakes) {
            let members = members(&section, look_up, mistakes);
            roles.put(name.value, members);
        }
    });
    mistakes.sort_by_key(|mistake| (mistake.at.line, mistake.at.column));
    if mistakes.is_empty() { Ok(roles) } else { Err(mistakes) }
}

fn members(
    section: &Section<'_>,
    look_up: &dyn Fn(Account<'_>) -> Option<u32>,
    mistakes: &mut Vec<Mistake>,
) -> Members {
    let mut numbered = |key: &str, expected: &'static str, kind: for<'n> fn(&'n str) -> Account<'n>| {
        let texts = texts(section, key, expected, |text| named(text).map(ToOwned::to_owned), mistakes);
        let mut found = Vec::new();
        for (said, at) in texts {
            match number(&said).or_else(|| look_up(kind(&said))) {
                Some(id) => found.push(Member { said, id }),
                None => mistakes.push(unknown(&at, key, &said)),
            }
        }
        found
    };
    let users = numbered("users", USER_EXPECTED, |name| Account::User(name));
    let groups = numbered("groups", GROUP_EXPECTED, |name| Account::Group(name));
    let units = texts(section, "units", UNIT_EXPECTED, |text| unit(text).map(ToOwned::to_owned), mistakes);
    Members { users, groups, units: units.into_iter().map(|(unit, _)| unit).collect() }
}

fn texts(
    section: &Section<'_>,
    key: &str,
    expected: &'static str,
    parse: impl Fn(&str) -> Result<String, String>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<(String, Position)> {
    match section.list(key, expected, parse, ToOwned::to_owned) {
        Ok(list) => list.into_iter().flatten().map(|one| (one.value, one.at)).collect(),
        Err(mistake) => {
            mistakes.push(mistake);
            Vec::new()
        }
    }
}

fn unknown(at: &Position, key: &str, said: &str) -> Mistake {
    let reason = format!("there is no `{}` on this machine", said.escape_debug());
    let expected = "one that there is: a name is looked up when this file is read".into();
    Mistake::new(at, Problem::Value { key: key.into(), reason, expected })
}

/// Digits are always a number, whoever may be called so. The highest is nobody: -1.
fn number(said: &str) -> Option<u32> {
    let digits = said.bytes().all(|byte| byte.is_ascii_digit());
    said.parse().ok().filter(|id| digits && *id != u32::MAX)
}

fn named(text: &str) -> Result<&str, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if text.is_empty() || text.len() > 256 || text.contains([':', '\n', '\0']) || text.starts_with(['-', '+'])
    {
        return Err("no name of an account".into());
    }
    if is_number && number(text).is_none() { Err("no number of an account".into()) } else { Ok(text) }
}

fn unit(text: &str) -> Result<&str, String> {
    let own = match text.split_once('/') {
        Some((manager, own)) => {
            let uid = manager.strip_prefix("user@").and_then(|rest| rest.strip_suffix(".service"));
            if uid.and_then(number).is_none() {
                return Err("what stands before the `/` is no user's manager".into());
            }
            own
        }
        None => text,
    };
    let stem = own.strip_suffix(".service").or_else(|| own.strip_suffix(".scope"));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    if text.len() <= MAX_UNIT && stem.is_some_and(|stem| !stem.is_empty() && stem.bytes().all(allowed)) {
        Ok(text)
    } else {
        Err("no unit's name".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look_up(account: Account<'_>) -> Option<u32> {
        match account {
            Account::User("alice") => Some(1_000),
            Account::Group("ops") => Some(50),
            _ => None,
        }
    }

    fn roles(text: &str) -> Roles {
        read("roles.toml", text, &look_up).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    #[test]
    fn a_role_is_had_by_uid_by_a_group_of_the_kernels_or_by_unit_and_by_nothing_else() {
        let roles = roles(
            "[roles.operator]\nusers = [\"alice\", \"7\"]\ngroups = [\"ops\"]\nunits = [\"deploy.service\"]\n[roles.own]\n",
        );
        let has = |uid, gids: &[u32], unit| !roles.of(uid, gids, unit).is_empty();
        assert!(has(1_000, &[], None) && has(7, &[], None) && has(9, &[3, 50], None));
        assert!(has(9, &[], Some("deploy.service")));
        // A user can call a unit of his own as he likes.
        for unit in [None, Some("user@9.service/deploy.service"), Some("deploy.scope"), Some("")] {
            assert!(!has(9, &[51], unit), "{unit:?}");
        }
        assert!(roles.is_one("own") && roles.is_one("admin") && !roles.is_one("owm"));
    }

    #[test]
    fn what_nobody_is_called_and_what_no_unit_is_called_is_a_mistake_at_its_place() {
        let table = [
            ("[roles.a]\nusers = [\"bob\"]", "roles.toml:2:10: `users`: there is no `bob`"),
            ("[roles.a]\ngroups = [\"wheel\"]", "roles.toml:2:11: `groups`: there is no `wheel`"),
            ("[roles.a]\nusers = [\"4294967295\"]", "roles.toml:2:10: `users`: no number"),
            ("[roles.a]\nusers = [\"99999999999\"]", "roles.toml:2:10: `users`: no number"),
            ("[roles.a]\nusers = [\"\"]", "roles.toml:2:10: `users`: no name"),
            ("[roles.a]\nusers = [1000]", "roles.toml:2:10: `[roles.NAME] users` is an integer"),
            ("[roles.a]\nunits = [\"deploy\"]", "roles.toml:2:10: `units`: no unit's name"),
            ("[roles.a]\nunits = [\"x/deploy.service\"]", "roles.toml:2:10: `units`: what stands before"),
            ("[roles.a]\nunits = [\".service\"]", "roles.toml:2:10: `units`: no unit's name"),
            ("[roles.a]\nuser = [\"alice\"]", "roles.toml:2:1: unknown key `user`"),
            ("[role.a]\n", "roles.toml:1:2: unknown key `role` in roles.toml"),
        ];
        for (text, expected) in table {
            let mistakes = read("roles.toml", text, &look_up).unwrap_err();
            assert!(mistakes[0].to_string().starts_with(expected), "{} for {text}", mistakes[0]);
        }
    }
}
