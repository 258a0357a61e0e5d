//! Adds to an imported image the parts that jobs need, and lists those that it still lacks.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use dayfly_guest::envfile;
use dayfly_guest::environment::{DAEMONS, IMAGE_ENV, TOOLS};
use dayfly_guest::runner_app::SEARCH_PATH;

use super::kernel::CONFIG;
use super::manifest::NO_DOCKER;
use super::runner_app::{self, RunnerApp};
use super::tools::{self, Tools, Wanted};
use crate::oci::layer::{Attributes, Content, Tree};

/// The user that jobs run as if no other is named, and its id if that is free.
const USER: &str = "runner";
const USER_ID: u32 = 1001;
/// The only tool that is installed with the set-user-id bit.
const SUDO: &str = "bin/sudo";
/// Folders in which the entrypoint looks for runner apps, and the programs that it looks for.
const APP_PLACES: [&str; 3] = ["opt/runner", "opt/actions-runner", "home/runner"];
const APP_PROGRAMS: [&str; 2] = ["bin/Runner.Listener", "github-act-runner"];

/// Returns the things that jobs need and an image lacks. With `has_engine`, they include those that only Docker's engine
/// needs.
fn missing(tree: &Tree, has_engine: bool) -> impl Iterator<Item = &'static Wanted> {
    let is_there = |wanted: &&Wanted| wanted.places.iter().any(|place| tree.content(place).is_some());
    let wanted = tools::wanted().iter().filter(move |wanted| has_engine || !wanted.for_engine);
    wanted.filter(move |wanted| !is_there(wanted))
}

fn has_engine(tree: &Tree) -> bool {
    DAEMONS.iter().any(|place| tree.content(place).is_some())
}

/// Returns the names of the things that jobs need and an image lacks.
pub(super) fn lacks(tree: &Tree) -> Vec<&'static str> {
    missing(tree, has_engine(tree)).map(|wanted| wanted.name).collect()
}

/// Returns the missing tools that can be added. Docker is not added to an image with podman, because such an image has a
/// container engine, and often a `docker` that leads to it.
pub(super) fn tools_for(tree: &Tree) -> Vec<&'static str> {
    let has_podman = tree.content("usr/bin/podman").is_some();
    let can_be = |wanted: &&Wanted| wanted.tool.is_some() && !(has_podman && wanted.name == NO_DOCKER);
    missing(tree, has_engine(tree) || !has_podman).filter(can_be).map(|wanted| wanted.name).collect()
}

/// Returns the names of tools for messages. The parts of Docker's engine are left out if Docker itself is among the names.
pub(super) fn shown<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let is_part =
        |name: &&&str| tools::wanted().iter().any(|wanted| wanted.for_engine && wanted.name == **name);
    names.iter().filter(|name| !(names.contains(&NO_DOCKER) && is_part(name))).copied().collect()
}

/// Puts tools into the image, with links to them in the folders where programs look for them.
pub(super) fn add_tools(tree: &mut Tree, bundle: &Tools, names: &[&str]) -> Result<(), String> {
    let host = bundle.tree();
    for file in bundle.files(names) {
        let path = host.join(file);
        let of_host = |error: io::Error| format!("{}: {error}", path.display());
        let metadata = path.symlink_metadata().map_err(of_host)?;
        let content = if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(of_host)?;
            Content::Symlink(target.as_os_str().as_bytes().into())
        } else {
            Content::Host { path: path.clone(), size: metadata.len() }
        };
        let mode = match file {
            SUDO => 0o4755,
            _ => metadata.mode() & 0o755,
        };
        tree.put_own(&in_tools(file), Attributes { mode, ..Attributes::default() }, content)?;
    }
    for wanted in tools::wanted().iter().filter(|wanted| names.contains(&wanted.name)) {
        for (link, to) in wanted.tool.iter().flat_map(|tool| tool.links) {
            // The image's own file stays, e.g. a Docker client without a daemon.
            if tree.content(link).is_none() {
                let target = Content::Symlink(format!("{TOOLS}/{to}").into_bytes().into());
                tree.put_own(link, Attributes { mode: 0o777, ..Attributes::default() }, target)?;
            }
        }
    }
    if names.contains(&"sudo") {
        configure_sudo(tree)?;
    }
    if names.contains(&NO_DOCKER) {
        add_docker_group(tree)?;
    }
    // Debian's git sends its output for a terminal through a program named `pager`.
    if names.contains(&"git") && tree.content("etc/gitconfig").is_none() {
        put_text(tree, "etc/gitconfig", "[core]\n\tpager = cat\n".to_owned(), 0o644)?;
    }
    Ok(())
}

