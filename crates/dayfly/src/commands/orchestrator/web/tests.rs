use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn message(failure: &Failure) -> String {
    format!("{failure}\n  hint: {}", failure.what_to_do().unwrap_or("none"))
}

fn refusal(address: &str, token: Option<(&str, u32)>) -> String {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("token");
    if let Some((text, mode)) = token {
        std::fs::write(&file, text).expect("written");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let address = address.parse().expect("an address");
    let failure = open(&address, token.map(|_| file.as_path()), "--listen").err().expect("refused");
    message(&failure).replace(&folder.path().display().to_string(), "DIR")
}

#[tokio::test]
async fn a_token_that_is_missing_or_bad_is_refused_with_one_clear_message() {
    let all = [
        refusal("0.0.0.0:0", None),
        refusal("0.0.0.0:0", Some(("short\n", 0o600))),
        refusal("127.0.0.1:0", Some(("", 0o600))),
        refusal("127.0.0.1:0", Some(("0123456789abcdef\n0123\n", 0o600))),
        refusal("127.0.0.1:0", Some(("0123456789abcdef\n", 0o644))),
    ];
    insta::assert_snapshot!(all.join("\n"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_refused_with_one_clear_message() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let message = refusal(&address.to_string(), None).replace(&address.port().to_string(), "PORT");
    insta::assert_snapshot!(message);
}

#[tokio::test]
async fn a_token_that_is_one_line_is_taken() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "0123456789abcdef\n").expect("written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    open(&"127.0.0.1:0".parse().expect("an address"), Some(&file), "web.listen").map(drop).expect("taken");
}
