//! The text of `-h`: each option with its variable and the value in force, and the variables without an option.

use super::options::{OPTIONS, Options};
use super::settings::{Layers, VARIABLES};
use crate::options::Switch;

pub(super) const USAGE: &str = "usage: dayfly-guest entrypoint -i ID [OPTIONS] [-- COMMAND...]";

/// Options with secret values. The help only shows whether they are set.
const SECRETS: [&str; 3] = ["pat", "secret", "token"];

/// Returns the text for these options and this process's environment. The env file is not read, so it does not count.
pub(super) fn text(options: &Options, environment: &[(String, String)]) -> String {
    let layers = Layers { file: None, options, environment };
    let mut text = format!(
        "{USAGE}\nStarts the runner app of one runner, or COMMAND in its place, and stops it when the loop says so.\n\n"
    );
    text.push_str(&crate::options::help(&OPTIONS, |option| in_force(&layers, option)));
    text.push_str("\nVariables without an option:\n");
    text.push_str(&crate::options::help_of_variables(&VARIABLES, |variable| layers.in_force(variable)));
    text
}

fn in_force(layers: &Layers<'_>, option: &Switch) -> String {
    let value = match option.variable {
        "" => layers.options.get(option.long).unwrap_or_default().to_owned(),
        variable => layers.in_force(variable),
    };
    if SECRETS.contains(&option.long) && !value.is_empty() { "set".to_owned() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_shows_what_is_in_force_and_no_secret() {
        let args = ["-h", "-i", "2-abc", "-T", "ghp_XXXX", "-S", "s3cret"].map(str::to_owned);
        let options = super::super::options::parse(&args).expect("good");
        let environment =
            [("RUNNER_TOKEN", "s3cret"), ("RUNNER_DISTRO", "debian"), ("RUNNER_LABELS", "self-hosted,big")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        insta::assert_snapshot!(text(&options, &environment), @r"
        usage: dayfly-guest entrypoint -i ID [OPTIONS] [-- COMMAND...]
        Starts the runner app of one runner, or COMMAND in its place, and stops it when the loop says so.

          -e, --ephemeral            end after one job [RUNNER_EPHEMERAL=1]
          -E, --env-file FILE        settings, read and removed; they win over options [RUNNER_ENVFILE=]
          -g, --forge HOST           forge: a host or a URL [RUNNER_GITHUB=github.com]
          -G, --group GROUP          runner group [RUNNER_GROUP=]
          -i, --id ID                id of the runner, names its files [RUNNER_ID=2-abc]
          -k, --token-file FILE      written when the runner is registered [RUNNER_TOKENFILE=]
          -l, --log LOG              lines go there too: a descriptor's number, or a file [RUNNER_LOG=]
          -L, --labels LABELS        all labels, separated by commas [RUNNER_LABELS=self-hosted,big]
          -n, --name NAME            name of the runner at the forge [RUNNER_NAME=GH-runner-2-abc]
          -p, --principal NAME       OWNER/REPO, organisation or enterprise [RUNNER_PRINCIPAL=]
          -s, --scope SCOPE          what the principal is: repo, org or ent [RUNNER_SCOPE=repo]
          -S, --secret SECRET        secret of the loop, proves its .trm [RUNNER_SECRET=set]
          -t, --token TOKEN          registration token [RUNNER_TOKEN=set]
          -T, --pat PAT              personal access token, only without an env file [set]
          -u, --user USER            who runs the app; '' for the current user [RUNNER_USER=runner]
          -U, --update               the app may update itself [RUNNER_UPDATE=0]
          -v, --verbose              say more [RUNNER_VERBOSE=0]
          -h, --help                 this text
              --environment DIR      the environment directory
              --app PROGRAM          the runner app, wherever it is
              --app-dir DIR          its folder, made anew

        Variables without an option:
          RUNNER_DOCKER              1: start the container engine (1 where docker is in PATH) [0]
          RUNNER_INSTALL             where the runner app is installed, or runner-<version> folders with it []
          RUNNER_WORKDIR             where jobs work [/_work/GH-runner-2-abc]
          RUNNER_LOGDIR              where all lines are kept in files [/var/log/runner]
          RUNNER_DEFAULT_LABELS      labels of a runner that is given none [krun]
          RUNNER_DISTRO              distribution, a label of a runner that is given none [debian]
          RUNNER_CONTAINERS_CONFDIR  configuration of the container engine [/etc/containers]
          RUNNER_HTTP_PROXY          proxy of the runner app, of jobs and of Docker for http []
          RUNNER_HTTPS_PROXY         the same for https []
          RUNNER_NO_PROXY            hosts and domains that are reached without a proxy []
        ");
    }
}
