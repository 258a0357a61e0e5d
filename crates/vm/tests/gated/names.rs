//! A DNS server in the world beyond the host, and the questions to it (RFC 1035).

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// Longest wait for an answer. A question is asked three times, because a datagram may be lost in a full queue.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers questions for names like `a-10-1-2-3.example` with the address in them.
pub(crate) fn serve(address: Ipv4Addr) {
    let socket = UdpSocket::bind((address, 53)).unwrap();
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let _ = socket.send_to(&answer_to(&bytes[..length]), from);
        }
    });
}

fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

fn answer_to(asked: &[u8]) -> Vec<u8> {
    let label = String::from_utf8_lossy(&asked[13..13 + usize::from(asked[12])]).into_owned();
    let octets: Vec<u8> = label.split('-').skip(1).filter_map(|octet| octet.parse().ok()).collect();
    let mut answer = asked.to_vec();
    // An additional section, which some clients send, is not answered.
    (answer[2], answer[3], answer[10], answer[11]) = (0x81, 0x80, 0, 0);
    let end = 12 + asked[12..].iter().position(|&byte| byte == 0).unwrap() + 5;
    answer.truncate(end);
    if octets.len() == 4 {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(octets);
    }
    answer
}

/// Asks a server for the address of a name: the address, the code of the outcome, or "nothing".
pub(crate) fn resolve(name: &str, server: Ipv4Addr) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let to = SocketAddr::from((server, 53));
    let mut bytes = [0; 1500];
    let answered = (0..3).find_map(|_| {
        socket.send_to(&question(name), to).ok()?;
        socket.recv_from(&mut bytes).ok()
    });
    match answered {
        // From the server that was asked, even if another one has answered.
        Some((_, from)) if from != to => format!("an answer of {from}"),
        Some((length, _)) if bytes[7] > 0 => {
            let last: [u8; 4] = bytes[length - 4..length].try_into().unwrap();
            Ipv4Addr::from(last).to_string()
        }
        Some(_) => format!("code {}", bytes[3] & 15),
        None => "nothing".to_owned(),
    }
}
