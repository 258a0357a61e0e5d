#![no_main]

dayfly_fuzz::target!(lab::WORKFLOWS);
