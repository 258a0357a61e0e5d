//! What the host adds to an image from elsewhere, so that a job can run in it, and what it still lacks.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use dayfly_guest::envfile;
use dayfly_guest::environment::IMAGE_ENV;

use super::manifest::NO_DOCKER;
use super::runner_app::{self, RunnerApp};
use crate::oci::layer::{Attributes, Content, Tree};

/// The user that jobs run as where no other is named, and its id where that is free.
const USER: &str = "runner";
const USER_ID: u32 = 1001;
/// Where the entrypoint looks for runner apps, and what it looks for.
const APP_PLACES: [&str; 3] = ["opt/runner", "opt/actions-runner", "home/runner"];
const APP_PROGRAMS: [&str; 2] = ["bin/Runner.Listener", "github-act-runner"];

/// What jobs usually need, and the places of which one is enough.
const WANTED: [(&str, &[&str]); 8] = [
    ("sh", &["bin/sh"]),
    ("bash", &["bin/bash", "usr/local/bin/bash"]),
    // The lab's steps end with all that they have started through it.
    ("setpriv", &["usr/bin/setpriv", "bin/setpriv"]),
    ("git", &["usr/bin/git", "usr/local/bin/git", "bin/git"]),
    ("sudo", &["usr/bin/sudo", "usr/local/bin/sudo"]),
    (
        "certificate authorities",
        &["etc/ssl/certs/ca-certificates.crt", "etc/pki/tls/certs/ca-bundle.crt", "etc/ssl/cert.pem"],
    ),
    ("modprobe", &["sbin/modprobe", "usr/sbin/modprobe"]),
    (NO_DOCKER, &["usr/bin/dockerd", "usr/sbin/dockerd"]),
];

/// What an image lacks for jobs, in words.
pub(super) fn lacks(tree: &Tree) -> Vec<String> {
    let is_there = |places: &&[&str]| places.iter().any(|place| tree.content(place).is_some());
    let missing = WANTED.iter().filter(|(_, places)| !is_there(places));
    missing.map(|(name, _)| (*name).to_owned()).collect()
}

/// Whether the image has a runner app of its own.
pub(super) fn has_runner_app(tree: &Tree) -> bool {
    let in_folder = |folder: &str| {
        APP_PROGRAMS.iter().any(|program| tree.content(&format!("{folder}/{program}")).is_some())
    };
    APP_PLACES.iter().any(|place| {
        let versions = tree.names(place).into_iter().filter(|name| name.starts_with("runner-"));
        in_folder(place) || versions.into_iter().any(|name| in_folder(&format!("{place}/{name}")))
    })
}

/// Puts the host's runner app where dayfly's own images have it.
pub(super) fn add_runner_app(tree: &mut Tree, app: &RunnerApp, user: u32) -> Result<(), String> {
    let owned = |mode| Attributes { mode, uid: user, gid: user, ..Attributes::default() };
    for folder in ["opt/runner", "opt/hostedtoolcache"] {
        tree.put_own(folder, owned(0o755), Content::Folder)?;
    }
    for (name, file) in [(runner_app::PROGRAM, &app.program), (runner_app::STANDBY, &app.standby)] {
        let size = fs::metadata(file).map_err(|error| format!("{}: {error}", file.display()))?.len();
        let content = Content::Host { path: file.clone(), size };
        tree.put_own(&format!("opt/runner/{name}"), owned(0o755), content)?;
    }
    Ok(())
}

