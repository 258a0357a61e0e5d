//! Tests that an emulated processor runs languages whose programs depend on exact faults and on code that is made at run
//! time: each program counts its exceptions, faults, threads and signals, and the counts must be those of a real processor.
//!
//! QEMU 7.2 with its default model of a processor lost the main thread of .NET at the first exception, which is why machines
//! are emulated with another model. The image is that of `tests/runtimes/packages.txt`; `scripts/test --full` builds it.

use dayfly_e2e::{Dayfly, image_of};
use serde_json::json;

/// A language, the name and text of its program, the command that runs it, and the line that it prints.
type Program = (&'static str, &'static str, &'static str, &'static str);

const PROGRAMS: [Program; 10] = [
    (
        "main.cpp",
        include_str!("runtimes/main.cpp"),
        "g++ -O1 -pthread main.cpp -o main && ./main",
        "c++ 8000 2000 199990000",
    ),
    ("Main.java", include_str!("runtimes/Main.java"), "java Main.java", "java 30001 5100000 40000"),
    ("main.cs", include_str!("runtimes/main.cs"), "mcs main.cs && mono main.exe", "mono 9000 16000"),
    ("main.js", include_str!("runtimes/main.js"), "node main.js", "node 22001 45150 20000"),
    (
        "main.php",
        include_str!("runtimes/main.php"),
        "php -d opcache.enable_cli=1 -d opcache.jit=tracing -d opcache.jit_buffer_size=16M main.php",
        "php 20000 2999000 compiled",
    ),
    ("main.lua", include_str!("runtimes/main.lua"), "luajit main.lua", "luajit 20000 5045151 compiled"),
    (
        "main.erl",
        include_str!("runtimes/main.erl"),
        "erlc main.erl && erl -noshell -s main main",
        "erlang 20000 250250000 jit",
    ),
    ("main.lisp", include_str!("runtimes/main.lisp"), "sbcl --script main.lisp", "sbcl 24000 20100"),
    ("main.rb", include_str!("runtimes/main.rb"), "ruby main.rb", "ruby 20001 8000"),
    (
        "main.go",
        include_str!("runtimes/main.go"),
        "GOTOOLCHAIN=local GOCACHE=$PWD/cache go run main.go",
        "go 10000 40000",
    ),
];

/// Returns a workflow with one job that runs a program. JSON is YAML.
fn workflow((file, text, command, _): &Program) -> String {
    let write = format!("cat >{file} <<'END OF PROGRAM'\n{text}END OF PROGRAM\n");
    let steps = [json!({ "run": write }), json!({ "run": command })];
    json!({ "on": "workflow_dispatch", "jobs": { "run": { "runs-on": "linux", "steps": steps } } })
        .to_string()
}

#[test]
#[ignore = "kept for make test-full"]
fn programs_that_make_code_as_they_run_behave_as_on_a_real_processor() {
    let image = image_of("DAYFLY_TEST_RUNTIMES_IMAGE");
    let options = ["-i", &image, "--accel", "tcg", "-c", "2", "-m", "4096"];
    let mut wrong = Vec::new();
    for program in &PROGRAMS {
        let ended = Dayfly::demo(&workflow(program), options).run();
        let log = ended.log_of("run");
        if ended.status != Some(0) || !log.lines().any(|line| line.ends_with(program.3)) {
            wrong.push(format!("{}: {:?}\n{log}{}", program.0, ended.status, ended.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
