//! Creates the user that jobs run as, its group, and its right to become root.

use super::super::log::Log;
use super::super::program::Program;
use super::super::{ImageError, at};
use super::settings::{Named, Settings};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// The file with the sudo rule. sudo reads it after `/etc/sudoers`, and the last rule that matches counts.
const SUDOERS: &str = "/etc/sudoers.d/dayfly";

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AccountError {
    #[error(
        "the {kind} {name} is there already, with the number {found} and not {wanted}: set {variable} to {found}, or name another {kind}"
    )]
    OtherNumber { kind: &'static str, name: String, found: String, wanted: u32, variable: &'static str },
    #[error("the number {id} is that of the {kind} {found}: set {variable} to another one")]
    Taken { kind: &'static str, id: u32, found: String, variable: &'static str },
    #[error("there is no group {0} that may become root: install sudo, or see BASE_SUDO")]
    NoSudo(String),
}

/// Creates the group.
pub(super) fn make_group(settings: &Settings, log: &Log) -> Result<(), ImageError> {
    run(group_plan(&settings.group, &read("/etc/group")?)?, log)
}

/// Creates the user, adds it to its groups, and lets it become root.
pub(super) fn make_user(settings: &Settings, log: &Log) -> Result<(), ImageError> {
    run(user_plan(settings, &read("/etc/passwd")?, &read("/etc/group")?)?, log)?;
    let path = Path::new(SUDOERS);
    let rule = format!("%{} ALL=(ALL:ALL) NOPASSWD:ALL\n", settings.sudo);
    // Created anew, because sudo ignores a file that others may write to.
    let _ = std::fs::remove_file(path);
    let new = std::fs::File::options().write(true).create_new(true).mode(0o440).open(path);
    new.and_then(|mut new| std::io::Write::write_all(&mut new, rule.as_bytes()))
        .map_err(at("cannot write", path))
}

fn run(lines: Vec<Vec<String>>, log: &Log) -> Result<(), ImageError> {
    lines.into_iter().try_for_each(|line| Ok(Program::new(line).run(log)?))
}

fn read(path: &'static str) -> Result<String, ImageError> {
    std::fs::read_to_string(path).map_err(at("cannot read", Path::new(path)))
}

fn group_plan(group: &Named, groups: &str) -> Result<Vec<Vec<String>>, AccountError> {
    if is_there("group", group, "BASE_GID", groups)? {
        return Ok(Vec::new());
    }
    Ok(vec![line(["groupadd", "--gid", &group.id.to_string(), &group.name])])
}

fn user_plan(settings: &Settings, users: &str, groups: &str) -> Result<Vec<Vec<String>>, AccountError> {
    let (user, sudo) = (&settings.user, &settings.sudo);
    let exists = |name: &str| number(groups, name).is_some();
    if !exists(sudo) {
        return Err(AccountError::NoSudo(sudo.clone()));
    }
    let mut lines = Vec::new();
    if !is_there("user", user, "BASE_UID", users)? {
        let (uid, gid) = (user.id.to_string(), settings.group.id.to_string());
        let add =
            ["useradd", "--uid", &uid, "--gid", &gid, "--create-home", "--shell", "/bin/bash", &user.name];
        lines.push(line(add));
    }
    // Docker's package creates its group.
    let more = if exists("docker") { format!("{sudo},docker") } else { sudo.clone() };
    lines.push(line(["usermod", "--append", "--groups", &more, &user.name]));
    Ok(lines)
}

fn line<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// Returns the number of an entry of `/etc/passwd` or `/etc/group`.
fn number<'a>(entries: &'a str, name: &str) -> Option<&'a str> {
    entries.lines().find(|line| line.split(':').next() == Some(name))?.split(':').nth(2)
}

/// Returns true if the entry exists as requested. Returns an error if another entry has its name or its number.
fn is_there(
    kind: &'static str,
    wanted: &Named,
    variable: &'static str,
    entries: &str,
) -> Result<bool, AccountError> {
    let id = wanted.id.to_string();
    if let Some(found) = number(entries, &wanted.name) {
        let (name, found) = (wanted.name.clone(), found.to_owned());
        let other =
            AccountError::OtherNumber { kind, name, found: found.clone(), wanted: wanted.id, variable };
        return if found == id { Ok(true) } else { Err(other) };
    }
    let holder = entries.lines().find(|line| line.split(':').nth(2) == Some(&id));
    match holder.and_then(|line| line.split(':').next()) {
        Some(found) => Err(AccountError::Taken { kind, id: wanted.id, found: found.to_owned(), variable }),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0:root:/root:/bin/bash\nubuntu:x:1000:1000::/home/ubuntu:/bin/bash\n";
    const GROUPS: &str = "root:x:0:\nsudo:x:27:\nubuntu:x:1000:\n";

    fn settings(id: u32) -> Settings {
        Settings {
            docker: false,
            user: Named { name: "runner".to_owned(), id },
            group: Named { name: "runner".to_owned(), id: 121 },
            sudo: "sudo".to_owned(),
            wrapper: None,
        }
    }

    fn user(id: u32, users: &str, groups: &str) -> String {
        match user_plan(&settings(id), users, groups) {
            Ok(lines) => lines.iter().map(|line| line.join(" ")).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_user_is_made_once_and_put_into_the_groups_that_there_are() {
        let add = "useradd --uid 1001 --gid 121 --create-home --shell /bin/bash runner\n";
        assert_eq!(user(1001, USERS, GROUPS), format!("{add}usermod --append --groups sudo runner"));
        let users = format!("{USERS}runner:x:1001:121::/home/runner:/bin/bash\n");
        let groups = format!("{GROUPS}docker:x:999:\n");
        assert_eq!(user(1001, &users, &groups), "usermod --append --groups sudo,docker runner");
    }

    #[test]
    fn a_name_or_a_number_that_is_anothers_is_an_error_that_says_what_to_set() {
        let taken = "the number 1000 is that of the user ubuntu: set BASE_UID to another one";
        assert_eq!(user(1000, USERS, GROUPS), taken);
        let users = "runner:x:1001:121::/home/runner:/bin/bash\n";
        let other = "the user runner is there already, with the number 1001 and not 1002: set BASE_UID to 1001, or name another user";
        assert_eq!(user(1002, users, GROUPS), other);
        let error = "there is no group sudo that may become root: install sudo, or see BASE_SUDO";
        assert_eq!(user(1001, USERS, "root:x:0:\n"), error);
    }

    #[test]
    fn a_group_is_made_unless_it_is_there() {
        let group = Named { name: "runner".to_owned(), id: 121 };
        assert_eq!(group_plan(&group, GROUPS), Ok(vec![line(["groupadd", "--gid", "121", "runner"])]));
        assert_eq!(group_plan(&group, "runner:x:121:\n"), Ok(Vec::new()));
        let taken = group_plan(&group, "messagebus:x:121:\n").expect_err("taken").to_string();
        assert_eq!(taken, "the number 121 is that of the group messagebus: set BASE_GID to another one");
    }
}
