//! Tells the program which versions it measures, and generates the code that tonic and capnp-rpc need,
//! without the feature `peers` none.

use std::{env, fs, process::Command};

/// The packages whose versions stand beside the figures.
const NAMED: [&str; 8] = [
    "capnp-rpc",
    "hbi",
    "jsonrpsee",
    "quinn",
    "rustls",
    "tarpc",
    "tokio",
    "tonic",
];
const LOCK: &str = "../../Cargo.lock";

fn main() {
    println!("cargo::rerun-if-changed={LOCK}");
    println!("cargo::rustc-env=BENCH_VERSIONS={}", versions());
    println!("cargo::rustc-env=BENCH_RUSTC={}", rustc());
    println!("cargo::rustc-check-cfg=cfg(has_capnp)");
    println!("cargo::rerun-if-changed=schema");
    #[cfg(feature = "peers")]
    generate();
}

/// As the lock file has them: a line with the name, and the next with the version.
fn versions() -> String {
    let lock = fs::read_to_string(LOCK).expect("the workspace has a lock file");
    let lines: Vec<&str> = lock.lines().collect();
    let quoted = |line: &str| line.split('"').nth(1).map(str::to_owned);
    let versions = lines.windows(2).filter_map(|pair| {
        let name = quoted(pair[0].strip_prefix("name = ")?)?;
        let version = quoted(pair[1].strip_prefix("version = ")?)?;
        NAMED
            .contains(&name.as_str())
            .then(|| format!("{name} {version}"))
    });
    versions.collect::<Vec<_>>().join(", ")
}

fn rustc() -> String {
    let compiler = env::var_os("RUSTC").expect("cargo says which compiler it uses");
    let output = Command::new(compiler).arg("--version").output();
    let text = output.expect("the compiler runs").stdout;
    let text = String::from_utf8_lossy(&text);
    // "rustc 1.90.0 (1159e78c4 2025-09-14)"
    text.split(" (")
        .next()
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(feature = "peers")]
fn generate() {
    let descriptors =
        protox::compile(["schema/bench.proto"], ["schema"]).expect("the schema is right");
    tonic_prost_build::configure()
        .bytes(".bench")
        .compile_fds(descriptors)
        .expect("the directory for generated code takes it");
    // the one tool that no crate brings; its package may lack the file for streams, which is here
    let module = vec!["peers".into(), "capnp_rpc".into()];
    match capnpc::CompilerCommand::new()
        .src_prefix("schema")
        .import_path("schema")
        .file("schema/bench.capnp")
        .default_parent_module(module)
        .run()
    {
        Ok(()) => println!("cargo::rustc-cfg=has_capnp"),
        Err(error) => {
            println!("cargo::warning=capnp-rpc is left out: {error}");
            // a file that never exists: the next build looks anew, as the program may be there by then
            println!("cargo::rerun-if-changed=schema/no-such-file");
        }
    }
}
