//! A stream is never in memory as a whole. In a program of its own, since it looks at the memory of
//! the process.

use hbi_tests::pair::{Pair, Transport};

/// The most memory this process ever had resident, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

#[tokio::test]
async fn a_gibibyte_up_and_down_takes_little_memory() {
    const SIZE: u64 = 1 << 30;
    let Pair {
        work,
        peer: _peer,
        server: _server,
        ..
    } = Transport::Tcp.pair().await;
    work.upload("warm", vec![0; 1_000_000]).await.unwrap();
    let before = peak();
    let piece = bytes::Bytes::from(vec![1; 256 << 10]);
    let pieces = (0..SIZE >> 18).map(move |_| Ok::<_, hbi::Error>(piece.clone()));
    let data = hbi::Data::stream(futures_util::stream::iter(pieces));
    assert_eq!(work.upload("f", data).await.unwrap().0, SIZE);
    let (_, mut data) = work.download("f", SIZE / 8).await.unwrap();
    let mut total = 0;
    while let Some(piece) = data.try_next().await.unwrap() {
        total += piece.len() as u64;
    }
    assert_eq!(total, SIZE / 8);
    let grown = peak().saturating_sub(before);
    assert!(grown < 32 << 10, "{grown} KiB more than before");
}
