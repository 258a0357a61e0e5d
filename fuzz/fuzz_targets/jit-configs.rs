#![no_main]

dayfly_fuzz::target!(forge::JIT_CONFIGS);
