//! The `dayfly` command.
fn main() {}
