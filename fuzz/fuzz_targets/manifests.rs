#![no_main]

dayfly_fuzz::target!(image::MANIFESTS);
