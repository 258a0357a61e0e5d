//! Adds the machine's network to those of Docker's commands that need it.
//!
//! The names of options are those of Docker's client 29 (`docker --help`, `docker run --help`, `docker build --help`). It
//! parses them with pflag: `--name value`, `--name=value`, `-n value`, `-nvalue`, and several letters together.

use std::ffi::OsString;

/// The option that is added.
const ADDED: [&str; 2] = ["--network", "host"];

/// Options of the client itself, before the command, that take a value.
const GLOBAL: Values = Values::Of {
    long: &["config", "context", "host", "log-level", "tlscacert", "tlscert", "tlskey"],
    short: "cHl",
};

/// Options of buildx itself, between `buildx` and its command, that take a value.
const BUILDX: Values = Values::Of { long: &["builder"], short: "" };

/// All options of `run` and `create` take a value except for these.
const RUN: Values = Values::AllBut {
    long: &[
        "detach",
        "disable-content-trust",
        "help",
        "init",
        "interactive",
        "no-healthcheck",
        "oom-kill-disable",
        "privileged",
        "publish-all",
        "quiet",
        "read-only",
        "rm",
        "sig-proxy",
        "tty",
        "use-api-socket",
    ],
    short: "diPqt",
};

/// All options of `build`, the old one and buildx's, take a value except for these.
const BUILD: Values = Values::AllBut {
    long: &[
        "check",
        "compress",
        "debug",
        "disable-content-trust",
        "force-rm",
        "help",
        "load",
        "no-cache",
        "pull",
        "push",
        "quiet",
        "rm",
        "squash",
        "stream",
    ],
    short: "Dq",
};

/// The set of options that take a value.
#[derive(Clone, Copy)]
enum Values {
    Of { long: &'static [&'static str], short: &'static str },
    AllBut { long: &'static [&'static str], short: &'static str },
}

impl Values {
    fn long(self, name: &str) -> bool {
        match self {
            Self::Of { long, .. } => long.contains(&name),
            Self::AllBut { long, .. } => !long.contains(&name),
        }
    }

    fn short(self, letter: char) -> bool {
        match self {
            Self::Of { short, .. } => short.contains(letter),
            Self::AllBut { short, .. } => !short.contains(letter),
        }
    }
}

/// The kind of an argument, as pflag sees it.
enum Argument<'a> {
    /// `--`: no more options.
    End,
    /// An option; `name` is empty for letters. If `next` is true, its value is the next argument.
    Option { name: &'a str, next: bool },
    /// Anything else, including `-` alone.
    Word(&'a str),
}

fn classify(arg: &str, values: Values) -> Argument<'_> {
    if arg == "--" {
        return Argument::End;
    }
    if let Some(long) = arg.strip_prefix("--") {
        return match long.split_once('=') {
            Some((name, _)) => Argument::Option { name, next: false },
            None => Argument::Option { name: long, next: values.long(long) },
        };
    }
    match arg.strip_prefix('-') {
        None | Some("") => Argument::Word(arg),
        Some(letters) => {
            // The first letter with a value takes the rest as its value, or the next argument if there is no rest.
            let at = letters.find(|letter| letter == '=' || values.short(letter));
            let next = at.is_some_and(|at| !letters[at..].starts_with('=') && at + 1 == letters.len());
            Argument::Option { name: "", next }
        }
    }
}

/// Returns the first word from `at`, and its index; `None` if `--` comes first, or if there is no word. Calls `seen` with
/// the name of every option in between.
fn word(args: &[String], mut at: usize, values: Values, mut seen: impl FnMut(&str)) -> Option<(usize, &str)> {
    while let Some(arg) = args.get(at) {
        match classify(arg, values) {
            Argument::Word(word) => return Some((at, word)),
            Argument::End => return None,
            Argument::Option { name, next } => {
                seen(name);
                at += 1 + usize::from(next);
            }
        }
    }
    None
}

/// A command that may get the option. `after` is the index at which the option is inserted, and at which the search for
/// the command's options starts.
enum Command {
    /// Options end at the image.
    Run { after: usize },
    /// Options may come anywhere.
    Build { after: usize },
}

/// Adds the machine's network to the arguments of Docker's client (without the program), unless they name another network,
/// for `run`, `create`, `container run`, `container create`, `build`, `image build`, `builder build` and `buildx build`. The
/// arguments of all other commands, including `compose`, are returned unchanged.
///
/// A build with `--builder` is unchanged too, because it runs elsewhere, and refuses the host's network unless it was
/// configured for it. `builds_elsewhere` means the same for every build.
pub(super) fn with_host_network(args: Vec<OsString>, builds_elsewhere: bool) -> Vec<OsString> {
    // Arguments that are not UTF-8 can only be values and words, and none with a meaning for this function.
    let text: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let Some(command) = command(&text) else { return args };
    let (after, has_network) = match command {
        Command::Build { .. } if builds_elsewhere => return args,
        Command::Run { after } => (after, names_network(&text, after, RUN, true)),
        Command::Build { after } => (after, names_network(&text, after, BUILD, false)),
    };
    if has_network {
        return args;
    }
    let mut args = args;
    args.splice(after..after, ADDED.map(OsString::from));
    args
}

