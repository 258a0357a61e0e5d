//! Errors of GitHub Apps. Each says what the App's owner, or the admin of this host, has to change.

use thiserror::Error;

use super::super::error::ForgeError;
use super::key::AppKeyError;

/// Errors of GitHub Apps.
#[derive(Debug, Error)]
pub enum AppError {
    /// The text is no id of an App.
    #[error(
        "\"{id}\" is no id of a GitHub App: its settings page shows the app id, a number, and the client id, letters and digits"
    )]
    BadId {
        /// The text.
        id: String,
    },
    /// No scope is given.
    #[error("a GitHub App needs a repository or an organisation that it is used for")]
    NoScope,
    /// The scope is an enterprise.
    #[error(
        "{scope} is an enterprise, whose runners GitHub Apps cannot manage; use a classic token with the scope \
         \"manage_runners:enterprise\", or runners of an organisation"
    )]
    Enterprise {
        /// The enterprise.
        scope: String,
    },
    /// The scopes belong to several owners.
    #[error(
        "an installation of a GitHub App serves one owner, not both {first} and {other}; use a credential for each of them"
    )]
    SeveralOwners {
        /// One owner.
        first: String,
        /// Another one.
        other: String,
    },
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] AppKeyError),
    /// 401: the forge cannot verify the signature, or does not know the App.
    #[error(
        "the forge does not accept the private key of the GitHub App {app} ({message}); check that the id and the key belong to \
         the same App, and that the key was not deleted on the App's settings page"
    )]
    WrongKey {
        /// The App.
        app: String,
        /// The message of the forge.
        message: String,
    },
    /// 401: the assertion's times are wrong, also after they were corrected by the forge's clock.
    #[error(
        "the forge does not accept the time of this host for the GitHub App {app} ({message}); {}; synchronise it (NTP)",
        difference(*.ahead_s)
    )]
    Clock {
        /// The App.
        app: String,
        /// The message of the forge.
        message: String,
        /// Seconds by which this host's clock is ahead of the forge's.
        ahead_s: i64,
    },
    /// 404: the App is not installed at the scope.
    #[error(
        "the GitHub App {app} is not installed for {scope} ({message}); install it with \"Install App\" on its settings page, and \
         select the repository if the installation is for selected repositories"
    )]
    NotInstalled {
        /// The App.
        app: String,
        /// The repository or organisation.
        scope: String,
        /// The message of the forge.
        message: String,
    },
    /// 404: the App has no installation with this id.
    #[error(
        "the GitHub App {app} has no installation {installation} ({message}); the number at the end of the installation's \
         address is its id, and without an id dayfly finds the installation by the owner of the runners"
    )]
    NoInstallation {
        /// The App.
        app: String,
        /// The id.
        installation: u64,
        /// The message of the forge.
        message: String,
    },
    /// 403: the installation is suspended.
    #[error(
        "the installation {installation} of the GitHub App {app} is suspended ({message}); its owner ends that with \
         \"Unsuspend\" on the installation's settings page"
    )]
    Suspended {
        /// The App.
        app: String,
        /// The installation.
        installation: u64,
        /// The message of the forge.
        message: String,
    },
    /// 422: the installation lacks a permission, or a repository.
    #[error(
        "the installation {installation} of the GitHub App {app} does not grant what dayfly needs ({message}): {needs}; give the \
         App the permission on its settings page and have the owner accept it on the installation's page, or add the \
         repository to the installation"
    )]
    NotGranted {
        /// The App.
        app: String,
        /// The installation.
        installation: u64,
        /// The message of the forge.
        message: String,
        /// The permissions that are needed, each with its use.
        needs: String,
    },
    /// 401: the forge does not accept a token that it has issued.
    #[error(
        "the forge does not accept its own token of the GitHub App {app} ({message}); check that the App is still installed, and \
         that the installation is not suspended"
    )]
    TokenRefused {
        /// The App.
        app: String,
        /// The message of the forge.
        message: String,
    },
    /// Any other error of a call.
    #[error(transparent)]
    Call(Box<ForgeError>),
}

impl AppError {
    /// Returns true if the same call may succeed later without a change by an admin.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_temporary())
    }
}

impl From<ForgeError> for AppError {
    fn from(error: ForgeError) -> Self {
        Self::Call(Box::new(error))
    }
}

fn difference(ahead_s: i64) -> String {
    let seconds = ahead_s.unsigned_abs();
    let direction = if ahead_s < 0 { "behind" } else { "ahead of" };
    format!("this host's clock is {seconds} s {direction} the forge's")
}
