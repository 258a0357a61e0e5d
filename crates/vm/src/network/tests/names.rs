//! A DNS server in the world beyond the host.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

use super::messages;

/// Answers questions for names like `a-10-1-2-3.example` with the address in them. By UDP, the answer for names that begin with
/// `long` is too long.
pub(super) fn answer_names(address: Ipv4Addr) {
    let (socket, listener) =
        (UdpSocket::bind((address, 53)).unwrap(), TcpListener::bind((address, 53)).unwrap());
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let asked = &bytes[..length];
            let mut answer = answer_to(asked);
            if asked[13..].starts_with(b"long") {
                answer[2] |= 2;
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if let Some(asked) = read_message(&mut stream) {
                write_message(&mut stream, &answer_to(&asked));
            }
        }
    });
}

fn answer_to(asked: &[u8]) -> Vec<u8> {
    let label: String = asked[13..13 + usize::from(asked[12])].iter().map(|&byte| char::from(byte)).collect();
    let octets: Vec<u8> = label.split('-').skip(1).map(|octet| octet.parse().unwrap()).collect();
    let address = <[u8; 4]>::try_from(octets).map(Ipv4Addr::from);
    messages::reply(asked, &address.into_iter().collect::<Vec<_>>())
}

/// Reads a message as TCP has it.
pub(super) fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).ok().map(|()| message)
}

/// Writes a message as TCP has it.
pub(super) fn write_message(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let _ = stream.write_all(&[&length, message].concat());
}
