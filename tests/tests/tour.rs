//! The tour, as it is run: in one process, and in two over each kind of address.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// The tour, built.
fn tour() -> Command {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "-p", "hbi-examples"])
        .args(["--example", "tour"])
        .status()
        .expect("cargo runs this test, so it is there");
    assert!(built.success());
    // this test is in `deps`, beside `examples`
    let test = std::env::current_exe().expect("this test has a file");
    let profile = test.parent().and_then(|deps| deps.parent());
    let folder = profile.expect("it lies in a target folder");
    Command::new(folder.join("examples").join("tour"))
}

/// A server at work, killed when the test is over.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // one that is gone already is as good
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the serving half; returns its address as it prints it.
fn serve(address: &str) -> (Server, String) {
    let mut child = tour()
        .args(["--serve", address])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let output = child.stdout.take().expect("it is piped");
    let server = Server(child);
    let mut line = String::new();
    BufReader::new(output)
        .read_line(&mut line)
        .expect("it prints");
    let address = line
        .strip_prefix("serving at ")
        .and_then(|rest| rest.split_once(';'));
    (server, address.expect("it says where").0.to_owned())
}

fn file(folder: &Path) -> PathBuf {
    let path = folder.join("file");
    let bytes: Vec<u8> = (0..3_000_000u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    std::fs::write(&path, bytes).expect("can be written");
    path
}

fn finishes(output: &Output) {
    let (out, err) = (&output.stdout, &output.stderr);
    let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.ends_with("tour: ok\n"), "{out}");
}

#[test]
fn both_halves_run_in_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = tour().arg("--file").arg(file(folder.path())).output();
    finishes(&output.expect("runs"));
}

#[test]
fn each_half_runs_on_its_own_over_any_address() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(folder.path());
    let unix = format!("unix://{}", folder.path().join("tour").display());
    for address in [
        "tcp://127.0.0.1:0",
        "tls://127.0.0.1:0",
        "quic://127.0.0.1:0",
        &unix,
    ] {
        let (_server, address) = serve(address);
        let visit = tour()
            .args(["--connect", &address])
            .arg("--file")
            .arg(&file)
            .output();
        finishes(&visit.expect("runs"));
    }
}

#[test]
fn visitors_of_one_server_do_not_meet() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = file(folder.path());
    let (_server, address) = serve("tcp://127.0.0.1:0");
    let visit = |_| {
        let mut visit = tour();
        let visit = visit.args(["--connect", &address]).arg("--file").arg(&file);
        let visit = visit.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        visit.expect("starts")
    };
    let visits: Vec<Child> = (0..6).map(visit).collect();
    for visit in visits {
        finishes(&visit.wait_with_output().expect("runs"));
    }
}
