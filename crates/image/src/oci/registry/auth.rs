//! Parses a registry's authentication challenges: `WWW-Authenticate` (RFC 9110, section 11.6.1), with Docker's bearer
//! tokens.

use std::collections::BTreeMap;

/// The authentication that a registry requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token from another server.
    Bearer {
        /// Address of the server that issues tokens.
        realm: String,
        /// The service that the token is for. The client chooses the scope itself.
        service: Option<String>,
    },
}

impl Challenge {
    /// Returns the challenge to answer, of all challenges in an answer's `headers`. One header may have several, and a
    /// registry may offer several kinds. A token is preferred to a password, as containerd does. Returns none if no kind is
    /// supported.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let all: Vec<Self> = headers.flat_map(challenges).filter_map(Self::of).collect();
        let token = all.iter().find(|challenge| matches!(challenge, Self::Bearer { .. }));
        token.or(all.first()).cloned()
    }

    fn of((scheme, mut parameters): (String, BTreeMap<String, String>)) -> Option<Self> {
        match scheme.as_str() {
            "basic" => Some(Self::Basic),
            "bearer" => {
                let realm = parameters.remove("realm")?;
                Some(Self::Bearer { realm, service: parameters.remove("service") })
            }
            _ => None,
        }
    }
}

/// Splits a header into its challenges: each scheme, in lower case, with its parameters. A word before a `=` is the name of
/// a parameter, any other word is a scheme. Quoted values may contain commas.
fn challenges(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([',', ' ', '\t']);
        if rest.is_empty() {
            return found;
        }
        let end = rest.find([',', ' ', '\t', '=']).unwrap_or(rest.len());
        let word = rest[..end].to_ascii_lowercase();
        rest = rest[end..].trim_start_matches([' ', '\t']);
        let Some(after) = rest.strip_prefix('=') else {
            found.push((word, BTreeMap::new()));
            continue;
        };
        let (value, after) = value(after.trim_start_matches([' ', '\t']));
        rest = after;
        if let Some((_, parameters)) = found.last_mut() {
            parameters.entry(word).or_insert(value);
        }
    }
}

/// Splits the value of a parameter from the text behind it.
fn value(text: &str) -> (String, &str) {
    match text.strip_prefix('"') {
        Some(quoted) => unquote(quoted),
        None => {
            let (value, after) = text.split_at(text.find([',', ' ', '\t']).unwrap_or(text.len()));
            (value.to_owned(), after)
        }
    }
}

fn unquote(text: &str) -> (String, &str) {
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            _ if std::mem::take(&mut escaped) => value.push(c),
            '\\' => escaped = true,
            '"' => return (value, &text[at + 1..]),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(headers: &[&str]) -> Option<Challenge> {
        Challenge::choose(headers.iter().copied())
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
    }

    #[test]
    fn challenges_of_real_registries_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/ubuntu:pull,push""#;
        let of_hub = bearer("https://auth.docker.io/token", Some("registry.docker.io"));
        assert_eq!(choose(&[hub]), of_hub);
        assert_eq!(choose(&[r#"Basic realm="Registry Realm""#]), Some(Challenge::Basic));
        assert_eq!(choose(&["bearer realm=http://x/t, service=s"]), bearer("http://x/t", Some("s")));
        assert_eq!(
            choose(&[r#"Bearer realm = "http://x/t" , service ="s""#]),
            bearer("http://x/t", Some("s"))
        );
        assert_eq!(choose(&["Negotiate"]), None);
        assert_eq!(choose(&[r#"Bearer service="x""#]), None);
        assert_eq!(choose(&[r#"Bearer realm="never ends"#]), bearer("never ends", None));
    }

    #[test]
    fn a_token_is_chosen_among_several_challenges_in_one_header_or_in_two() {
        let (basic, token) =
            (r#"Basic realm="a, Bearer realm=b""#, r#"Bearer realm="http://x/t",service="s""#);
        let chosen = bearer("http://x/t", Some("s"));
        for headers in [
            vec![format!("{basic}, {token}")],
            vec![format!("{token},{basic}")],
            vec![basic.to_owned(), token.to_owned()],
            vec![token.to_owned(), basic.to_owned()],
            vec![format!("Negotiate, NTLM TlRMTVNTUAAB==, {token}, Digest realm=\"d\", nonce=\"n\"")],
            vec![format!(", ,{token},")],
        ] {
            let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
            assert_eq!(choose(&headers), chosen, "{headers:?}");
        }
        assert_eq!(choose(&[r#"Negotiate, Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(choose(&[r#"Bearer service="no realm", Basic realm="x""#]), Some(Challenge::Basic));
        assert_eq!(choose(&[basic]), Some(Challenge::Basic));
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&["=", "\"", "a=\"", ",=,", "realm=x"]), None);
    }
}
