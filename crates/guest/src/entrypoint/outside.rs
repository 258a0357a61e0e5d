//! The way from jobs to the world: proxies, and certificate authorities of the user's own.
//!
//! Programs look for both in many places. Proxies are in the variables that HTTP programs share, in lower and upper case, and
//! in the configuration of Docker's client, which passes them on to containers and builds. Docker's daemon, which pulls images,
//! gets the variables from the agent or from [`super::engine`]. Authorities are in the bundles of the distribution, in the folder
//! that they are built anew from, and in node's own variable.

use super::app::{AppError, at, give};
use super::user::Account;
use crate::folder::Folder;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dayfly_guest::runner_app::Launch;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Bundles of authorities: of Debian, Ubuntu, Alpine and Arch; of Fedora; of SUSE; of programs that read Alpine's.
const BUNDLES: [&str; 4] = [
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
];
/// Files in the folders from which the distributions build their bundles anew.
const ANCHORS: [&str; 2] =
    ["usr/local/share/ca-certificates/dayfly.crt", "etc/pki/ca-trust/source/anchors/dayfly.pem"];
/// Longest configuration of Docker's client that is read, bytes.
const DOCKER_CONFIG_MAX: usize = 64 * 1024;

/// The proxies and authorities of one runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Outside {
    /// Values of `http_proxy`, `https_proxy` and `no_proxy`, each if it is set.
    proxies: Vec<(&'static str, String)>,
    /// Certificates in PEM form.
    authorities: Option<Vec<u8>>,
}

impl Outside {
    /// Resolves the settings. `get` returns the value of a variable; RUNNER_CA holds PEM in base64.
    pub(crate) fn resolve<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, base64::DecodeError> {
        let pairs = [
            ("http_proxy", "RUNNER_HTTP_PROXY"),
            ("https_proxy", "RUNNER_HTTPS_PROXY"),
            ("no_proxy", "RUNNER_NO_PROXY"),
        ];
        let proxies =
            pairs.into_iter().filter_map(|(name, variable)| Some((name, get(variable)?.to_owned())));
        let authorities = get("RUNNER_CA").map(|text| STANDARD.decode(text)).transpose()?;
        Ok(Self { proxies: proxies.collect(), authorities })
    }

    /// Returns the variables that name the proxies, in lower and upper case.
    pub(crate) fn proxy_variables(&self) -> Vec<(String, String)> {
        let both = |(name, value): &(&'static str, String)| {
            [((*name).to_owned(), value.clone()), (name.to_ascii_uppercase(), value.clone())]
        };
        self.proxies.iter().flat_map(both).collect()
    }

    /// Adds the variables to a command line.
    pub(super) fn apply(&self, launch: &mut Launch) {
        for (name, value) in self.proxy_variables() {
            launch.set(&name, &value);
        }
        if self.authorities.is_some() {
            launch.set("NODE_EXTRA_CA_CERTS", &format!("/{}", ANCHORS[0]));
        }
    }

    /// Writes the files below `root`, the root folder of the machine. `home` is that of the app's user.
    ///
    /// # Errors
    /// A file cannot be written. A job would fail later, and with less of a reason.
    pub(super) fn install(
        &self,
        root: &Path,
        home: &Path,
        account: Option<&Account>,
    ) -> Result<(), AppError> {
        if let Some(pem) = &self.authorities {
            trust(root, pem)?;
        }
        let has_proxy = self.proxies.iter().any(|(name, _)| *name != "no_proxy");
        if has_proxy { self.configure_docker(&home.join(".docker"), account) } else { Ok(()) }
    }

    /// Writes the proxies into the configuration of Docker's client, unless it has proxies of its own.
    fn configure_docker(&self, folder: &Path, account: Option<&Account>) -> Result<(), AppError> {
        let path = folder.join("config.json");
        let mut config = match fs::read_to_string(&path) {
            Ok(text) if text.len() <= DOCKER_CONFIG_MAX => match serde_json::from_str(&text) {
                Ok(Value::Object(config)) => config,
                // Docker's client reports it.
                Ok(_) | Err(_) => return Ok(()),
            },
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => return Err(at("cannot read", &path)(error)),
        };
        if config.contains_key("proxies") {
            return Ok(());
        }
        let key = |name: &str| match name {
            "http_proxy" => "httpProxy",
            "https_proxy" => "httpsProxy",
            _ => "noProxy",
        };
        let proxies: Map<_, _> =
            self.proxies.iter().map(|(name, value)| (key(name).to_owned(), json!(value))).collect();
        config.insert("proxies".to_owned(), json!({ "default": proxies }));
        if !folder.exists() {
            fs::DirBuilder::new().mode(0o700).create(folder).map_err(at("cannot make", folder))?;
            give(folder, account)?;
        }
        let text = Value::Object(config).to_string();
        let written = Folder::open(folder).and_then(|folder| folder.write("config.json", &text));
        written.map_err(|error| at("cannot write", &path)(std::io::Error::other(error)))?;
        give(&path, account)
    }
}

