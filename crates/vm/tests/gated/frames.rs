//! What a guest sends, byte by byte, if no kernel puts it together.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A frame of the guest with this protocol (`0x0806` is ARP) behind the header of `IFF_VNET_HDR`.
pub(crate) fn frame(protocol: u16, content: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; 10];
    frame.extend([0xff; 6]);
    frame.extend(MAC);
    frame.extend(protocol.to_be_bytes());
    frame.extend(content);
    frame
}

/// The hardware address of the guest.
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// The request of an address for the hardware address of 10.0.2.2 (RFC 826).
pub(crate) fn arp_request(address: Ipv4Addr) -> Vec<u8> {
    let content = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &MAC, &address.octets(), &[0; 6], &[10, 0, 2, 2]].concat();
    frame(0x0806, &content)
}

/// A question for a name, as an IPv4 packet with this sender to 10.0.2.2 (RFC 791, 768). A checksum of 0 in UDP is none.
pub(crate) fn question_of(sender: Ipv4Addr) -> Vec<u8> {
    let question = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x01x\x07example\0\0\x01\0\x01";
    let length = u16::try_from(8 + question.len()).unwrap();
    let mut header = vec![0x45, 0];
    header.extend((20 + length).to_be_bytes());
    header.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    header.extend(sender.octets());
    header.extend([10, 0, 2, 2]);
    let sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    header[10..12].copy_from_slice(&(!folded).to_be_bytes());
    let udp = [&[0x30, 0x39, 0, 53][..], &length.to_be_bytes(), &[0, 0], question].concat();
    frame(0x0800, &[header, udp].concat())
}

/// Returns the frames that the card sends to its guest until it is silent for a moment.
pub(crate) fn frames_of(card: &OwnedFd) -> Vec<Vec<u8>> {
    rustix::io::ioctl_fionbio(card, true).unwrap();
    let (mut frames, mut last) = (Vec::new(), Instant::now());
    while last.elapsed() < Duration::from_millis(700) {
        let mut frame = vec![0; 2048];
        match rustix::io::read(card, frame.as_mut_slice()) {
            Ok(length) => {
                frames.push(frame[..length].to_vec());
                last = Instant::now();
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    frames
}

/// A ClientHello of TLS with one extension, the name of the server (RFC 8446, 6066).
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let vector = |length_bytes: usize, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[4 - length_bytes..], content].concat()
    };
    let names = vector(2, &[&[0][..], &vector(2, name.as_bytes())].concat());
    let extensions = vector(2, &[&[0, 0][..], &vector(2, &names)].concat());
    let start = [&[3, 3][..], &[7; 32], &vector(1, &[9; 32]), &vector(2, &[0x13, 1]), &vector(1, &[0])];
    let message = [&[1][..], &vector(3, &[&start.concat(), extensions.as_slice()].concat())].concat();
    [&[22, 3, 1][..], &vector(2, &message)].concat()
}
