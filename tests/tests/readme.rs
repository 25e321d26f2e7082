//! The README shows the program that is compiled and run.

use std::process::Command;

const README: &str = include_str!("../../README.md");
const EXAMPLE: &str = include_str!("../../examples/readme.rs");

#[test]
fn the_example_is_the_one_in_the_readme() {
    let (_, shown) = README
        .split_once("```rust\n")
        .expect("the README shows an example");
    let (shown, _) = shown.split_once("\n```").expect("the example ends");
    assert!(
        EXAMPLE.ends_with(&format!("{shown}\n")),
        "examples/readme.rs differs from the README"
    );
}

#[test]
fn the_example_runs() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let run = Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "-p",
            "hbi-examples",
            "--example",
            "readme",
        ])
        .output()
        .expect("cargo runs this test, so it is there");
    let printed = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{}",
        String::from_utf8_lossy(&run.stderr)
    );
    assert!(printed.ends_with("logged: Some(\"hello\")\n"), "{printed}");
}
