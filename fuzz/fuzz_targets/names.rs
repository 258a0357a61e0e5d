#![no_main]

dayfly_fuzz::target!(NAMES);
