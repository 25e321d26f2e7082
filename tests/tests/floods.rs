//! Peers that ask for more than they take: what a server holds for them is bounded. In a program of
//! its own, since it looks at the memory of the process.

use std::time::Duration;

use hbi::{HostingEnv, Options, Settings};
use hbi_tests::raw::{frame, vector};
use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

/// The most memory this process ever had resident, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

/// A stranger that writes and never reads, and the connection that it talks to.
async fn stranger(env: HostingEnv, settings: Settings) -> (DuplexStream, hbi::Connection) {
    let (mut ours, theirs) = duplex(64 << 10);
    ours.write_all(&vector("preface")).await.unwrap();
    let options = Options::new().settings(settings);
    let peer = options.take(theirs, env).await.unwrap();
    (ours, peer)
}

/// Writes as long as the other side takes anything, at most so often; returns how many bytes.
async fn flood(to: &mut DuplexStream, count: usize, bytes: impl Fn(usize) -> Vec<u8>) -> usize {
    let mut written = 0;
    for n in 0..count {
        let bytes = bytes(n);
        let write = to.write_all(&bytes);
        match tokio::time::timeout(Duration::from_secs(2), write).await {
            Ok(Ok(())) => written += bytes.len(),
            // it takes no more, or has hung up
            Ok(Err(_)) | Err(_) => break,
        }
    }
    written
}

/// OPEN, with VALUE and LAST where nothing else is said.
fn open(n: u32, flags: u8, script: u32, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![flags];
    body.extend_from_slice(&script.to_le_bytes());
    body.extend_from_slice(rest);
    frame(0x02, n, &body)
}

fn define(number: u32, source: &str) -> Vec<u8> {
    let mut body = number.to_le_bytes().to_vec();
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(source.as_bytes());
    frame(0x01, 0, &body)
}

#[tokio::test]
async fn floods_do_not_fill_the_memory() {
    let before = peak();
    let grown = || peak().saturating_sub(before);

    // pings, answered once
    let (mut ours, _peer) = stranger(HostingEnv::new(), Settings::default()).await;
    let pings = frame(0x0a, 0, &[7; 8]).repeat(4096);
    let written = flood(&mut ours, 1000, |_| pings.clone()).await;
    assert!(written > 10 << 20, "{written}");
    assert!(grown() < 24, "pings: {} MiB more", grown());

    // a script that is replaced before each of its uses, and whose failures are not read
    let (mut ours, _peer) = stranger(HostingEnv::new(), Settings::default()).await;
    let name = format!("{}()", "x".repeat(10_000));
    let uses = |n: usize| {
        let generation = (n as u32 / 4096) << 23;
        [
            define(0, &name),
            open((n as u32 % 4096) | generation, 3, 0, &[0x90]),
        ]
        .concat()
    };
    flood(&mut ours, 40_000, uses).await;
    assert!(grown() < 100, "replaced scripts: {} MiB more", grown());

    // openings that are never whole
    let mut settings = Settings::default();
    settings.held = 32 << 20;
    let (mut ours, _peer) = stranger(HostingEnv::new(), settings).await;
    ours.write_all(&define(0, "f()")).await.unwrap();
    let piece = vec![0xc0; 60_000];
    let parts = |n: usize| match n % 60 {
        0 => open(n as u32 / 60, 1 | 4, 0, &piece),
        _ => {
            let mut body = vec![4, 0, 0];
            body.extend_from_slice(&piece);
            frame(0x04, n as u32 / 60, &body)
        }
    };
    flood(&mut ours, 20_000, parts).await;
    assert!(grown() < 160, "openings in parts: {} MiB more", grown());

    // answers that nobody reads
    let mut settings = Settings::default();
    settings.held = 32 << 20;
    let env = HostingEnv::new().function("blob", || vec![7_u8; 4_000_000]);
    let (mut ours, _peer) = stranger(env, settings).await;
    ours.write_all(&define(0, "blob()")).await.unwrap();
    flood(&mut ours, 1000, |n| open(n as u32, 3, 0, &[0x90])).await;
    assert!(grown() < 220, "answers: {} MiB more", grown());

    // small ones, a few in each read, whose numbers are used again as soon as they are free
    let env = HostingEnv::new().function("say", || "x".repeat(4_000));
    let (mut ours, _peer) = stranger(env, Settings::default()).await;
    ours.write_all(&define(0, "say()")).await.unwrap();
    // frames of kinds that nobody knows are passed over
    let apart = frame(0x80, 0, &[0; 66_000]);
    let calls = |n: usize| {
        let generation = (n as u32 % 256) << 23;
        let calls = (0..15).map(|number| open(number | generation, 3, 0, &[0x90]));
        calls.chain([apart.clone()]).flatten().collect()
    };
    flood(&mut ours, 6000, calls).await;
    assert!(grown() < 230, "small answers: {} MiB more", grown());

    // openings that are given up at once, of which each is told that it was
    let mut settings = Settings::default();
    (settings.conversations, settings.held) = (64, 1 << 20);
    let (mut ours, peer) = stranger(HostingEnv::new(), settings).await;
    ours.write_all(&define(0, "f()")).await.unwrap();
    let arguments = [&[0x91, 0xc5, 0x0f, 0x00][..], &[0; 0x0f00]].concat();
    let given_up = |n: usize| {
        let number = (n as u32 % 64) | (n as u32 / 64 % 256) << 23;
        [open(number, 3, 0, &arguments), frame(0x09, number, &[0, 0])].concat()
    };
    let written = flood(&mut ours, 100_000, given_up).await;
    assert!(written < 200 << 20, "it was read to its end");
    let error = peer.wait_closed().await;
    assert!(error.to_string().contains("Settings::held"), "{error}");

    // texts
    let (mut ours, _peer) = stranger(HostingEnv::new(), Settings::default()).await;
    let source = "a".repeat(16_000);
    flood(&mut ours, 4096, |n| define(n as u32, &source)).await;
    assert!(grown() < 240, "texts: {} MiB more", grown());
}
