//! The name of a server in the first bytes that a client sends: in the ClientHello of TLS, or in the head of an HTTP request.
//! Pure.
//!
//! The bytes are those that the gate then passes on, because the kernel has put the segments together. So there is no second
//! reading of them that a guest could prepare for the gate alone.

/// Most bytes that are read for a name: a ClientHello has some 2 KiB with the keys of today.
pub(super) const BYTES_MAX: usize = 16 * 1024;
/// Longest name.
const NAME_MAX: usize = 253;

/// The type of a record of TLS that holds a part of a handshake, and that of the ClientHello in it.
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
/// The extension with the server's name (RFC 6066), and the type of a host name in it.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;

/// The content of the first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FirstWords {
    /// More bytes are needed.
    Unfinished,
    /// The name of the server, in lower case.
    Name(String),
    /// Another protocol, or no name.
    Nameless,
}

/// Reads the ClientHello of TLS.
pub(super) fn of_tls(bytes: &[u8]) -> FirstWords {
    let mut message = Vec::new();
    let mut rest = bytes;
    // A handshake may be cut into several records.
    loop {
        if let [kind, length_high, length_mid, length_low, body @ ..] = message.as_slice() {
            if *kind != CLIENT_HELLO {
                return FirstWords::Nameless;
            }
            let length = u32::from_be_bytes([0, *length_high, *length_mid, *length_low]) as usize;
            if length > BYTES_MAX {
                return FirstWords::Nameless;
            }
            if let Some(hello) = body.get(..length) {
                return server_name(hello).and_then(plain).map_or(FirstWords::Nameless, FirstWords::Name);
            }
        }
        let [kind, major, _, high, low, after @ ..] = rest else {
            let is_tls = rest.first().is_none_or(|&kind| kind == HANDSHAKE);
            return if is_tls { FirstWords::Unfinished } else { FirstWords::Nameless };
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if *kind != HANDSHAKE || *major != 3 || length == 0 || length > BYTES_MAX {
            return FirstWords::Nameless;
        }
        let Some(part) = after.get(..length) else { return FirstWords::Unfinished };
        message.extend_from_slice(part);
        rest = &after[length..];
    }
}

/// Takes a vector with a length of this many bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], length_bytes: usize) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_at_checked(length_bytes)?;
    let length = length.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
    let (taken, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Returns the name in a ClientHello; none if there is none, or more than one.
fn server_name(hello: &[u8]) -> Option<&[u8]> {
    // Version and random number, session, ciphers, compressions.
    let mut bytes = hello.get(34..)?;
    for length_bytes in [1, 2, 1] {
        take(&mut bytes, length_bytes)?;
    }
    let mut extensions = take(&mut bytes, 2)?;
    let mut found = None;
    while !extensions.is_empty() {
        let (kind, rest) = extensions.split_at_checked(2)?;
        extensions = rest;
        let mut data = take(&mut extensions, 2)?;
        if u16::from_be_bytes([kind[0], kind[1]]) != SERVER_NAME {
            continue;
        }
        let mut names = take(&mut data, 2)?;
        let (kind, rest) = names.split_first()?;
        names = rest;
        let name = take(&mut names, 2)?;
        if *kind != HOST_NAME || !names.is_empty() || found.is_some() {
            return None;
        }
        found = Some(name);
    }
    found
}

/// Reads the head of an HTTP request.
pub(super) fn of_http(bytes: &[u8]) -> FirstWords {
    let Some(end) = end_of_head(bytes) else {
        // No method has other bytes, so a client of another protocol is not waited for.
        let is_http = bytes.first().is_none_or(u8::is_ascii_uppercase);
        return if is_http { FirstWords::Unfinished } else { FirstWords::Nameless };
    };
    host(&bytes[..end]).and_then(plain).map_or(FirstWords::Nameless, FirstWords::Name)
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let ends = |end: &[u8]| bytes.windows(end.len()).position(|window| window == end);
    [ends(b"\n\r\n"), ends(b"\n\n")].into_iter().flatten().min()
}

/// Returns the host of a request; none if it is not plain which one the server will take.
fn host(head: &[u8]) -> Option<&[u8]> {
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|&byte| byte == b' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_method = !method.is_empty() && method.iter().all(u8::is_ascii_uppercase);
    // Other targets, e.g. that of CONNECT, name a host of their own.
    let is_own = target.starts_with(b"/") || target == b"*";
    if !is_method || !is_own || !version.starts_with(b"HTTP/1.") || words.next().is_some() {
        return None;
    }
    let mut found = None;
    for line in lines {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return None;
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        if line[..colon].trim_ascii().eq_ignore_ascii_case(b"host") {
            if found.is_some() || colon != 4 {
                return None;
            }
            found = Some(line[colon + 1..].trim_ascii());
        }
    }
    let host = found?;
    Some(match host.iter().position(|&byte| byte == b':') {
        Some(colon) if host[colon + 1..].iter().all(u8::is_ascii_digit) => &host[..colon],
        Some(_) => return None,
        None => host,
    })
}

/// Returns a host name in lower case, without the last dot.
fn plain(name: &[u8]) -> Option<String> {
    let name = name.strip_suffix(b".").unwrap_or(name);
    let is_plain = |&byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_name = (1..=NAME_MAX).contains(&name.len()) && name.iter().all(is_plain);
    is_name.then(|| name.iter().map(|&byte| char::from(byte.to_ascii_lowercase())).collect())
}

#[cfg(test)]
pub(in crate::network) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vector(length_bytes: usize, content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - length_bytes..], content].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &vector(2, content)].concat()
    }

    fn named(name: &str) -> Vec<u8> {
        extension(SERVER_NAME, &vector(2, &[&[HOST_NAME][..], &vector(2, name.as_bytes())].concat()))
    }

    /// Returns a ClientHello with these extensions, cut into records of at most `part` bytes.
    fn hello_of(extensions: &[u8], part: usize) -> Vec<u8> {
        let body =
            [&[3, 3][..], &[7; 32], &vector(1, &[9; 32]), &vector(2, &[0x13, 1]), &vector(1, &[0])].concat();
        let body = [body, vector(2, extensions)].concat();
        let message = [&[CLIENT_HELLO][..], &vector(3, &body)].concat();
        message.chunks(part).flat_map(|part| [&[HANDSHAKE, 3, 1][..], &vector(2, part)].concat()).collect()
    }

    /// Returns a ClientHello for a server, as long as one with the keys of today.
    pub(in crate::network) fn hello(name: &str) -> Vec<u8> {
        hello_of(&[extension(51, &[5; 1300]), named(name), extension(10, &[1; 4])].concat(), 16_000)
    }

    #[test]
    fn the_name_is_found_in_a_client_hello_of_one_record_and_of_many() {
        let name = FirstWords::Name("www.example.com".to_owned());
        assert_eq!(of_tls(&hello("WWW.example.com")), name);
        let cut = hello_of(&[extension(51, &[5; 1300]), named("www.example.com")].concat(), 100);
        assert_eq!(of_tls(&cut), name);
        for length in 0..cut.len() {
            assert_eq!(of_tls(&cut[..length]), FirstWords::Unfinished, "{length}");
        }
    }

    #[test]
    fn a_client_hello_without_one_plain_name_has_none() {
        let several = [named("a.example"), named("b.example")].concat();
        let other_kind = extension(SERVER_NAME, &vector(2, &[&[1][..], &vector(2, b"a.example")].concat()));
        let two_in_one = [&[HOST_NAME][..], &vector(2, b"a.example"), &[HOST_NAME], &vector(2, b"b.example")];
        let two_in_one = extension(SERVER_NAME, &vector(2, &two_in_one.concat()));
        for extensions in
            [several, other_kind, two_in_one, extension(10, &[1]), named(""), named("a b"), Vec::new()]
        {
            assert_eq!(of_tls(&hello_of(&extensions, 16_000)), FirstWords::Nameless, "{extensions:?}");
        }
        assert_eq!(of_tls(b"GET / HTTP/1.1\r\n"), FirstWords::Nameless);
        assert_eq!(of_tls(b"SSH-2.0-x\r\n"), FirstWords::Nameless);
    }

    #[test]
    fn the_host_of_a_request_is_found() {
        let name = FirstWords::Name("www.example.com".to_owned());
        for head in [
            "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n",
            "POST /x?y HTTP/1.1\r\nA: b\r\nhost:WWW.Example.com:8080\r\n\r\nbody: Host: evil.example",
            "OPTIONS * HTTP/1.1\nHost: www.example.com.\n\n",
        ] {
            assert_eq!(of_http(head.as_bytes()), name, "{head}");
        }
        let head = b"GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n";
        for length in 0..head.len() - 2 {
            assert_eq!(of_http(&head[..length]), FirstWords::Unfinished, "{length}");
        }
    }

    #[test]
    fn a_request_whose_host_is_not_plain_has_none() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\n Host: a.example\r\n\r\n",
            "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n",
            "GET /\r\nHost: a.example\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            assert_eq!(of_http(head.as_bytes()), FirstWords::Nameless, "{head}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            flips in proptest::collection::vec((0usize..1500, any::<u8>()), 0..8),
        ) {
            let mut near = hello("www.example.com");
            for (at, byte) in flips {
                if let Some(place) = near.get_mut(at) {
                    *place = byte;
                }
            }
            for bytes in [bytes, near] {
                for words in [of_tls(&bytes), of_http(&bytes)] {
                    if let FirstWords::Name(name) = words {
                        prop_assert!(name.len() <= NAME_MAX && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
                    }
                }
            }
        }

        #[test]
        fn more_bytes_change_no_name_that_was_found(more in proptest::collection::vec(any::<u8>(), 0..50)) {
            let whole = hello("www.example.com");
            prop_assert_eq!(of_tls(&[whole.clone(), more].concat()), of_tls(&whole));
        }
    }
}