/// Adds authorities to each bundle that is there, and to the folders that bundles are built from.
fn trust(root: &Path, pem: &[u8]) -> Result<(), AppError> {
    // Several names may lead to one file.
    let bundles: BTreeSet<PathBuf> =
        BUNDLES.iter().filter_map(|name| fs::canonicalize(root.join(name)).ok()).collect();
    for bundle in bundles {
        let appended = File::options().append(true).open(&bundle);
        let text = [b"\n", pem, b"\n"].concat();
        appended.and_then(|mut file| file.write_all(&text)).map_err(at("cannot add to", &bundle))?;
    }
    for (number, name) in ANCHORS.iter().enumerate() {
        let path = root.join(name);
        let folder = path.parent().unwrap_or(root);
        // Node reads the first one, so it is written in any case.
        if number == 0 {
            fs::create_dir_all(folder).map_err(at("cannot make", folder))?;
        }
        if folder.is_dir() {
            fs::write(&path, pem).map_err(at("cannot write", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(pairs: &[(&str, &'static str)]) -> Outside {
        let get = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
        Outside::resolve(get).expect("valid")
    }

    #[test]
    fn proxies_have_both_cases_of_their_names_and_docker_has_its_own() {
        let root = tempfile::tempdir().expect("a folder");
        let outside =
            outside(&[("RUNNER_HTTPS_PROXY", "http://proxy:3128"), ("RUNNER_NO_PROXY", ".example.com")]);
        let mut launch = Launch::command(Path::new("/bin/true"), &[], root.path(), &user(root.path()));
        outside.apply(&mut launch);
        for name in ["https_proxy", "HTTPS_PROXY"] {
            assert_eq!(launch.value(name), Some("http://proxy:3128"), "{name}");
        }
        assert_eq!((launch.value("NO_PROXY"), launch.value("http_proxy")), (Some(".example.com"), None));
        outside.install(root.path(), root.path(), None).expect("written");
        let text = fs::read_to_string(root.path().join(".docker/config.json")).expect("a file");
        let expected =
            json!({"proxies": {"default": {"httpsProxy": "http://proxy:3128", "noProxy": ".example.com"}}});
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), expected);
    }

    #[test]
    fn a_configuration_of_docker_keeps_what_it_has() {
        let home = tempfile::tempdir().expect("a folder");
        let path = home.path().join(".docker/config.json");
        fs::create_dir(home.path().join(".docker")).expect("a folder");
        let outside = outside(&[("RUNNER_HTTP_PROXY", "http://p:1")]);
        let after = |before: &str| {
            fs::write(&path, before).expect("written");
            outside.install(home.path(), home.path(), None).expect("installed");
            fs::read_to_string(&path).expect("a file")
        };
        let with_auths: Value = serde_json::from_str(&after(r#"{"auths":{"r":{}}}"#)).expect("JSON");
        assert_eq!(with_auths["proxies"]["default"]["httpProxy"], "http://p:1");
        assert!(with_auths["auths"]["r"].is_object());
        let own = r#"{"proxies":{"default":{"httpProxy":"http://own"}}}"#;
        assert_eq!(after(own), own);
        assert_eq!(after("no JSON"), "no JSON");
    }

    #[test]
    fn an_authority_is_in_each_bundle_once_and_in_the_folders_that_bundles_are_built_from() {
        let root = tempfile::tempdir().expect("a folder");
        let certs = root.path().join("etc/ssl/certs");
        fs::create_dir_all(&certs).expect("folders");
        fs::write(certs.join("ca-certificates.crt"), "old\n").expect("written");
        std::os::unix::fs::symlink("certs/ca-certificates.crt", root.path().join("etc/ssl/cert.pem"))
            .expect("a link");
        // "a certificate"
        let outside = outside(&[("RUNNER_CA", "YSBjZXJ0aWZpY2F0ZQ==")]);
        outside.install(root.path(), root.path(), None).expect("installed");
        let bundle = fs::read_to_string(certs.join("ca-certificates.crt")).expect("a file");
        assert_eq!(bundle, "old\n\na certificate\n");
        assert_eq!(fs::read_to_string(root.path().join(ANCHORS[0])).expect("a file"), "a certificate");
        assert!(!root.path().join(ANCHORS[1]).exists() && !root.path().join(".docker").exists());
        let mut launch = Launch::command(Path::new("/bin/true"), &[], root.path(), &user(root.path()));
        outside.apply(&mut launch);
        assert_eq!(launch.value("NODE_EXTRA_CA_CERTS"), Some("/usr/local/share/ca-certificates/dayfly.crt"));
    }

    fn user(home: &Path) -> dayfly_guest::runner_app::User {
        dayfly_guest::runner_app::User {
            name: "u".to_owned(),
            home: home.to_owned(),
            shell: "/bin/sh".into(),
        }
    }
}