/// Makes sure that there is a user for jobs. Returns its id, and whether it was added.
pub(super) fn add_user(tree: &mut Tree) -> Result<(u32, bool), String> {
    let text = |tree: &Tree, path: &str| {
        tree.text(path).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
    };
    let (mut passwd, mut group) = (text(tree, "etc/passwd"), text(tree, "etc/group"));
    if let Some(id) = id_of(&passwd, USER) {
        return Ok((id, false));
    }
    if passwd.is_empty() {
        passwd = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
    }
    if group.is_empty() {
        group = "root:x:0:\n".to_owned();
    }
    let taken: Vec<u32> = [&passwd, &group].into_iter().flat_map(|text| ids(text)).collect();
    let id = (USER_ID..u32::MAX).find(|id| !taken.contains(id)).unwrap_or(USER_ID);
    let group_id = id_of(&group, USER).unwrap_or(id);
    let shell = if tree.content("bin/bash").is_some() { "/bin/bash" } else { "/bin/sh" };
    push_line(&mut passwd, &format!("{USER}:x:{id}:{group_id}::/home/{USER}:{shell}"));
    if id_of(&group, USER).is_none() {
        push_line(&mut group, &format!("{USER}:x:{group_id}:"));
    }
    let group = with_member(&group, "docker", USER);
    let mut files = vec![("etc/passwd", passwd, 0o644), ("etc/group", group, 0o644)];
    let mut shadow = text(tree, "etc/shadow");
    if !shadow.is_empty() {
        // No password, so no login by one.
        push_line(&mut shadow, &format!("{USER}:*:20000:0:99999:7:::"));
        files.push(("etc/shadow", shadow, 0o640));
    }
    for (path, text, mode) in files {
        let made = Attributes { mode, ..Attributes::default() };
        let attributes = tree.attributes(path).cloned().unwrap_or(made);
        tree.put_own(path, attributes, Content::Bytes(Arc::from(text.into_bytes())))?;
    }
    let home = Attributes { mode: 0o755, uid: id, gid: group_id, ..Attributes::default() };
    tree.put_own(&format!("home/{USER}"), home, Content::Folder)?;
    Ok((id, true))
}

/// Lets the user become root without a password, where `sudo` is there.
pub(super) fn add_sudo(tree: &mut Tree) -> Result<bool, String> {
    let is_there =
        tree.content("usr/bin/sudo").is_some() && tree.content("etc/sudoers.d") == Some(&Content::Folder);
    if is_there {
        let rule = format!("{USER} ALL=(ALL:ALL) NOPASSWD:ALL\nDefaults:{USER} !requiretty\n");
        let attributes = Attributes { mode: 0o440, ..Attributes::default() };
        tree.put_own("etc/sudoers.d/runner", attributes, Content::Bytes(Arc::from(rule.into_bytes())))?;
    }
    Ok(is_there)
}

/// Writes down what the image says of its programs' environment, for the entrypoint in it. Returns the variables that no
/// program could be given: those with a name that no shell would take, or set twice.
pub(super) fn add_environment(tree: &mut Tree, env: &[String]) -> Result<Vec<String>, String> {
    let (mut kept, mut left_out): (Vec<(&str, &str)>, _) = (Vec::new(), Vec::new());
    for variable in env {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        kept.retain(|(earlier, _)| *earlier != name);
        match envfile::render(&[(name, value)]) {
            Ok(_) => kept.push((name, value)),
            Err(_) => left_out.push(name.to_owned()),
        }
    }
    if !kept.is_empty() {
        let text = envfile::render(&kept).map_err(|error| format!("its ENV: {error}"))?;
        let attributes = Attributes { mode: 0o644, ..Attributes::default() };
        let content = Content::Bytes(Arc::from(text.into_bytes()));
        tree.put_own(IMAGE_ENV.trim_start_matches('/'), attributes, content)?;
    }
    Ok(left_out)
}

/// Puts all files of a folder of the host into the image, as root's.
pub(super) fn add_folder(tree: &mut Tree, host: &Path, path: &str) -> Result<(), String> {
    let of_host = |error: io::Error| format!("{}: {error}", host.display());
    tree.put_own(path, Attributes { mode: 0o755, ..Attributes::default() }, Content::Folder)?;
    for entry in fs::read_dir(host).map_err(of_host)? {
        let entry = entry.map_err(of_host)?;
        let name =
            entry.file_name().into_string().map_err(|name| format!("{}: a strange name", name.display()))?;
        let metadata = entry.metadata().map_err(of_host)?;
        let below = format!("{path}/{name}");
        if metadata.is_dir() {
            add_folder(tree, &entry.path(), &below)?;
        } else if metadata.is_file() {
            let content = Content::Host { path: entry.path(), size: metadata.len() };
            tree.put_own(&below, Attributes { mode: 0o644, ..Attributes::default() }, content)?;
        }
    }
    Ok(())
}

