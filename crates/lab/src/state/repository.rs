//! Repositories with their workflow files, variables and secrets. They are created on first use.

use indexmap::IndexMap;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize, Serializer};

use super::LabState;
use crate::journal::Record;
use crate::refusal::Refusal;
use crate::workflow;

/// Longest workflow file, in bytes.
const WORKFLOW_BYTES_MAX: usize = 1024 * 1024;
/// GitHub's limit for secrets and variables is 48 KB.
const VALUE_BYTES_MAX: usize = 48 * 1024;
/// Most bytes of all secrets of a repository. All their forms are searched for in every log, so that they bound its memory.
const SECRETS_BYTES_MAX: usize = 256 * 1024;
const NAME_LEN_MAX: usize = 100;
const WORKFLOWS: &str = ".github/workflows/";

/// The name `owner/name` of a repository. Both parts are checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RepositoryName {
    pub(crate) owner: String,
    pub(crate) name: String,
}

impl RepositoryName {
    /// Accepts the characters that GitHub accepts: letters, digits, `-`, `_` and `.`. None of them has a special meaning
    /// in a path.
    pub(crate) fn new(owner: &str, name: &str) -> Result<Self, Refusal> {
        if is_plain_name(owner) && is_plain_name(name) {
            Ok(Self { owner: owner.to_owned(), name: name.to_owned() })
        } else {
            Err(Refusal::not_found())
        }
    }

    pub(crate) fn full_name(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    /// Returns the key of the repository. Names that differ only in case have the same key, because they are the same
    /// repository.
    pub(crate) fn key(&self) -> String {
        self.full_name().to_ascii_lowercase()
    }
}

/// Returns true if a name can be used in an address and as a file name.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=NAME_LEN_MAX).contains(&name.len()) && name.chars().all(plain) && name.chars().any(|c| c != '.')
}

/// A repository.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Repository {
    pub(crate) id: u64,
    pub(crate) name: RepositoryName,
    /// True if everyone may read it, so that strangers may bring jobs by pull requests.
    #[serde(default)]
    pub(crate) is_public: bool,
    /// The workflow files by file name.
    pub(crate) workflows: IndexMap<String, WorkflowFile>,
    pub(crate) variables: IndexMap<String, String>,
    #[serde(serialize_with = "exposed")]
    pub(crate) secrets: IndexMap<String, SecretString>,
}

/// Writes secrets into the journal, which is a private file.
fn exposed<S: Serializer>(
    secrets: &IndexMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(secrets.iter().map(|(name, secret)| (name, secret.expose_secret())))
}

/// A workflow file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkflowFile {
    pub(crate) id: u64,
    pub(crate) text: String,
    /// The id of the commit that put the file here: 40 hex digits computed from its text.
    pub(crate) sha: String,
    /// The number of its last run.
    pub(crate) runs: u64,
}

impl LabState {
    /// Returns the repository. Creates it if it does not exist yet.
    pub(crate) fn repository(&mut self, name: &RepositoryName) -> Result<&mut Repository, Refusal> {
        let key = name.key();
        if !self.repositories.contains_key(&key) {
            if self.repositories.len() >= self.limits.repositories_max {
                return Err(Refusal::new(
                    422,
                    format!("The lab holds {} repositories at most", self.limits.repositories_max),
                ));
            }
            let repository = Repository {
                id: self.new_id(),
                name: name.clone(),
                is_public: false,
                workflows: IndexMap::new(),
                variables: IndexMap::new(),
                secrets: IndexMap::new(),
            };
            self.repositories.insert(key.clone(), repository);
        }
        Ok(self.repositories.get_mut(&key).expect("it was just put there"))
    }

    /// Returns true if the repository is public. One that was never used is private.
    pub(crate) fn is_public(&self, name: &RepositoryName) -> bool {
        self.repositories.get(&name.key()).is_some_and(|repository| repository.is_public)
    }

    /// Makes a repository public or private.
    pub(crate) fn set_public(&mut self, name: &RepositoryName, is_public: bool) -> Result<(), Refusal> {
        self.repository(name)?.is_public = is_public;
        self.record_repository(name);
        Ok(())
    }

    fn record_repository(&mut self, name: &RepositoryName) {
        if let Some(repository) = self.repositories.get(&name.key()) {
            let record = Record::Repository(repository.clone());
            self.record(&record);
        }
    }

    /// Puts a workflow file into a repository. Returns its commit and whether it is new.
    pub(crate) fn put_workflow(
        &mut self,
        name: &RepositoryName,
        path: &str,
        text: String,
    ) -> Result<(String, bool), Refusal> {
        let file = workflow_file_name(path)?;
        if text.len() > WORKFLOW_BYTES_MAX {
            return Err(Refusal::invalid([format!(
                "{path}: {} bytes, more than {WORKFLOW_BYTES_MAX}",
                text.len()
            )]));
        }
        if let Err(diagnostics) = workflow::parse(path, &text) {
            return Err(Refusal::invalid(diagnostics.remarks().iter().map(ToString::to_string)));
        }
        let entries_max = self.limits.entries_per_repository_max;
        let id = self.new_id();
        let sha = commit_of(&text);
        let repository = self.repository(name)?;
        let new = !repository.workflows.contains_key(file);
        if new && repository.workflows.len() >= entries_max {
            return Err(Refusal::invalid([format!(
                "a repository of the lab holds {entries_max} workflow files at most"
            )]));
        }
        let entry = repository.workflows.entry(file.to_owned());
        let entry = entry.or_insert(WorkflowFile { id, text: String::new(), sha: String::new(), runs: 0 });
        entry.text = text;
        entry.sha = sha.clone();
        self.record_repository(name);
        Ok((sha, new))
    }

