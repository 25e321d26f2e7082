//! A script that waits holds no thread, and little memory. In a program of its own, since it looks
//! at the memory of the process. `taskset -c 1 cargo test --release -p hbi-tests
//! --test waiting -- --nocapture` tells figures: on one core, where wake-ups cost alike.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use hbi::{HostingEnv, Options, Settings, env::Bounds, testing};
use tokio::sync::Semaphore;

const SCRIPTS: usize = 10_000;

/// Resident bytes for each script that waits, beside what a call takes that waits in no script: its
/// conversation, and its caller's side. A debug build of the interpreter has frames several times as
/// large.
const MOST: usize = if cfg!(debug_assertions) { 64 } else { 16 } << 10;

/// What is measured beside it: a call that waits in no script.
const CALL: &str = "wait(n)";

const SOURCE: &str = "let t = n; for i in 0..2 { t += wait(i); } t";

/// Resident memory of this process, in bytes, without what was freed and waits for its next use.
fn resident() -> usize {
    // a large piece that is freed has the allocator give back what it can
    drop(std::hint::black_box(vec![1_u8; 120_000]));
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<usize> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kib.expect("the system tells how much memory a process takes") << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_scripts_wait_at_once() {
    let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (opened, counted) = (Arc::clone(&gate), Arc::clone(&waiting));
    let mut bounds = Bounds::default();
    bounds.fibers = SCRIPTS;
    // what the argument lists of so many could hold
    bounds.connection_memory = 4 << 30;
    bounds.wall_clock = std::time::Duration::from_secs(600);
    let env = HostingEnv::new()
        .bounds(bounds)
        .function("double", |n: i64| n * 2)
        .async_function("wait", move |n: i64| {
            let (gate, waiting) = (Arc::clone(&gate), Arc::clone(&waiting));
            async move {
                waiting.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.expect("never closed").forget();
                n
            }
        });
    let mut settings = Settings::default();
    settings.conversations = 2 * SCRIPTS as u32;
    let options = Options::new().settings(settings);
    let pair = testing::pair_with((&options, env), (&options, HostingEnv::new())).await;
    let peer = &pair.expect("peers in memory can be joined").client;

    opened.add_permits(2);
    let warm: usize = peer.script(SOURCE).bind("n", 1).await.unwrap();
    assert_eq!(warm, 2);
    counted.store(0, Ordering::SeqCst);
    let alone = typed_calls(peer).await;

    let before = resident();
    let calls: Vec<_> = (0..SCRIPTS)
        .map(|n| peer.script::<usize>(CALL).bind("n", n).send())
        .collect();
    waiting_for(&counted, SCRIPTS).await;
    let call = resident().saturating_sub(before) / SCRIPTS;
    opened.add_permits(SCRIPTS);
    for call in calls {
        call.await.unwrap();
    }

    counted.store(0, Ordering::SeqCst);
    let before = resident();
    let scripts: Vec<_> = (0..SCRIPTS)
        .map(|n| peer.script::<usize>(SOURCE).bind("n", n).send())
        .collect();
    // all have come as far as their first wait
    waiting_for(&counted, SCRIPTS).await;
    let each = (resident() - before) / SCRIPTS;
    let beside = typed_calls(peer).await;
    println!("{call} bytes for each call, {each} for each script");
    println!("of the processor, a call takes {alone:?} alone, {beside:?} beside them");
    let own = each.saturating_sub(call);
    assert!(own < MOST, "{own} bytes for each script");

    opened.add_permits(2 * SCRIPTS);
    for (n, script) in scripts.into_iter().enumerate() {
        assert_eq!(script.await.unwrap(), n + 1);
    }
}

async fn waiting_for(counted: &AtomicUsize, count: usize) {
    while counted.load(Ordering::SeqCst) < count {
        tokio::task::yield_now().await;
    }
}

/// The time of the processor that this process took, in nanoseconds.
fn processor() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the system tells the threads");
    let taken = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    taken.sum()
}

/// Calls, one after the other; the processor's time for one, both sides together.
async fn typed_calls(peer: &hbi::Peer) -> std::time::Duration {
    const CALLS: u32 = 5_000;
    let began = processor();
    for n in 0..CALLS {
        let doubled: u32 = peer.script("double(n)").bind("n", n).await.unwrap();
        assert_eq!(doubled, 2 * n);
    }
    std::time::Duration::from_nanos((processor() - began) / u64::from(CALLS))
}