/// Links the configuration of the added kernel into `/boot`, where moby's `check-config.sh` looks for it.
pub(super) fn link_kernel_config(tree: &mut Tree, release: &str) -> Result<(), String> {
    let link = format!("boot/config-{release}");
    if tree.content(&link).is_some() {
        return Ok(());
    }
    if tree.content("boot").is_none() {
        tree.put_own("boot", Attributes { mode: 0o755, ..Attributes::default() }, Content::Folder)?;
    }
    let target = Content::Symlink(format!("/lib/modules/{release}/{CONFIG}").into_bytes().into());
    tree.put_own(&link, Attributes { mode: 0o777, ..Attributes::default() }, target)
}

fn in_tools(file: &str) -> String {
    format!("{}/{file}", TOOLS.trim_start_matches('/'))
}

/// Configures `sudo`, because it looks for its plugin at the path that it was built with, and because images without `sudo`
/// have no PAM rules for it.
fn configure_sudo(tree: &mut Tree) -> Result<(), String> {
    let plugin = format!("{TOOLS}/lib/sudo/sudoers.so");
    let plugins = format!("Plugin sudoers_policy {plugin}\nPlugin sudoers_io {plugin}\n");
    let rule = format!("required {TOOLS}/lib/security/pam_permit.so");
    let rules = format!("auth {rule}\naccount {rule}\nsession {rule}\n");
    put_text(tree, "etc/sudo.conf", plugins, 0o644)?;
    put_text(tree, "etc/pam.d/sudo", rules, 0o644)?;
    if tree.content("etc/sudoers").is_none() {
        let path = format!("secure_path=\"{SEARCH_PATH}\"");
        let sudoers =
            format!("Defaults env_reset, {path}\nroot ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n");
        put_text(tree, "etc/sudoers", sudoers, 0o440)?;
    }
    if tree.content("etc/sudoers.d").is_none() {
        let folder = Attributes { mode: 0o755, ..Attributes::default() };
        tree.put_own("etc/sudoers.d", folder, Content::Folder)?;
    }
    Ok(())
}

/// Links `/var/run` to `/run`, so that clients find the engine's socket. Without this link, the daemon creates `/var/run` as
/// a folder that only root may enter.
pub(super) fn link_docker_socket(tree: &mut Tree) -> Result<(), String> {
    if has_engine(tree) && tree.content("var/run").is_none() {
        let target = Content::Symlink(b"/run".as_slice().into());
        tree.put_own("var/run", Attributes { mode: 0o777, ..Attributes::default() }, target)?;
    }
    Ok(())
}

/// Adds the group `docker`, which the daemon's socket belongs to, and makes the user of jobs a member if that user exists.
fn add_docker_group(tree: &mut Tree) -> Result<(), String> {
    let mut groups = text_of(tree, "etc/group");
    if id_of(&groups, "docker").is_none() {
        let taken = ids(&groups);
        let id = (1..1000).rev().find(|id| !taken.contains(id)).unwrap_or(999);
        push_line(&mut groups, &format!("docker:x:{id}:"));
    }
    if id_of(&text_of(tree, "etc/passwd"), USER).is_some() {
        groups = with_member(&groups, "docker", USER);
    }
    put_text(tree, "etc/group", groups, 0o644)
}

fn text_of(tree: &Tree, path: &str) -> String {
    tree.text(path).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default()
}

/// Creates or replaces a file. An existing file keeps its attributes.
fn put_text(tree: &mut Tree, path: &str, text: String, mode: u32) -> Result<(), String> {
    let made = Attributes { mode, ..Attributes::default() };
    let attributes = tree.attributes(path).cloned().unwrap_or(made);
    tree.put_own(path, attributes, Content::Bytes(Arc::from(text.into_bytes())))
}

