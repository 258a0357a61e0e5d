use super::super::options;
use super::*;
use dayfly_guest::envfile;
use dayfly_guest::runner_app::Proof;

const ID: &str = "2-abc";

/// Resolves the settings of an env file, options and a process's environment.
fn resolve(
    file: Option<&str>,
    options: &str,
    environment: &[(&str, &str)],
) -> Result<Settings, SettingsError> {
    let file = file.map(|text| envfile::parse(text).expect("good"));
    let args: Vec<_> = options.split(' ').filter(|arg| !arg.is_empty()).map(str::to_owned).collect();
    let options = options::parse(&args).expect("good");
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: Vec<_> = environment.iter().map(pair).collect();
    Settings::resolve(&Layers { file: file.as_ref(), options: &options, environment: &environment }, ID)
}

fn message(file: Option<&str>, options: &str) -> String {
    resolve(file, options, &[]).err().expect("refused").to_string()
}

fn registration(settings: &Settings) -> Registration {
    settings.take_registration().expect("a registration")
}

#[test]
fn the_env_file_wins_over_options_over_the_environment_over_defaults() {
    let environment = [("RUNNER_TOKEN", "t"), ("RUNNER_PRINCIPAL", "o/r"), ("RUNNER_NAME", "environment")];
    let name = |file, options| resolve(file, options, &environment).expect("good").name;
    assert_eq!(name(Some("RUNNER_NAME=file\nRUNNER_SECRET=s"), "-n option"), "file");
    assert_eq!(name(Some("RUNNER_SECRET=s"), "-n option"), "option");
    assert_eq!(name(None, "-n option"), "option");
    assert_eq!(name(None, ""), "environment");
    let settings = resolve(None, "-i 2-abc", &environment[..2]).expect("good");
    assert_eq!(settings.name, "GH-runner-2-abc");
    assert_eq!(resolve(None, "-E /x/2-abc.env", &environment[..2]).expect("good").name, "GH-runner-2-abc");
    assert_eq!(settings.work_folder, Path::new("/_work/GH-runner-2-abc"));
    assert_eq!(
        (settings.user.as_deref(), settings.engine, settings.ephemeral),
        (Some("runner"), false, true)
    );
}

#[test]
fn an_installation_of_the_env_file_replaces_the_app_of_the_options() {
    let environment = [("RUNNER_INSTALL", "/environment")];
    let app = |file| resolve(Some(file), "-p o/r --app /x/app", &environment).expect("good");
    let own = app("RUNNER_TOKEN=t\nRUNNER_SECRET=s\nRUNNER_INSTALL=/y");
    assert_eq!((own.app, own.install.as_deref()), (None, Some(Path::new("/y"))));
    for file in ["RUNNER_TOKEN=t\nRUNNER_SECRET=s", "RUNNER_TOKEN=t\nRUNNER_SECRET=s\nRUNNER_INSTALL="] {
        assert_eq!(app(file).app.as_deref(), Some(Path::new("/x/app")), "{file}");
    }
}

#[test]
fn the_secret_comes_from_the_option_where_the_file_has_none() {
    let settings = resolve(Some("RUNNER_TOKEN=t"), "-S by-option -p o/r", &[]).expect("good");
    assert_eq!(settings.secret, "by-option");
    let settings =
        resolve(Some("RUNNER_TOKEN=t\nRUNNER_SECRET=f"), "-S by-option -p o/r", &[]).expect("good");
    assert_eq!(settings.secret, "f");
}

#[test]
fn the_drivers_word_for_the_current_user_stands() {
    let file = "RUNNER_SECRET=s\nRUNNER_TOKEN=t\nRUNNER_USER=runner";
    let args = ["-p", "o/r", "-u", ""].map(str::to_owned);
    let (file, options) = (envfile::parse(file).expect("good"), options::parse(&args).expect("good"));
    let settings = Settings::resolve(&Layers { file: Some(&file), options: &options, environment: &[] }, ID);
    assert_eq!(settings.expect("good").user, None);
}

