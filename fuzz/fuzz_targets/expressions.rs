#![no_main]

dayfly_fuzz::target!(lab::EXPRESSIONS);
