//! Finds the archive of a runner app: at a forge, as a file, or beside this program.

use super::super::ImageError;
use super::super::log::Log;
use super::settings::{App, RequestedApp, Settings, is_plain, is_sha256};
use super::{InstallError, fetch};
use dayfly_guest::runner_app::Version;
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub(crate) enum ReleaseError {
    #[error("{url} is not what a forge answers: {source}")]
    Json {
        url: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{what} has no {wanted}; it has: {there}")]
    NoAsset { what: String, wanted: String, there: String },
    #[error("there is no version {version} of {project} ({url}); `latest` is always one")]
    NoVersion { project: String, version: String, url: String },
    #[error("the forge gives version {found} to its runners, and {wanted} was asked for")]
    OtherVersion { found: String, wanted: String },
    #[error("{0} comes without a sha256, so its content cannot be checked")]
    NoDigest(String),
    #[error("{0:?} is no version")]
    Version(String),
    #[error("{}: its name is neither actions-runner-linux-<arch>-<version>.tar.gz nor binary-linux-<arch>.tar.gz", .0.display())]
    Name(PathBuf),
    #[error(
        "{}: no checksum to check it against; set INSTALL_SHA256, or put one into {}.sha256", .0.display(), .0.display()
    )]
    NoChecksum(PathBuf),
}

/// The place that an archive comes from.
pub(super) enum ArchiveSource {
    Url {
        url: String,
        token: Option<String>,
    },
    File(PathBuf),
    /// The program itself, in the folder beside this program.
    Beside(PathBuf),
}

impl ArchiveSource {
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Url { url, .. } => url.clone(),
            Self::File(path) | Self::Beside(path) => path.display().to_string(),
        }
    }
}

/// An archive, or a program, that becomes `runner-<version>`.
pub(super) struct Archive {
    pub(super) app: App,
    pub(super) version: String,
    pub(super) sha256: String,
    pub(super) place: ArchiveSource,
}

/// A release, as returned by `GET /repos/{owner}/{repo}/releases/...`.
#[derive(Deserialize)]
struct Release {
    tag_name: String,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    assets: Vec<Asset>,
}

#[derive(Deserialize)]
struct Asset {
    name: String,
    browser_download_url: String,
    /// `sha256:<hex>`; only newer forges send it.
    #[serde(default)]
    digest: Option<String>,
}

/// One element of the response to `GET .../actions/runners/downloads`.
#[derive(Deserialize)]
struct Download {
    os: String,
    architecture: String,
    download_url: String,
    filename: String,
    #[serde(default)]
    sha256_checksum: Option<String>,
    /// A token for this download only; a GHES sends one.
    #[serde(default)]
    temp_download_token: Option<String>,
}

/// Finds the archive at the forge.
pub(super) fn find(settings: &Settings, stage: &Path, log: &Log) -> Result<Archive, ImageError> {
    let token = settings.token.as_deref();
    let to = stage.join("answer.json");
    let found = if let Some(principal) = &settings.principal {
        let url = format!("{}/{principal}/actions/runners/downloads", settings.api);
        let text = fetch::answer(&url, token, &to, log)?;
        let downloads = serde_json::from_str(&text).map_err(|source| ReleaseError::Json { url, source });
        downloads.and_then(|downloads| of_downloads(downloads, settings))
    } else {
        let (project, version) = (settings.project(), &settings.wanted);
        let which = match version {
            RequestedApp::Version(version) => format!("tags/v{version}"),
            RequestedApp::Latest | RequestedApp::File(_) => "latest".to_owned(),
        };
        let url = format!("{}/repos/{project}/releases/{which}", settings.api);
        let text = fetch::answer(&url, token, &to, log).map_err(|error| no_version(error, settings, &url))?;
        let release = serde_json::from_str(&text).map_err(|source| ReleaseError::Json { url, source });
        release.and_then(|release| of_release(release, settings))
    };
    Ok(found?)
}

