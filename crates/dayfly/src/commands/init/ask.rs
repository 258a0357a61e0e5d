//! The questions of `dayfly init`. Each has a default, and is asked only if no option has answered it.
//!
//! They are lines of text, so that they work on every terminal and can be tested without one.

use std::fmt::Display;
use std::io::{BufRead, Read as _, Write};
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use super::{MAX, POOL, TOKEN_FILE, scope_of};
use crate::cli::InitArgs;
use crate::config::{DemandWord, ScopeWord};

/// Longest answer, bytes.
const ANSWER_MAX: u64 = 1024;
/// Most answers to one question.
const TRIES: usize = 5;

/// Asks for what the options do not say.
///
/// # Errors
/// There is no answer to a question, or none that makes sense.
pub(super) fn complete(
    args: &mut InitArgs,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> Result<(), String> {
    let mut ask = Ask { input, output };
    let principal: String =
        ask.question("Repository (OWNER/REPO), organisation or enterprise", None, |text: &str| {
            if text.is_empty() { Err("a name is needed".to_owned()) } else { Ok(text.to_owned()) }
        })?;
    if args.scope.is_none() {
        args.scope = Some(match scope_of(&principal) {
            ScopeWord::Repo => ScopeWord::Repo,
            otherwise => ask.word("Scope", otherwise)?,
        });
    }
    args.principal = Some(principal);
    let is_authentic =
        args.token_file.is_some() || args.token_env.is_some() || args.token_credential.is_some();
    if !is_authentic && args.app_id.is_none() {
        args.token_file =
            Some(ask.value("File that contains the token", PathBuf::from(TOKEN_FILE), |path| {
                path.display().to_string()
            })?);
    }
    if args.pool.is_none() {
        args.pool =
            Some(ask.value("Name of the pool, the label in runs-on", POOL.to_owned(), Clone::clone)?);
    }
    if args.demand.is_none() {
        args.demand = Some(ask.word("Source of the demand for runners", DemandWord::ScaleSet)?);
    }
    if args.max.is_none() {
        args.max = Some(ask.value("Most runners", MAX, u32::to_string)?);
    }
    Ok(())
}

struct Ask<'a, I, O> {
    input: &'a mut I,
    output: &'a mut O,
}

impl<I: BufRead, O: Write> Ask<'_, I, O> {
    /// Asks for a value that can be parsed.
    fn value<T: FromStr>(
        &mut self,
        question: &str,
        default: T,
        show: impl Fn(&T) -> String,
    ) -> Result<T, String>
    where
        T::Err: Display,
    {
        let default = show(&default);
        self.question(question, Some(&default), |text| {
            text.parse().map_err(|error: T::Err| error.to_string())
        })
    }

    /// Asks for one of several words.
    fn word<T: ValueEnum>(&mut self, question: &str, default: T) -> Result<T, String> {
        let name =
            |word: &T| word.to_possible_value().map(|word| word.get_name().to_owned()).unwrap_or_default();
        let all: Vec<String> = T::value_variants().iter().map(name).collect();
        let question = format!("{question} ({})", all.join(", "));
        self.question(&question, Some(&name(&default)), |text| {
            T::from_str(text, true).map_err(|_| format!("one of {} is needed", all.join(", ")))
        })
    }

    /// Asks until an answer makes sense. An empty answer is the default.
    fn question<T>(
        &mut self,
        question: &str,
        default: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, String> {
        let shown = default.map(|default| format!(" [{default}]")).unwrap_or_default();
        for _ in 0..TRIES {
            let _ = write!(self.output, "{question}{shown}: ");
            let _ = self.output.flush();
            let mut line = String::new();
            let read = self.input.by_ref().take(ANSWER_MAX).read_line(&mut line);
            if read.map_err(|error| format!("cannot read the answer: {error}"))? == 0 {
                return Err(format!("no answer to: {question}"));
            }
            let answer =
                Some(line.trim()).filter(|answer| !answer.is_empty()).or(default).unwrap_or_default();
            match parse(answer) {
                Ok(value) => return Ok(value),
                Err(why) => {
                    let _ = writeln!(self.output, "{answer:?}: {why}");
                }
            }
        }
        Err(format!("no answer that makes sense to: {question}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn asked(options: &str, answers: &str) -> (Result<InitArgs, String>, String) {
        let cli = Cli::try_parse_from(["dayfly", "init"].into_iter().chain(options.split_whitespace()))
            .expect("options");
        let Command::Init(mut args) = cli.command else { panic!("not init") };
        let mut output = Vec::new();
        let end = complete(&mut args, &mut answers.as_bytes(), &mut output);
        (end.map(|()| *args), String::from_utf8(output).expect("text"))
    }

    #[test]
    fn a_principal_and_empty_answers_are_enough() {
        let (args, _) = asked("", "acme/app\n\n\n\n\n");
        let args = args.expect("complete");
        assert_eq!((args.principal.as_deref(), args.scope), (Some("acme/app"), Some(ScopeWord::Repo)));
        assert_eq!(args.token_file, Some(TOKEN_FILE.into()));
        assert_eq!(
            (args.demand, args.max, args.pool.as_deref()),
            (Some(DemandWord::ScaleSet), Some(4), Some("build"))
        );
    }

    #[test]
    fn only_what_the_options_leave_open_is_asked() {
        let (args, asked) = asked("--token-env T --pool p --demand static --max 2", "acme\nenterprise\n");
        assert_eq!(args.expect("complete").scope, Some(ScopeWord::Enterprise));
        insta::assert_snapshot!(asked.replace(": ", ":\n"), @r"
        Repository (OWNER/REPO), organisation or enterprise:
        Scope (repo, org, enterprise) [org]:
        ");
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_asked_again_but_not_for_ever() {
        let (args, asked_text) = asked("", "acme/app\n/t\np\nscaleset\nPOLL\nmany\n7\n");
        let args = args.expect("complete");
        assert_eq!((args.demand, args.max), (Some(DemandWord::Poll), Some(7)));
        assert!(
            asked_text.contains("\"scaleset\": one of static, scale-set, webhook, poll is needed"),
            "{asked_text}"
        );
        let (end, _) = asked("", "\n\n\n\n\n\n");
        assert!(end.expect_err("no name").starts_with("no answer that makes sense"));
        let (end, _) = asked("", "");
        assert!(end.expect_err("the end").starts_with("no answer to"));
    }
}