fn command(args: &[String]) -> Option<Command> {
    let none = |_: &str| {};
    let (at, first) = word(args, 0, GLOBAL, none)?;
    let after = at + 1;
    match first {
        "run" | "create" => return Some(Command::Run { after }),
        "build" => return Some(Command::Build { after }).filter(|_| !names_builder(args, after)),
        "container" | "image" | "builder" | "buildx" => {}
        _ => return None,
    }
    let mut elsewhere = false;
    let values = if first == "buildx" { BUILDX } else { GLOBAL };
    let (at, second) = word(args, after, values, |name| elsewhere |= name == "builder")?;
    let after = at + 1;
    match (first, second) {
        ("container", "run" | "create") => Some(Command::Run { after }),
        ("image" | "builder", "build") | ("buildx", "build" | "b") => {
            Some(Command::Build { after }).filter(|_| !elsewhere && !names_builder(args, after))
        }
        _ => None,
    }
}

fn names_network(args: &[String], after: usize, values: Values, ends_at_word: bool) -> bool {
    names(args, after, values, ends_at_word, &["network", "net"])
}

fn names_builder(args: &[String], after: usize) -> bool {
    names(args, after, BUILD, false, &["builder"])
}

fn names(args: &[String], after: usize, values: Values, ends_at_word: bool, wanted: &[&str]) -> bool {
    let mut found = false;
    let mut at = after;
    while let Some((word_at, _)) = word(args, at, values, |name| found |= wanted.contains(&name)) {
        if ends_at_word {
            break;
        }
        at = word_at + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::ffi::OsStringExt as _;

    fn wrapped(line: &str) -> String {
        wrapped_with(line, false)
    }

    fn wrapped_with(line: &str, builds_elsewhere: bool) -> String {
        let args = line.split(' ').filter(|arg| !arg.is_empty()).map(OsString::from).collect();
        let args = with_host_network(args, builds_elsewhere);
        args.iter().map(|arg| arg.to_str().expect("text")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn containers_and_builds_without_a_network_get_the_machines() {
        for (line, expected) in [
            ("run alpine true", "run --network host alpine true"),
            ("run --rm -it alpine", "run --network host --rm -it alpine"),
            ("create alpine", "create --network host alpine"),
            ("container run alpine", "container run --network host alpine"),
            ("container create -p 80:80 nginx", "container create --network host -p 80:80 nginx"),
            ("build .", "build --network host ."),
            ("build -t x --build-arg A=1 .", "build --network host -t x --build-arg A=1 ."),
            ("build - ", "build --network host -"),
            ("image build .", "image build --network host ."),
            ("builder build .", "builder build --network host ."),
            ("buildx build --load .", "buildx build --network host --load ."),
            ("buildx b .", "buildx b --network host ."),
            ("run", "run --network host"),
        ] {
            assert_eq!(wrapped(line), expected, "{line}");
        }
    }

    #[test]
    fn a_network_that_is_given_stays_however_it_is_written() {
        for line in [
            "run --network backyard alpine",
            "run --network=none alpine",
            "run --net=host alpine",
            "run --rm --net none alpine",
            "run -it --name x --network y alpine sh",
            "container run -e A=1 --network y alpine",
            "create --network y alpine",
            "build --network none .",
            "build . --network=none",
            "build -t x . --network none",
            "buildx build . --network none",
        ] {
            assert_eq!(wrapped(line), line);
        }
    }

    #[test]
    fn what_is_not_dockers_own_is_no_network() {
        for (line, expected) in [
            // Arguments of the program in the container.
            ("run alpine ip --network x", "run --network host alpine ip --network x"),
            ("run alpine --net none", "run --network host alpine --net none"),
            ("run -- alpine --network x", "run --network host -- alpine --network x"),
            // Values of other options.
            ("run -e --network alpine", "run --network host -e --network alpine"),
            ("run --env --net alpine", "run --network host --env --net alpine"),
            ("run -ite --network alpine", "run --network host -ite --network alpine"),
            ("build --tag --network .", "build --network host --tag --network ."),
            // Other options.
            ("run --network-alias db alpine", "run --network host --network-alias db alpine"),
            // A letter and its value in one argument.
            ("run -eA=1 alpine --network x", "run --network host -eA=1 alpine --network x"),
            ("run --rm=true alpine --network x", "run --network host --rm=true alpine --network x"),
            ("run -d=false alpine --network x", "run --network host -d=false alpine --network x"),
        ] {
            assert_eq!(wrapped(line), expected, "{line}");
        }
    }

    #[test]
    fn the_clients_own_options_come_before_the_command() {
        for (line, expected) in [
            ("-D run alpine", "-D run --network host alpine"),
            ("--debug run alpine", "--debug run --network host alpine"),
            ("-H unix:///x run alpine", "-H unix:///x run --network host alpine"),
            ("-Hunix:///x run alpine", "-Hunix:///x run --network host alpine"),
            ("-DH unix:///x run alpine", "-DH unix:///x run --network host alpine"),
            ("-H=unix:///x run alpine", "-H=unix:///x run --network host alpine"),
            ("--host unix:///x build .", "--host unix:///x build --network host ."),
            ("--config /c --context run create a", "--config /c --context run create --network host a"),
            ("-c run -l debug build .", "-c run -l debug build --network host ."),
            ("--log-level=debug --tls run a", "--log-level=debug --tls run --network host a"),
            ("--tlscacert build run a", "--tlscacert build run --network host a"),
        ] {
            assert_eq!(wrapped(line), expected, "{line}");
        }
    }

    #[test]
    fn all_else_is_handed_on_as_it_is() {
        for line in [
            "",
            "--version",
            "-v",
            "ps -a",
            "compose run web",
            "compose up -d",
            "--context run ps",
            "exec c run",
            "image ls build",
            "container ls",
            "network create run",
            "buildx bake",
            "buildx create --use",
            "help run",
            "pull alpine",
            "-- run alpine",
            "container",
            "--host",
        ] {
            assert_eq!(wrapped(line), line.trim(), "{line}");
        }
    }

    #[test]
    fn a_build_elsewhere_is_left_alone() {
        for line in [
            "buildx --builder far build .",
            "buildx build --builder far .",
            "buildx build . --builder=far",
            "build --builder far .",
        ] {
            assert_eq!(wrapped(line), line);
        }
    }

    #[test]
    fn a_builder_in_the_environment_is_as_good_as_an_option() {
        for line in ["build .", "image build .", "builder build .", "buildx build .", "buildx b ."] {
            assert_eq!(wrapped_with(line, true), line);
        }
        assert_eq!(wrapped_with("run alpine", true), "run --network host alpine");
        assert_eq!(wrapped_with("create alpine", true), "create --network host alpine");
    }

    #[test]
    fn bytes_that_are_no_text_stay_as_they_are() {
        let odd = OsString::from_vec(b"a\xff\xfe".to_vec());
        let args = with_host_network(vec!["run".into(), "-v".into(), odd.clone(), "alpine".into()], false);
        assert_eq!(
            args,
            ["run".into(), "--network".into(), "host".into(), "-v".into(), odd, OsString::from("alpine")]
        );
    }

    /// Generates anything that a command line may hold, including the words that have a meaning.
    fn argument() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "run|create|container|build|image|buildx|builder|compose|alpine|\\.",
            2 => "--network|--net|--network=x|--net=x|--|-|--builder|-H|-e|-it|--rm|--name|-D|--host=x",
            1 => ".{0,6}",
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_ever_lost_or_moved_and_at_most_the_network_is_added(
            line in proptest::collection::vec(argument(), 0..8),
        ) {
            let args: Vec<OsString> = line.iter().map(OsString::from).collect();
            let wrapped = with_host_network(args.clone(), false);
            if wrapped != args {
                prop_assert_eq!(wrapped.len(), args.len() + 2);
                let at = wrapped.iter().zip(&args).take_while(|(new, old)| new == old).count();
                // The first difference comes later if the next arguments look like the added ones.
                let at = (at.saturating_sub(2)..=at).find(|at| wrapped[*at..*at + 2] == ADDED.map(OsString::from));
                let at = at.expect("it is the network that was added");
                let mut without = wrapped.clone();
                without.drain(at..at + 2);
                prop_assert_eq!(without, args);
                prop_assert!(at > 0 && ["run", "create", "build", "b"].iter().any(|name| wrapped[at - 1] == *name));
            }
        }

        #[test]
        fn twice_is_as_once(line in proptest::collection::vec(argument(), 0..8)) {
            let once = with_host_network(line.iter().map(OsString::from).collect(), false);
            prop_assert_eq!(with_host_network(once.clone(), false), once);
        }

        #[test]
        fn what_runs_in_the_container_changes_nothing(
            options in proptest::collection::vec("--rm|-it|-d|--name=x|--read-only", 0..4),
            command in proptest::collection::vec(argument(), 0..6),
        ) {
            let mut line: Vec<OsString> = vec!["run".into()];
            line.extend(options.iter().map(OsString::from));
            line.push("alpine".into());
            line.extend(command.iter().map(OsString::from));
            let wrapped = with_host_network(line.clone(), false);
            prop_assert_eq!(&wrapped[..3], ["run".into(), "--network".into(), OsString::from("host")]);
            prop_assert_eq!(&wrapped[3..], &line[1..]);
        }
    }
}