    /// Finds a workflow file by its file name or its id. Returns the file with its name.
    pub(crate) fn workflow_file(
        &self,
        name: &RepositoryName,
        file: &str,
    ) -> Result<(&str, &WorkflowFile), Refusal> {
        let repository = self.repositories.get(&name.key()).ok_or_else(Refusal::not_found)?;
        let found =
            repository.workflows.iter().find(|(key, entry)| *key == file || entry.id.to_string() == file);
        found.map(|(key, entry)| (key.as_str(), entry)).ok_or_else(Refusal::not_found)
    }

    /// Returns the number of the workflow's next run and counts it.
    pub(super) fn next_run_number(&mut self, name: &RepositoryName, file: &str) -> Result<u64, Refusal> {
        let entry = self.repository(name)?.workflows.get_mut(file).ok_or_else(Refusal::not_found)?;
        entry.runs += 1;
        let number = entry.runs;
        self.record_repository(name);
        Ok(number)
    }

    /// Sets a variable. Returns whether it is new.
    pub(crate) fn put_variable(
        &mut self,
        name: &RepositoryName,
        key: &str,
        value: String,
    ) -> Result<bool, Refusal> {
        let length = value.len();
        self.put_value(name, key, value, length, |repository| &mut repository.variables)
    }

    /// Sets a secret. Returns whether it is new.
    pub(crate) fn put_secret(
        &mut self,
        name: &RepositoryName,
        key: &str,
        value: SecretString,
    ) -> Result<bool, Refusal> {
        let length = value.expose_secret().len();
        let others =
            self.repositories.get(&name.key()).into_iter().flat_map(|repository| &repository.secrets);
        let others = others.filter(|(other, _)| !other.eq_ignore_ascii_case(key));
        let bytes: usize = others.map(|(_, secret)| secret.expose_secret().len()).sum();
        if bytes + length > SECRETS_BYTES_MAX {
            return Err(Refusal::invalid([format!(
                "{key}: the secrets of a repository of the lab have at most {SECRETS_BYTES_MAX} bytes in all"
            )]));
        }
        let new = self.put_value(name, key, value.clone(), length, |repository| &mut repository.secrets)?;
        self.secret_changed(&name.key(), &value);
        Ok(new)
    }

    fn put_value<T>(
        &mut self,
        name: &RepositoryName,
        key: &str,
        value: T,
        length: usize,
        of: impl Fn(&mut Repository) -> &mut IndexMap<String, T>,
    ) -> Result<bool, Refusal> {
        let key = value_name(key)?;
        if length > VALUE_BYTES_MAX {
            return Err(Refusal::invalid([format!("{key}: {length} bytes, more than {VALUE_BYTES_MAX}")]));
        }
        let entries_max = self.limits.entries_per_repository_max;
        let values = of(self.repository(name)?);
        if !values.contains_key(&key) && values.len() >= entries_max {
            return Err(Refusal::invalid([format!(
                "a repository of the lab holds {entries_max} of them at most"
            )]));
        }
        let new = values.insert(key, value).is_none();
        self.record_repository(name);
        Ok(new)
    }
}

/// Returns `ci.yml` for `.github/workflows/ci.yml`.
fn workflow_file_name(path: &str) -> Result<&str, Refusal> {
    let file = path.strip_prefix(WORKFLOWS).filter(|file| is_plain_name(file));
    file.filter(|file| file.ends_with(".yml") || file.ends_with(".yaml")).ok_or_else(|| {
        Refusal::invalid([format!("{path}: the lab keeps workflow files only, {WORKFLOWS}NAME.yml")])
    })
}

/// Checks the name of a secret or variable and returns it in upper case, as GitHub stores it.
fn value_name(name: &str) -> Result<String, Refusal> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let good = (1..=NAME_LEN_MAX).contains(&name.len())
        && name.chars().all(plain)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.to_ascii_uppercase().starts_with("GITHUB_");
    if good {
        Ok(name.to_ascii_uppercase())
    } else {
        Err(Refusal::invalid([format!(
            "\"{name}\" is no name for it: letters, digits and _ only, not a digit first, not GITHUB_..."
        )]))
    }
}

/// Returns forty hex digits that change with the text, like the id of a commit.
fn commit_of(text: &str) -> String {
    use sha2::Digest as _;
    dayfly_host::digest::hexadecimal(&sha2::Sha256::digest(text.as_bytes())[..20])
}
