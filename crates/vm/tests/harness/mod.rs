//! Runs tests that have a main of their own, one after another, and reports them as libtest does.

/// Runs the tests whose names contain one of the words in `args` (all tests if there is none), each on `runtime`, and
/// prints their results. A test fails by a panic, which ends the process.
macro_rules! run_tests {
    ($runtime:expr, $args:expr, $setting:tt, $($name:ident)*) => {{
        // Options start with a hyphen; `-Zunstable-options` and the like are libtest's.
        let wanted: Vec<&String> = $args.iter().filter(|arg| !arg.starts_with('-')).collect();
        let (mut passed, mut filtered) = (0, 0);
        $(
            if wanted.is_empty() || wanted.iter().any(|word| stringify!($name).contains(word.as_str())) {
                let start = std::time::Instant::now();
                // Its thread has its name, as with the harness of the standard library.
                std::thread::scope(|scope| {
                    let thread = std::thread::Builder::new().name(stringify!($name).to_owned());
                    let test = thread.spawn_scoped(scope, || $runtime.block_on($name $setting)).unwrap();
                    if let Err(panic) = test.join() {
                        std::panic::resume_unwind(panic);
                    }
                });
                println!("test {} ... ok <{:.3}s>", stringify!($name), start.elapsed().as_secs_f32());
                passed += 1;
            } else {
                filtered += 1;
            }
        )*
        println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; {filtered} filtered out");
    }};
}
