//! The programs as processes: this test's own program, which becomes one when its environment says
//! so.

use std::{env, process::Stdio};

use clap::Parser;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use super::SOON;
use crate::cli;

/// Holds the arguments, one on each line.
const ARGUMENTS: &str = "CHAT_TEST_ARGUMENTS";

/// What a process prints last, since the test runner prints, too.
const END: &str = "test process: ended";

/// What the test runner prints before the first line.
const RUNNER: &str = "becomes_a_program_where_told_so ... ";

/// No test: what [`Program::start`] starts, on several threads as the program itself.
#[tokio::test(flavor = "multi_thread")]
async fn becomes_a_program_where_told_so() {
    let Ok(arguments) = env::var(ARGUMENTS) else {
        return;
    };
    let arguments = std::iter::once("chat").chain(arguments.lines());
    let done = cli::run(cli::Options::parse_from(arguments)).await;
    println!("{END} {done:?}");
}

/// A program that runs.
pub(super) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    /// All that it has printed.
    pub(super) printed: Vec<String>,
}

impl Program {
    pub(super) fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env::current_exe().expect("this test's program"))
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg("chat_tests::process::becomes_a_program_where_told_so")
            .env(ARGUMENTS, arguments.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let output = child.stdout.take().expect("is piped");
        Self {
            input: child.stdin.take(),
            output: BufReader::new(output).lines(),
            child,
            printed: Vec::new(),
        }
    }

    /// Types a line.
    pub(super) async fn send(&mut self, line: impl AsRef<[u8]>) {
        let input = self.input.as_mut().expect("has not ended");
        let line = [line.as_ref(), b"\n"].concat();
        input.write_all(&line).await.expect("is read");
    }

    /// Waits for a line that begins so; all of it.
    pub(super) async fn expect(&mut self, start: &str) -> String {
        loop {
            let next = timeout(SOON, self.output.next_line()).await;
            let Ok(Ok(Some(line))) = next else {
                panic!("no `{start}`, but {:#?}", self.printed);
            };
            // what the test runner prints
            if line.is_empty() || line.starts_with("running ") {
                continue;
            }
            let line = match line.split_once(RUNNER) {
                Some((_, line)) => line.to_owned(),
                None => line,
            };
            self.printed.push(line.clone());
            if line.starts_with(start) {
                return line;
            }
        }
    }

    /// Ends its input, and waits for its end, in good order.
    pub(super) async fn end(mut self) -> Vec<String> {
        self.input = None;
        let end = self.expect(END).await;
        assert_eq!(end, format!("{END} Ok(())"), "{:#?}", self.printed);
        self.printed.pop();
        let status = timeout(SOON, self.child.wait()).await;
        assert!(status.expect("ends").expect("ends").success());
        self.printed
    }

    /// The bytes of memory that it has.
    #[cfg(target_os = "linux")]
    pub(super) fn memory(&self) -> usize {
        let process = self.child.id().expect("runs");
        let status = std::fs::read_to_string(format!("/proc/{process}/status"));
        let status = status.expect("runs");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|line| line.split_whitespace().next());
        kib.and_then(|kib| kib.parse::<usize>().ok()).expect("kB") << 10
    }

    /// Kills it at once.
    pub(super) async fn kill(mut self) {
        self.child.kill().await.expect("runs");
    }
}