/// The id of a user or group by its name.
fn id_of(text: &str, name: &str) -> Option<u32> {
    let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn ids(text: &str) -> Vec<u32> {
    text.lines().filter_map(|line| line.split(':').nth(2)?.parse().ok()).collect()
}

fn push_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
}

/// A list of groups with one more member in one of them, where that is there.
fn with_member(groups: &str, name: &str, member: &str) -> String {
    let with = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
        [found, password, id, members] if found == name => {
            let members = if members.is_empty() { member.to_owned() } else { format!("{members},{member}") };
            format!("{found}:{password}:{id}:{members}\n")
        }
        _ => format!("{line}\n"),
    };
    groups.lines().map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::layer::Limits;

    fn with_files(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(&Limits::default());
        for (path, text) in files {
            let content = Content::Bytes(Arc::from(text.as_bytes()));
            tree.put_own(path, Attributes { mode: 0o600, ..Attributes::default() }, content).expect("put");
        }
        tree
    }

    fn text(tree: &Tree, path: &str) -> String {
        String::from_utf8_lossy(tree.text(path).expect(path)).into_owned()
    }

    #[test]
    fn a_user_for_jobs_is_added_with_an_id_that_is_free() {
        let mut tree = with_files(&[
            ("etc/passwd", "root:x:0:0:root:/root:/bin/bash\nubuntu:x:1001:1001::/home/ubuntu:/bin/bash"),
            ("etc/group", "root:x:0:\ndocker:x:999:ubuntu\nubuntu:x:1001:\n"),
            ("etc/shadow", "root:*:1::::::\n"),
            ("bin/bash", ""),
        ]);
        assert_eq!(add_user(&mut tree), Ok((1002, true)));
        assert!(text(&tree, "etc/passwd").ends_with("\nrunner:x:1002:1002::/home/runner:/bin/bash\n"));
        assert_eq!(
            text(&tree, "etc/group"),
            "root:x:0:\ndocker:x:999:ubuntu,runner\nubuntu:x:1001:\nrunner:x:1002:\n"
        );
        assert_eq!(tree.attributes("etc/shadow").expect("there").mode, 0o600, "as it was");
        assert_eq!(tree.attributes("home/runner").expect("there").uid, 1002);
        assert_eq!(add_user(&mut tree), Ok((1002, false)));
        assert_eq!(add_sudo(&mut tree), Ok(false));
    }

    #[test]
    fn what_the_image_sets_is_written_down_as_far_as_a_program_could_have_it() {
        let mut tree = with_files(&[]);
        assert_eq!(add_environment(&mut tree, &[]), Ok(Vec::new()));
        assert!(tree.content("etc/dayfly/image.env").is_none());
        let env = ["PATH=/go/bin:/bin", "A=1", "my.name=2", "A=it's", "EMPTY="].map(str::to_owned);
        assert_eq!(add_environment(&mut tree, &env), Ok(vec!["my.name".to_owned()]));
        assert_eq!(text(&tree, "etc/dayfly/image.env"), "PATH=/go/bin:/bin\nA='it'\\''s'\nEMPTY=''\n");
    }

    #[test]
    fn an_image_with_nothing_gets_users_and_is_told_what_it_lacks() {
        let mut tree = with_files(&[]);
        assert_eq!(add_user(&mut tree), Ok((1001, true)));
        assert!(text(&tree, "etc/passwd").starts_with("root:x:0:0:root:/root:/bin/sh\nrunner:x:1001:1001:"));
        let all = ["sh", "bash", "setpriv", "git", "sudo", "certificate authorities", "modprobe", "Docker"];
        assert_eq!(lacks(&tree), all);
        let tree = with_files(&[("usr/bin/dockerd", ""), ("bin/sh", "")]);
        assert!(!lacks(&tree).iter().any(|lack| lack == "Docker" || lack == "sh"));
    }
}
