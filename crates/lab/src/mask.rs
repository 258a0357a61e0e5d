//! Masks secrets in everything that a runner reports, before it is stored or published, even if the runner did not mask it.
//!
//! The rules are those of actions/runner 2.336.0 (`Worker.InitializeSecretMasker`, `AddMaskCommandExtension`,
//! `ValueEncoders`): a secret is masked as a whole, each of its lines is masked, and so are the forms in which programs
//! print it (base64, JSON, URL, XML and others). A line `::add-mask::VALUE` adds a secret to its job.

mod automaton;
mod form;

use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use automaton::Automaton;
pub(crate) use form::base64_forms;

/// The text that replaces a secret.
const MASKED: &str = "***";
/// Most secrets that a job may add, each line counted, and most bytes of them together. They bound the memory of a mask
/// because a job is not trusted. The log of a job that adds more is cut, because the lab could not mask it.
const ADDED_MAX: usize = 1000;
const ADDED_BYTES_MAX: usize = 128 * 1024;
/// Longest line of a secret of several lines that is not masked, in bytes. A brace, for example, occurs everywhere;
/// masking it would hide much of a log and protect nothing.
const BARE_LINE_MAX: usize = 2;
/// The marks that github-act-runner 0.13.0 writes before a command that it does not understand or ignores. It does not
/// understand a value with `::` in it, such as the name of an AWS resource.
const COMMAND_MARKS: [char; 2] = ['\u{2753}', '\u{2699}'];
const COMMAND: &str = "add-mask";

/// Secrets, compiled for the search.
pub(crate) struct SecretSet {
    secrets: Vec<SecretString>,
    automaton: Automaton,
}

impl SecretSet {
    /// Compiles secrets with all their forms.
    pub(crate) fn new(secrets: Vec<SecretString>) -> Self {
        let mut patterns = Vec::new();
        for secret in &secrets {
            add_patterns(secret.expose_secret(), &mut patterns);
        }
        Self { automaton: Automaton::new(&patterns), secrets }
    }
}

/// The secrets of one job.
pub(crate) struct Mask {
    /// The secrets of the job's repository, which its jobs share.
    of_repository: Arc<SecretSet>,
    /// The job's own secrets. Each set has at least twice as many as the next one, so that adding secrets one by one
    /// compiles each of them a few times only.
    of_job: Vec<SecretSet>,
    added: usize,
    added_bytes: usize,
}

/// A job adds more secrets than the lab can mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "log cut, because the job adds more masks than the lab keeps: {ADDED_MAX} lines with {ADDED_BYTES_MAX} bytes"
)]
pub(crate) struct TooManyMasks;

impl Mask {
    /// Creates a mask from the secrets of a repository and from the tokens of a job.
    pub(crate) fn new(of_repository: Arc<SecretSet>, tokens: Vec<SecretString>) -> Self {
        Self { of_repository, of_job: vec![SecretSet::new(tokens)], added: 0, added_bytes: 0 }
    }

    /// Returns the text with its secrets replaced. As on GitHub, secrets that overlap or touch are replaced together.
    pub(crate) fn apply(&self, text: &str) -> String {
        let sets = std::iter::once(self.of_repository.as_ref()).chain(&self.of_job);
        let mut ranges: Vec<(usize, usize)> =
            sets.flat_map(|set| set.automaton.find(text.as_bytes())).collect();
        ranges.sort_unstable();
        let (mut masked, mut done) = (String::new(), 0);
        let mut ranges = ranges.into_iter().peekable();
        while let Some((start, mut end)) = ranges.next() {
            while let Some((_, next_end)) = ranges.next_if(|(next, _)| *next <= end) {
                end = end.max(next_end);
            }
            masked.push_str(&text[done..start]);
            masked.push_str(MASKED);
            done = end;
        }
        masked.push_str(&text[done..]);
        masked
    }

    /// Returns a line of a log with its secrets replaced. If it is an `add-mask` command, also returns the secret, which
    /// the caller passes to [`Self::add`] before the next line, unless it is masked already.
    pub(crate) fn line(&self, line: &str) -> (String, Option<SecretString>) {
        let Some((before, secret)) = add_mask_command(line) else { return (self.apply(line), None) };
        let is_new = secret
            .split(['\r', '\n'])
            .map(str::trim)
            .any(|part| !matches!(self.apply(part).as_str(), "" | MASKED));
        (format!("{}{MASKED}", self.apply(before)), is_new.then(|| secret.into()))
    }

    /// Adds a secret. Each of its lines is masked from now on.
    ///
    /// # Errors
    /// If the job has added too many. The secret is not masked then.
    pub(crate) fn add(&mut self, secret: SecretString) -> Result<(), TooManyMasks> {
        let text = secret.expose_secret();
        let lines = text.split(['\r', '\n']).filter(|line| !line.trim().is_empty()).count();
        let (added, bytes) = (self.added + lines, self.added_bytes + text.len());
        if added > ADDED_MAX || bytes > ADDED_BYTES_MAX {
            return Err(TooManyMasks);
        }
        (self.added, self.added_bytes) = (added, bytes);
        let mut secrets = vec![secret];
        while let Some(smaller) = self.of_job.pop_if(|set| set.secrets.len() < 2 * secrets.len()) {
            secrets.extend(smaller.secrets);
        }
        self.of_job.push(SecretSet::new(secrets));
        Ok(())
    }
}

/// Splits a line `::add-mask::VALUE` or `##[add-mask]VALUE` before its value, and decodes the value (actions/runner,
/// `ActionCommand.TryParseV2` and `TryParse`). Returns `None` for any other line.
fn add_mask_command(line: &str) -> Option<(&str, String)> {
    let text = line.trim_start_matches(|c: char| c.is_whitespace() || COMMAND_MARKS.contains(&c));
    let is_command = |info: &str| info.split(' ').next() == Some(COMMAND);
    let value = match text.strip_prefix("::") {
        Some(rest) => rest.split_once("::").filter(|(info, _)| is_command(info))?.1,
        None => line.split_once("##[")?.1.split_once(']').filter(|(info, _)| is_command(info))?.1,
    };
    if value.trim().is_empty() {
        return None;
    }
    let decoded = [("%0D", "\r"), ("%0A", "\n"), ("%3B", ";"), ("%5D", "]"), ("%25", "%")]
        .into_iter()
        .filter(|(code, _)| !text.starts_with("::") || !matches!(*code, "%3B" | "%5D"))
        .fold(value.to_owned(), |value, (code, character)| value.replace(code, character));
    Some((&line[..line.len() - value.len()], decoded))
}

/// Adds the patterns of a secret: its lines, and for several lines the forms in which they stand in one line.
fn add_patterns(secret: &str, patterns: &mut Vec<String>) {
    let lines: Vec<&str> =
        secret.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty()).collect();
    if let [line] = lines.as_slice() {
        patterns.extend(form::all(line));
        return;
    }
    lines.iter().filter(|line| line.len() > BARE_LINE_MAX).for_each(|line| patterns.extend(form::all(line)));
    if !lines.is_empty() {
        patterns.extend(form::in_one_line(secret.trim()));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests;
