#![no_main]

dayfly_fuzz::target!(guest::FRAMES);
