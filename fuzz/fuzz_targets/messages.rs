#![no_main]

dayfly_fuzz::target!(forge::MESSAGES);