/// Turns the error of a missing tag into the error of a missing version.
fn no_version(error: ImageError, settings: &Settings, url: &str) -> ImageError {
    match (&error, &settings.wanted) {
        (ImageError::Install(InstallError::Fetch(fetch)), RequestedApp::Version(version))
            if fetch.is_absent() =>
        {
            let (project, version) = (settings.project().to_owned(), version.clone());
            ReleaseError::NoVersion { project, version, url: url.to_owned() }.into()
        }
        _ => error,
    }
}

fn of_release(release: Release, settings: &Settings) -> Result<Archive, ReleaseError> {
    let version = checked_version(release.tag_name.strip_prefix('v').unwrap_or(&release.tag_name))?;
    let (app, arch) = (settings.app(), settings.arch);
    let name = match app {
        App::Official => format!("actions-runner-linux-{arch}-{version}.tar.gz"),
        App::GithubActRunner => format!("binary-linux-{}.tar.gz", arch.replace("x64", "amd64")),
    };
    let there = release.assets.iter().map(|asset| asset.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(asset) = release.assets.into_iter().find(|asset| asset.name == name) else {
        let what = format!("release {version} of {}", settings.project());
        return Err(ReleaseError::NoAsset { what, wanted: name, there });
    };
    let of_asset = asset.digest.as_deref().and_then(|digest| digest.strip_prefix("sha256:"));
    let of_body = || digest_in_body(release.body.as_deref().unwrap_or_default(), arch);
    let sha256 = of_asset.or_else(of_body).filter(|digest| is_sha256(digest)).map(str::to_owned);
    let sha256 = sha256.ok_or(ReleaseError::NoDigest(name))?;
    // No token, because public downloads need none, and other servers may refuse a token for the API.
    Ok(Archive {
        app,
        version,
        sha256,
        place: ArchiveSource::Url { url: asset.browser_download_url, token: None },
    })
}

/// Returns the digest in a release's text. The official project writes it as
/// `<!-- BEGIN SHA linux-x64 -->hex<!-- END SHA linux-x64 -->`.
fn digest_in_body<'a>(body: &'a str, arch: &str) -> Option<&'a str> {
    let (_, rest) = body.split_once(&format!("<!-- BEGIN SHA linux-{arch} -->"))?;
    rest.split_once("<!--").map(|(digest, _)| digest.trim())
}

fn of_downloads(downloads: Vec<Download>, settings: &Settings) -> Result<Archive, ReleaseError> {
    let there: Vec<_> = downloads.iter().map(|one| format!("{}-{}", one.os, one.architecture)).collect();
    let is_ours = |one: &Download| one.os == "linux" && one.architecture == settings.arch;
    let Some(download) = downloads.into_iter().find(is_ours) else {
        let wanted = format!("runner app for linux-{}", settings.arch);
        return Err(ReleaseError::NoAsset { what: "the forge".to_owned(), wanted, there: there.join(", ") });
    };
    let (_, version) =
        of_name(&download.filename).ok_or_else(|| ReleaseError::Name(download.filename.clone().into()))?;
    let version = checked_version(version.unwrap_or_default())?;
    if let RequestedApp::Version(wanted) = &settings.wanted
        && *wanted != version
    {
        return Err(ReleaseError::OtherVersion { found: version, wanted: wanted.clone() });
    }
    let digest = download.sha256_checksum.map(|digest| digest.to_ascii_lowercase());
    let sha256 =
        digest.filter(|digest| is_sha256(digest)).ok_or(ReleaseError::NoDigest(download.filename))?;
    let place = ArchiveSource::Url { url: download.download_url, token: download.temp_download_token };
    Ok(Archive { app: App::Official, version, sha256, place })
}

/// Parses an archive's name. Returns the app, and the version if it is the official app.
fn of_name(name: &str) -> Option<(App, Option<&str>)> {
    let stem = name.strip_suffix(".tar.gz")?;
    if stem.starts_with("binary-linux-") {
        return Some((App::GithubActRunner, None));
    }
    let (_, version) = stem.strip_prefix("actions-runner-linux-")?.split_once('-')?;
    Some((App::Official, Some(version)))
}

/// Checks a version, which becomes the name of a folder.
fn checked_version(text: &str) -> Result<String, ReleaseError> {
    let good = is_plain(text) && Version::parse(text).is_some();
    if good { Ok(text.to_owned()) } else { Err(ReleaseError::Version(text.chars().take(100).collect())) }
}

