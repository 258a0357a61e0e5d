//! Tests that the random numbers of forks have nothing in common, as far as statistics show.

use std::collections::HashMap;

use base64::Engine as _;
use dayfly_e2e::prepared;
use dayfly_vm::{StartedFrom, TemplateSettings};

use crate::{alone, stage};

/// Bytes of one draw.
const LENGTH: usize = 1024;
/// Number of consecutive bytes that no two draws may share.
const BLOCK: usize = 8;
/// Largest accepted deviation from the mean, in standard deviations. Chance exceeds six once in five hundred million times.
const DEVIATIONS: f64 = 6.0;

/// Prints the first random bytes of a fork: from the device, from the system call without a file (318 is `getrandom`), and
/// from OpenSSL. The lines are short enough for every part of the way to the host.
const DRAW: &str = r#"
say() { n=0; base64 -w 512 | while read -r line; do n=$((n + 1)); echo "$1$n=$line"; done; }
head -c 1024 /dev/urandom | say device
perl -e '$b = "\0" x 1024; syscall(318, $b, 1024, 0) == 1024 or die "getrandom: $!"; print $b' | say call
openssl rand 1024 | say openssl
"#;

/// Returns the random bytes of one fork from each source.
async fn draws_of(stage: &dayfly_e2e::machines::Stage, name: &str) -> [Vec<u8>; 3] {
    let said = stage.say(name, DRAW).await;
    assert!(matches!(said.from[..], [StartedFrom::Fork(_)]), "{said:?}");
    ["device", "call", "openssl"].map(|source| {
        let text: String = (1..)
            .map_while(|number| said.values.get(&format!("{source}{number}")))
            .map(String::as_str)
            .collect();
        let draw = base64::engine::general_purpose::STANDARD.decode(&text).expect("base64");
        assert_eq!(draw.len(), LENGTH, "{source}: {said:?}");
        draw
    })
}

/// Asserts that no block of a draw, at any offset, occurs in another draw or twice in the same one.
fn assert_no_block_in_common(draws: &[Vec<u8>]) {
    let mut seen = HashMap::new();
    for (draw, bytes) in draws.iter().enumerate() {
        for (at, block) in bytes.windows(BLOCK).enumerate() {
            if let Some(before) = seen.insert(block, (draw, at)) {
                panic!("{block:?} is in {before:?} and {:?}", (draw, at));
            }
        }
    }
}

/// Asserts that about half of the bits are set.
#[track_caller]
fn assert_half_of(bits: usize, set: usize, what: &str) {
    let (mean, deviation) = (bits as f64 / 2.0, (bits as f64).sqrt() / 2.0);
    assert!((set as f64 - mean).abs() <= DEVIATIONS * deviation, "{what}: {set} of {bits} bits");
}

/// Asserts that any two draws differ in about half of their bits.
fn assert_pairs_differ(draws: &[Vec<u8>]) {
    for (first, one) in draws.iter().enumerate() {
        for (second, other) in draws.iter().enumerate().skip(first + 1) {
            let differing: u32 = one.iter().zip(other).map(|(one, other)| (one ^ other).count_ones()).sum();
            assert_half_of(LENGTH * 8, differing as usize, &format!("draws {first} and {second} differ in"));
        }
    }
}

/// Asserts that each bit is set in about half of the draws, and that about half of each draw's bits are set.
fn assert_no_bit_is_preferred(draws: &[Vec<u8>]) {
    for position in 0..LENGTH * 8 {
        let is_set = |draw: &&Vec<u8>| draw[position / 8] >> (position % 8) & 1 == 1;
        let set = draws.iter().filter(is_set).count();
        assert_half_of(draws.len(), set, &format!("bit {position} is set in"));
    }
    for (number, draw) in draws.iter().enumerate() {
        let set: u32 = draw.iter().map(|byte| byte.count_ones()).sum();
        assert_half_of(LENGTH * 8, set as usize, &format!("draw {number} has set"));
    }
}

async fn forks_draw_apart(count: usize) {
    let _alone = alone().await;
    let stage = stage(&prepared("DAYFLY_STATE"), TemplateSettings::default()).await;
    let mut sources = [const { Vec::new() }; 3];
    for number in 0..count {
        let draws = draws_of(&stage, &format!("draw-{number}")).await;
        for (source, draw) in sources.iter_mut().zip(draws) {
            source.push(draw);
        }
    }
    assert_no_block_in_common(&sources.concat());
    for draws in &sources {
        assert_pairs_differ(draws);
        assert_no_bit_is_preferred(draws);
    }
}

#[tokio::test]
async fn what_six_forks_draw_has_nothing_in_common() {
    forks_draw_apart(6).await;
}

#[tokio::test]
#[ignore = "kept for make test-full"]
async fn what_a_hundred_forks_draw_has_nothing_in_common() {
    forks_draw_apart(100).await;
}
