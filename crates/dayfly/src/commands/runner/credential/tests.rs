use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A folder with a token, and with a file that holds no key.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { folder: tempfile::tempdir().expect("folder") };
        files.write("pat", "from-file\n");
        files.write("junk.pem", "no key\n");
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("write");
        self.set_mode(name, 0o600);
    }

    fn set_mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("mode");
    }
}

fn scope() -> RunnerScope {
    RunnerScope::Organization("acme".to_owned())
}

fn none<'a>(arguments: &'a [&'a str]) -> CredentialOptions<'a> {
    CredentialOptions {
        prefix: "RUNNER",
        pat: None,
        pat_file: None,
        app_id: None,
        app_installation: None,
        app_key_file: None,
        is_argument: Box::new(|id| arguments.contains(&id)),
    }
}

fn read(options: &CredentialOptions<'_>) -> Result<Credential> {
    credential(options, &scope(), &mut Vec::new())
}

fn refusal(options: &CredentialOptions<'_>) -> String {
    let error = read(options).expect_err("refused");
    assert_eq!(error.code(), 2);
    format!("{error}\n{}", error.what_to_do().unwrap_or_default())
}

#[test]
fn an_argument_wins_over_a_file_and_a_file_over_the_variable() {
    let files = Files::new();
    let (pat, file) = (SecretString::from("given one"), files.path("pat"));
    // A token of two words is refused, which shows that it was chosen.
    let both = CredentialOptions { pat: Some(&pat), pat_file: Some(&file), ..none(&["pat", "pat_file"]) };
    assert!(read(&both).is_err());
    let both = CredentialOptions { pat: Some(&pat), pat_file: Some(&file), ..none(&["pat_file"]) };
    assert!(read(&both).is_ok());
    assert!(read(&CredentialOptions { pat: Some(&pat), ..none(&[]) }).is_err());
}

#[test]
fn a_token_among_the_arguments_is_warned_about() {
    let pat = SecretString::from("ghp_XXXX");
    for (arguments, count) in [(&["pat"][..], 1), (&[], 0)] {
        let mut warnings = Vec::new();
        credential(&CredentialOptions { pat: Some(&pat), ..none(arguments) }, &scope(), &mut warnings)
            .expect("good");
        assert_eq!(warnings.len(), count);
    }
}

#[test]
fn a_secret_in_a_file_that_others_can_read_is_refused_with_the_remedy() {
    let files = Files::new();
    for (mode, is_good) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o622, false)] {
        files.set_mode("pat", mode);
        files.set_mode("junk.pem", mode);
        let (pat, key) = (files.path("pat"), files.path("junk.pem"));
        let token = read(&CredentialOptions { pat_file: Some(&pat), ..none(&[]) });
        assert_eq!(token.is_ok(), is_good, "{mode:o}");
        let app = refusal(&CredentialOptions { app_id: Some("1"), app_key_file: Some(&key), ..none(&[]) });
        assert_eq!(
            app.contains(&format!("its mode {mode:04o}")) && app.contains("chmod 600"),
            !is_good,
            "{app}"
        );
    }
    let null = Path::new("/dev/null");
    assert!(read(&CredentialOptions { pat_file: Some(null), ..none(&[]) }).is_err(), "it is empty");
}

#[test]
fn a_token_and_an_app_exclude_each_other_unless_only_one_is_on_the_command_line() {
    let files = Files::new();
    let (pat, key) = (SecretString::from("ghp_XXXX"), files.path("junk.pem"));
    let both = |arguments: &'static [&'static str]| CredentialOptions {
        pat: Some(&pat),
        app_id: Some("1"),
        app_key_file: Some(&key),
        ..none(arguments)
    };
    insta::assert_snapshot!(refusal(&both(&[])), @r"
    a token and a GitHub App were given, but one credential is needed
    give either RUNNER_PAT or --pat-file, or --app-id and --app-key-file (RUNNER_APP_ID, RUNNER_APP_KEY_FILE)
    ");
    assert_eq!(refusal(&both(&["pat", "app_id"])), refusal(&both(&[])));
    assert!(read(&both(&["pat"])).is_ok());
    assert!(refusal(&both(&["app_key_file"])).contains("holds no private key"), "the App was chosen");
}

#[test]
fn options_that_are_missing_are_named() {
    let files = Files::new();
    let key = files.path("junk.pem");
    insta::assert_snapshot!(refusal(&none(&[])), @r"
    no token for the forge's API was given
    set RUNNER_PAT, give --pat-file FILE, or give --app-id ID and --app-key-file FILE for a GitHub App
    ");
    insta::assert_snapshot!(refusal(&CredentialOptions { app_id: Some("1"), ..none(&[]) }), @r"
    the GitHub App lacks --app-key-file FILE
    give --app-key-file FILE, or set RUNNER_APP_KEY_FILE
    ");
    insta::assert_snapshot!(refusal(&CredentialOptions { app_key_file: Some(&key), ..none(&[]) }), @r"
    the GitHub App lacks --app-id ID
    give --app-id ID, or set RUNNER_APP_ID
    ");
    let far = Path::new("/nonexistent/key.pem");
    let absent = refusal(&CredentialOptions { app_id: Some("1"), app_key_file: Some(far), ..none(&[]) });
    assert!(absent.starts_with("cannot read the private key from /nonexistent/key.pem: "), "{absent}");
}