/// Returns an archive on this disk. The version of the official app is in the file's name. That of another app is made
/// from the start of the checksum, and is lower than any other version.
pub(super) fn of_file(path: &Path, sha256: Option<&str>) -> Result<Archive, ReleaseError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let (app, version) = of_name(name).ok_or_else(|| ReleaseError::Name(path.to_owned()))?;
    let sidecar = PathBuf::from(format!("{}.sha256", path.display()));
    let of_sidecar = || {
        let text = std::fs::read_to_string(&sidecar).ok()?;
        Some(text.split_ascii_whitespace().next()?.to_ascii_lowercase())
    };
    let sha256 = sha256.map(str::to_owned).or_else(of_sidecar).filter(|digest| is_sha256(digest));
    let sha256 = sha256.ok_or_else(|| ReleaseError::NoChecksum(path.to_owned()))?;
    let version = match version {
        Some(version) => checked_version(version)?,
        None => format!("0.0.0-{}", &sha256[..12]),
    };
    Ok(Archive { app, version, sha256, place: ArchiveSource::File(path.to_owned()) })
}

/// The manifest of the github-act-runner that the host has built.
#[derive(Deserialize)]
struct BuiltApp {
    version: String,
    sha256: String,
}

/// The reason why there is no github-act-runner beside this program.
pub(super) struct NotBeside {
    beside: String,
    reason: String,
}

impl NotBeside {
    /// Converts it into an error that begins with the `reason` of the search.
    pub(super) fn unless(self, reason: String) -> ImageError {
        let Self { beside, reason: why } = self;
        InstallError::NoApp { reason, beside: format!("{beside}: {why}") }.into()
    }
}

