//! Instructions per call, counted by callgrind: times are noisy, counts are not.
//!
//! Both peers are in one process, joined in memory, so a count is that of both sides and of the
//! runtime. The bounds are two fifths above what was counted, since compilers differ. With
//! `cargo test --release` they are those of optimised code.
//!
//! Without valgrind nothing is counted, which is said.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

/// How often a work is done, the first time and the second: the difference leaves out the start.
const FEW: u64 = 640;
const MANY: u64 = 1920;

/// The works, with the most instructions for each, unoptimised and optimised.
const BOUNDS: [(&str, u64, u64); 4] = [
    ("seq", 88_000, 12_000),
    ("pipe_64", 32_000, 3_200),
    ("script_3", 140_000, 26_100),
    ("loop_3", 445_000, 79_000),
];

#[test]
fn calls_take_no_more_instructions_than_they_did() {
    if !has_valgrind() {
        // not by a macro, whose output the test program keeps to itself
        let text =
            "skipped: valgrind is not there to count instructions (its package is `valgrind`)\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return;
    }
    let mut over = Vec::new();
    let mut least = 0;
    for (work, unoptimised, optimised) in BOUNDS {
        let bound = if cfg!(debug_assertions) {
            unoptimised
        } else {
            optimised
        };
        let each = (instructions(work, MANY) - instructions(work, FEW)) / (MANY - FEW);
        eprintln!("{work}: {each} instructions each, both sides; at most {bound}");
        // each of these works does more than the one before, but the first, which gathers nothing
        if work != "seq" {
            assert!(each > least, "{work} does more, and was counted as less");
            least = each;
        }
        if each > bound {
            over.push(format!(
                "{work} takes {each} instructions, more than {bound}"
            ));
        }
    }
    assert!(over.is_empty(), "{over:#?}");
}

fn has_valgrind() -> bool {
    let version = Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// The instructions that a process takes to do a work so many times.
fn instructions(work: &str, times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env!("CARGO_BIN_EXE_hbi-bench"))
        .args(["repeat", work, &times.to_string()])
        .output()
        .expect("valgrind was there a moment ago");
    let report = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{work} failed under callgrind:\n{report}"
    );
    let collected = report
        .lines()
        .find_map(|line| line.split_once("Collected :"));
    let (_, count) = collected.expect("callgrind says what it collected");
    count.trim().parse().expect("callgrind collected a number")
}
