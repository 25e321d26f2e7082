//! The hello examples, as they are run: over any wire, and each half with a peer written by hand.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

/// The folder that holds the examples, built.
fn examples() -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "-p", "hbi-examples"])
        .args(["--example", "hello_server", "--example", "hello_client"])
        .status()
        .expect("cargo runs this test, so it is there");
    assert!(built.success());
    // this test is in `deps`, beside `examples`
    let test = std::env::current_exe().expect("this test has a file");
    let profile = test.parent().and_then(|deps| deps.parent());
    profile
        .expect("it lies in a target folder")
        .join("examples")
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

/// Starts the server; returns what it says of where it listens.
fn serve(address: &str) -> (Server, String) {
    let mut child = Command::new(examples().join("hello_server"))
        .args(["--addr", address])
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let output = child.stdout.take().expect("it is piped");
    let server = Server(child);
    let mut line = String::new();
    BufReader::new(output)
        .read_line(&mut line)
        .expect("it prints");
    let place = line.trim_end().strip_prefix("hello server listening: ");
    (server, place.expect("it says where").to_owned())
}

fn call(address: &str) -> Output {
    let client = Command::new(examples().join("hello_client"))
        .args(["--addr", address])
        .output();
    client.expect("runs")
}

fn printed(output: &Output) -> Vec<String> {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn the_two_halves_greet_each_other_over_any_wire() {
    for scheme in ["text+tcp", "tcp"] {
        let (_server, place) = serve(&format!("{scheme}://127.0.0.1:0"));
        let lines = printed(&call(&format!("{scheme}://{place}")));
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0], "Welcome to HBI world!");
        assert!(
            lines[1].starts_with("Hello, Nick from 127.0.0.1:"),
            "{lines:?}"
        );
        assert!(lines[1].ends_with('!'), "{lines:?}");
    }
    // the address has the fingerprint in it
    let (_server, place) = serve("tls://127.0.0.1:0");
    assert!(place.contains("#sha256="), "{place}");
    let lines = printed(&call(&place));
    assert_eq!(lines[0], "Welcome to HBI world!");

    let folder = tempfile::tempdir().expect("a folder");
    for scheme in ["text+unix", "unix"] {
        let address = format!("{scheme}://{}", folder.path().join(scheme).display());
        let (_server, place) = serve(&address);
        assert_eq!(place, address);
        let lines = printed(&call(&address));
        assert_eq!(lines[0], "Welcome to HBI world!");
        assert!(lines[1].starts_with("Hello, Nick from "), "{lines:?}");
    }
}

#[test]
fn a_client_written_by_hand_is_greeted_and_answered() {
    let (_server, place) = serve("text+tcp://127.0.0.1:0");
    let mut stream = TcpStream::connect(&place).expect("connects");
    let local = stream.local_addr().expect("has an address");
    let greeting = "[3#co_begin]101[32#]\nprint(\"Welcome to HBI world!\")\n[3#co_end]101";
    let mut came = vec![0; greeting.len()];
    stream.read_exact(&mut came).expect("it greets");
    assert_eq!(String::from_utf8_lossy(&came), greeting);
    stream
        .write_all(
            b"[3#co_ack_begin]101[3#co_ack_end]101\
              [3#co_begin]101[27#]\nmy_name = 'Nick'\nhello()\t\n[3#co_end]101",
        )
        .expect("it reads");
    let answer = format!("\"Hello, Nick from {local}!\"");
    let answer = format!(
        "[3#co_ack_begin]101[{}#co_recv]{answer}[3#co_ack_end]101",
        answer.len()
    );
    let mut came = vec![0; answer.len()];
    stream.read_exact(&mut came).expect("it answers");
    assert_eq!(String::from_utf8_lossy(&came), answer);
    stream.shutdown(Shutdown::Write).expect("hangs up");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("a clean end");
    assert_eq!(rest, "");
}

#[test]
fn a_client_of_a_server_that_is_not_there_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("has an address");
    drop(listener);
    let output = call(&format!("text+tcp://{address}"));
    assert!(!output.status.success());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("cannot reach"), "{told}");
}