/// Returns the github-act-runner that the host has built, in a folder beside this program.
pub(super) fn beside(folder: &Path) -> Result<Archive, NotBeside> {
    let absent = |reason: String| NotBeside { beside: folder.display().to_string(), reason };
    let manifest = folder.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).map_err(|error| absent(error.to_string()))?;
    let built: BuiltApp = serde_json::from_str(&text).map_err(|error| absent(error.to_string()))?;
    let version = checked_version(built.version.strip_prefix('v').unwrap_or(&built.version));
    let version = version.map_err(|error| absent(error.to_string()))?;
    let app = App::GithubActRunner;
    Ok(Archive { app, version, sha256: built.sha256, place: ArchiveSource::Beside(app.program_in(folder)) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Given, Options};

    const DIGEST: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn settings(environment: &[(&str, &str)]) -> Settings {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let environment: Vec<_> = environment.iter().chain(&[("INSTALL_ARCH", "x64")]).map(pair).collect();
        let options = Options::default();
        Settings::resolve(Given { options: &options, environment: &environment }).expect("good")
    }

    fn release(text: &str, environment: &[(&str, &str)]) -> Result<String, String> {
        let release = serde_json::from_str(&text.replace("DIGEST", DIGEST)).expect("good");
        shown(of_release(release, &settings(environment)))
    }

    fn downloads(text: &str, environment: &[(&str, &str)]) -> Result<String, String> {
        let downloads = serde_json::from_str(&text.replace("DIGEST", DIGEST)).expect("good");
        shown(of_downloads(downloads, &settings(environment)))
    }

    fn shown(found: Result<Archive, ReleaseError>) -> Result<String, String> {
        let found = found.map_err(|error| error.to_string())?;
        assert_eq!(found.sha256, DIGEST);
        let token = matches!(&found.place, ArchiveSource::Url { token: Some(token), .. } if token == "t");
        Ok(format!(
            "{} {} {}{}",
            found.app.name(),
            found.version,
            found.place.shown(),
            if token { " +t" } else { "" }
        ))
    }

    #[test]
    fn an_official_release_has_its_checksum_in_its_text_or_beside_its_file() {
        let asset =
            r#"{"name":"actions-runner-linux-x64-2.336.0.tar.gz","browser_download_url":"https://h/x"}"#;
        let body = "- x <!-- BEGIN SHA linux-x64 -->DIGEST<!-- END SHA linux-x64 -->";
        let text = format!(r#"{{"tag_name":"v2.336.0","body":"{body}","assets":[{asset}]}}"#);
        let expected = "actions/runner 2.336.0 https://h/x".to_owned();
        assert_eq!(release(&text, &[]), Ok(expected.clone()));
        let asset = asset.replace('}', r#","digest":"sha256:DIGEST"}"#);
        let text = format!(r#"{{"tag_name":"v2.336.0","assets":[{asset}]}}"#);
        assert_eq!(release(&text, &[]), Ok(expected));
        let text = text.replace("sha256:DIGEST", "md5:1");
        let error = release(&text, &[]).expect_err("no checksum");
        assert!(
            error.starts_with("actions-runner-linux-x64-2.336.0.tar.gz comes without a sha256"),
            "{error}"
        );
    }

    #[test]
    fn another_projects_files_have_their_own_names() {
        let project = [("INSTALL_PROJECT", "ChristopherHX/github-act-runner")];
        let text = r#"{"tag_name":"v0.13.0","assets":[
            {"name":"binary-linux-arm64.tar.gz","browser_download_url":"https://h/a","digest":"sha256:DIGEST"},
            {"name":"binary-linux-amd64.tar.gz","browser_download_url":"https://h/b","digest":"sha256:DIGEST"}]}"#;
        assert_eq!(release(text, &project), Ok("github-act-runner 0.13.0 https://h/b".to_owned()));
        let error = release(text, &[]).expect_err("none");
        assert!(error.ends_with("it has: binary-linux-arm64.tar.gz, binary-linux-amd64.tar.gz"), "{error}");
    }

    #[test]
    fn a_version_that_would_lead_elsewhere_is_none() {
        for tag in ["../../etc", "v1/2", "latest", ""] {
            let text = format!(r#"{{"tag_name":"{tag}","assets":[]}}"#);
            let error = release(&text, &[]).expect_err(tag);
            assert!(error.ends_with(" is no version"), "{error}");
        }
    }

    #[test]
    fn a_forge_says_which_app_its_runners_get() {
        let text = r#"[{"os":"osx","architecture":"x64","download_url":"https://h/o","filename":"o"},
            {"os":"linux","architecture":"x64","download_url":"https://h/x","temp_download_token":"t",
             "filename":"actions-runner-linux-x64-2.336.0.tar.gz","sha256_checksum":"DIGEST"}]"#;
        assert_eq!(downloads(text, &[]), Ok("actions/runner 2.336.0 https://h/x +t".to_owned()));
        let error = downloads(text, &[("INSTALL_VERSION", "2.335.0")]).expect_err("another");
        assert_eq!(error, "the forge gives version 2.336.0 to its runners, and 2.335.0 was asked for");
        let error = downloads(&text.replace("linux\"", "win\""), &[]).expect_err("none");
        assert_eq!(error, "the forge has no runner app for linux-x64; it has: osx-x64, win-x64");
        let error = downloads(&text.replace("DIGEST", ""), &[]).expect_err("no checksum");
        assert!(error.contains("comes without a sha256"), "{error}");
    }

    #[test]
    fn a_file_needs_a_name_and_a_checksum() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("actions-runner-linux-x64-2.336.0.tar.gz");
        let error = of_file(&path, None).err().expect("no checksum").to_string();
        assert!(error.contains("no checksum to check it against; set INSTALL_SHA256"), "{error}");
        let sidecar = folder.path().join("actions-runner-linux-x64-2.336.0.tar.gz.sha256");
        std::fs::write(sidecar, format!("{DIGEST}  name\n")).expect("written");
        let found = of_file(&path, None).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((found.version.as_str(), found.sha256.as_str()), ("2.336.0", DIGEST));
        let found = of_file(Path::new("/x/binary-linux-amd64.tar.gz"), Some(DIGEST));
        assert_eq!(found.map(|found| found.version).ok().as_deref(), Some("0.0.0-0123456789ab"));
        assert!(matches!(of_file(Path::new("/x/runner.zip"), Some(DIGEST)), Err(ReleaseError::Name(_))));
    }
}