#[test]
fn labels_are_the_loops_or_the_defaults() {
    let labels = |options: &str, environment: &[(&str, &str)]| {
        let settings = resolve(None, &format!("-t t -p o/r {options}"), environment).expect("good");
        registration(&settings).labels.clone()
    };
    assert_eq!(labels("-L self-hosted,big", &[]), "self-hosted,big");
    let environment = [("RUNNER_DISTRO", "debian"), ("RUNNER_DEFAULT_LABELS", "krun,small")];
    let architecture = if cfg!(target_arch = "aarch64") { "ARM64" } else { "X64" };
    assert_eq!(
        labels("", &environment),
        format!("self-hosted,Linux,{architecture},krun,small,debian,dayfly")
    );
}

#[test]
fn jobs_see_the_users_settings_and_no_secret() {
    let file =
        "RUNNER_SECRET=s\nRUNNER_TOKEN=t\nRUNNER_MINE='a b'\nRUNNER_DEPLOY_KEY=k\nOTHER=x\nRUNNER_BOTH=file";
    let environment =
        [("RUNNER_BOTH", "process"), ("RUNNER_PAT", "p"), ("RUNNER_TOOL_CACHE", "/t"), ("HOME", "/")];
    let settings = resolve(Some(file), "-p o/r", &environment).expect("good");
    let names: Vec<_> = settings.for_jobs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(names, ["RUNNER_TOOL_CACHE=/t", "RUNNER_MINE=a b", "RUNNER_BOTH=file"]);
}

#[test]
fn a_registration_is_used_once() {
    let settings = resolve(None, "-t token -p o/r -n n", &[]).expect("good");
    assert!(settings.take_registration().is_some() && settings.take_registration().is_none());
}

#[test]
fn a_pat_is_for_a_run_by_hand_only() {
    let settings = resolve(None, "-T ghp_XXXX -p o/r", &[]).expect("good");
    assert!(matches!(&registration(&settings).proof, Proof::Pat(pat) if pat == "ghp_XXXX"));
    let error = message(Some("RUNNER_SECRET=s"), "-T ghp_XXXX -p o/r");
    assert!(error.contains("-T is for a run by hand"), "{error}");
    let error = message(Some("RUNNER_SECRET=s\nRUNNER_PAT=ghp_XXXX"), "");
    assert!(error.contains("holds RUNNER_PAT, which must never leave the host"), "{error}");
    assert!(!error.contains("ghp_"), "{error}");
    assert!(
        resolve(None, "-p o/r", &[("RUNNER_PAT", "ghp_XXXX")]).is_err(),
        "a PAT of the environment is none"
    );
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    assert_eq!(message(Some(""), ""), "settings: RUNNER_SECRET is missing in the env file");
    assert_eq!(message(Some("RUNNER_SECRET=''"), ""), "settings: RUNNER_SECRET is missing in the env file");
    assert_eq!(
        message(Some("RUNNER_SECRET=s"), ""),
        "settings: RUNNER_JITCONFIG or RUNNER_TOKEN is missing in the env file"
    );
    assert_eq!(
        message(Some("RUNNER_ID=1-xyz"), ""),
        "settings: they are for runner 1-xyz, and this is 2-abc"
    );
    assert_eq!(
        message(Some("RUNNER_SECRET=s\nRUNNER_JITCONFIG=%%"), ""),
        "settings: RUNNER_JITCONFIG: the whole of the JIT config is not base64"
    );
    assert_eq!(
        message(None, ""),
        "settings: no registration: no env file at /_environment/2-abc.env, no -t TOKEN, no -T PAT, and no -- COMMAND"
    );
    assert_eq!(
        message(Some("RUNNER_SECRET=s\nRUNNER_JITCONFIG=x\nRUNNER_TOKEN=t"), ""),
        "settings: the env file holds both RUNNER_JITCONFIG and RUNNER_TOKEN: a runner is registered once"
    );
    let switch = resolve(None, "-t t -p o/r", &[("RUNNER_UPDATE", "maybe")]).err().expect("refused");
    assert_eq!(switch.to_string(), "settings: RUNNER_UPDATE is \"maybe\", and can be 1 or 0");
    assert!(message(None, "-t t").contains("must be OWNER/REPO"));
}
