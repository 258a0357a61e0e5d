//! Serves the page of a process with so many ended runs, to look at it and to measure it:
//! `cargo run --release -p dayfly-web --example page -- 10000 9441`.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

mod made_up;

use std::time::Duration;

use made_up::MadeUp;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let runs: u64 = args.next().unwrap().parse().unwrap();
    let port: u16 = args.next().unwrap().parse().unwrap();
    let mut made_up = MadeUp::start(runs, port);
    println!("{}", made_up.url);
    loop {
        made_up.tick();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