/// Returns true if the image has a runner app of its own.
pub(super) fn has_runner_app(tree: &Tree) -> bool {
    let in_folder = |folder: &str| {
        APP_PROGRAMS.iter().any(|program| tree.content(&format!("{folder}/{program}")).is_some())
    };
    APP_PLACES.iter().any(|place| {
        let versions = tree.names(place).into_iter().filter(|name| name.starts_with("runner-"));
        in_folder(place) || versions.into_iter().any(|name| in_folder(&format!("{place}/{name}")))
    })
}

/// Puts the host's runner app into the folder in which dayfly's own images have it.
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

/// Adds the user of jobs if the image has none. Returns the user's id, and true if the user was added.
pub(super) fn add_user(tree: &mut Tree) -> Result<(u32, bool), String> {
    let (mut passwd, mut group) = (text_of(tree, "etc/passwd"), text_of(tree, "etc/group"));
    if let Some(id) = id_of(&passwd, USER) {
        return Ok((id, false));
    }
    if passwd.is_empty() {
        passwd = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
    }
    if id_of(&group, "root").is_none() {
        group = format!("root:x:0:\n{group}");
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
    let mut shadow = text_of(tree, "etc/shadow");
    if !shadow.is_empty() {
        // `*`: no password works for this user.
        push_line(&mut shadow, &format!("{USER}:*:20000:0:99999:7:::"));
        files.push(("etc/shadow", shadow, 0o640));
    }
    for (path, text, mode) in files {
        put_text(tree, path, text, mode)?;
    }
    let home = Attributes { mode: 0o755, uid: id, gid: group_id, ..Attributes::default() };
    tree.put_own(&format!("home/{USER}"), home, Content::Folder)?;
    Ok((id, true))
}

/// Lets the user become root without a password if the image has `sudo`. Returns true if it has.
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

/// Writes the image's `ENV` to a file for the entrypoint. If a variable is set twice, the last value counts. Returns the
/// variables that are left out because the file cannot hold them, e.g. those whose name no shell would accept.
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

/// Puts all files of a host folder into the image, owned by root.
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

/// Returns the id of the user or group of this name.
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

/// Returns the list of groups with one more member in the named group, if that group exists.
fn with_member(groups: &str, name: &str, member: &str) -> String {
    let with = |line: &str| match line.split(':').collect::<Vec<_>>()[..] {
        [found, password, id, members] if found == name => {
            let is_in = members.split(',').any(|known| known == member);
            let members = if is_in {
                members.to_owned()
            } else if members.is_empty() {
                member.to_owned()
            } else {
                format!("{members},{member}")
            };
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
        let wanted = tools::wanted().iter().filter(|wanted| !wanted.for_engine);
        assert_eq!(lacks(&tree), wanted.map(|wanted| wanted.name).collect::<Vec<_>>());
        let tree = with_files(&[("usr/bin/dockerd", ""), ("bin/sh", "")]);
        assert!(!lacks(&tree).iter().any(|lack| *lack == "Docker" || *lack == "sh"));
    }

    /// Creates a bundle with a few files, as [`tools::tools`] does.
    fn bundle(folder: &Path) -> Tools {
        let tree = folder.join("tree");
        for file in ["bin/sudo", "bin/dockerd", "bin/docker", "bin/git", "lib/libc.so.6", "lib/git-core/git"]
        {
            let path = tree.join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            fs::write(&path, file).expect("written");
        }
        std::os::unix::fs::symlink("git", tree.join("lib/git-core/git-add")).expect("a link");
        let files = |files: &[&str]| files.iter().map(|file| (*file).to_owned()).collect();
        let tools = [
            ("sudo", files(&["bin/sudo", "lib/libc.so.6"])),
            (NO_DOCKER, files(&["bin/dockerd", "bin/docker", "lib/libc.so.6"])),
            ("git", files(&["bin/git", "lib/git-core/git", "lib/git-core/git-add"])),
        ];
        let tools = tools.map(|(name, files)| (name.to_owned(), files)).into_iter().collect();
        let (id, suite) = (String::new(), String::new());
        let manifest = tools::ToolsManifest { id, suite, tools, generation: 0, created_s: 1 };
        fs::write(folder.join("manifest.json"), "{}").expect("written");
        let in_use = crate::in_use::InUse::of(folder).expect("locked").expect("there");
        Tools { folder: folder.to_owned(), manifest, in_use }
    }

    #[test]
    fn tools_come_with_links_where_programs_are_looked_for_and_sudo_becomes_root() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut tree = with_files(&[("bin/sh", ""), ("run/kept", ""), ("usr/bin/docker", "a client alone")]);
        add_tools(&mut tree, &bundle(folder.path()), &["git", "sudo", NO_DOCKER]).expect("added");
        assert!(matches!(tree.content("usr/bin/git"), Some(Content::Host { size: 7, .. })));
        assert!(matches!(tree.content("usr/lib/git-core/git-add"), Some(Content::Host { .. })));
        assert_eq!(tree.attributes("usr/bin/sudo").expect("there").mode, 0o4755);
        assert_eq!(tree.attributes("opt/dayfly/bin/git").expect("there").mode & 0o7000, 0);
        assert_eq!(text(&tree, "usr/bin/docker"), "a client alone");
        assert!(text(&tree, "etc/sudo.conf").contains("/opt/dayfly/lib/sudo/sudoers.so"));
        link_docker_socket(&mut tree).expect("linked");
        assert!(tree.content("var/run/kept").is_some());
        assert_eq!(text(&tree, "etc/gitconfig"), "[core]\n\tpager = cat\n");
        assert!(!lacks(&tree).iter().any(|lack| ["git", "sudo", NO_DOCKER].contains(lack)));
        assert_eq!(add_user(&mut tree).map(|(_, is_added)| is_added), Ok(true));
        assert_eq!(add_sudo(&mut tree), Ok(true));
    }

    #[test]
    fn only_what_is_missing_is_added_and_docker_not_beside_podman() {
        let all = tools_for(&with_files(&[]));
        assert!(all.contains(&NO_DOCKER) && !all.contains(&"sh"), "{all:?}");
        let tree = with_files(&[("usr/bin/podman", ""), ("usr/bin/git", ""), ("bin/bash", "")]);
        assert_eq!(tools_for(&tree), ["tar", "gzip", "curl", "sudo", "certificate authorities", "modprobe"]);
    }

    /// GitHub's own image has Docker's static programs, and no iptables.
    #[test]
    fn an_engine_is_given_what_it_cannot_work_without_and_an_image_without_one_is_not() {
        let parts = ["containerd", "containerd-shim-runc-v2", "runc", "docker-proxy", "dockerd"];
        let files: Vec<_> = parts.iter().map(|part| (format!("usr/bin/{part}"), "")).collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        let added = |files: &[(&str, &str)]| tools_for(&with_files(files));
        assert!(added(&files).contains(&"iptables") && !added(&files).contains(&NO_DOCKER));
        let alone = added(&[("usr/bin/dockerd", "")]);
        for part in ["iptables", "containerd", "containerd's shim", "runc", "docker-proxy"] {
            assert!(alone.contains(&part), "no {part} in {alone:?}");
        }
        assert!(!added(&[("usr/bin/podman", "")]).contains(&"iptables"));
    }

    #[test]
    fn the_group_of_docker_gets_a_number_that_is_free_and_the_user_of_jobs() {
        let mut tree = with_files(&[
            ("etc/group", "root:x:0:\nrender:x:999:\n"),
            ("etc/passwd", "root:x:0:0::/:/bin/sh\nrunner:x:1001:1001::/:/bin/sh\n"),
        ]);
        assert_eq!(add_docker_group(&mut tree), Ok(()));
        assert_eq!(text(&tree, "etc/group"), "root:x:0:\nrender:x:999:\ndocker:x:998:runner\n");
        let mut tree = with_files(&[]);
        assert_eq!(add_docker_group(&mut tree), Ok(()));
        assert_eq!(add_user(&mut tree), Ok((1001, true)));
        assert_eq!(text(&tree, "etc/group"), "root:x:0:\ndocker:x:999:runner\nrunner:x:1001:\n");
    }
}
