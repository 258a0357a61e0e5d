//! The program that runs inside a dayfly machine.
fn main() {}
