//! The example of the README: a calculator that is called, composed, scripted, and that pushes back.

use hbi::prelude::*;

#[hbi::service]
trait Calc {
    /// Adds two numbers.
    async fn add(&self, a: i64, b: i64) -> i64;
    /// Takes a line, and tells the caller's own service of it.
    #[hbi(notify)]
    async fn log(&self, line: String);
    /// Counts up to a number.
    async fn count(&self, to: u32) -> hbi::Items<u32>;
}

#[hbi::service]
trait Consumer {
    #[hbi(notify)]
    async fn logged(&self, line: String);
}

struct MyCalc {
    po: PostingEnd,
}

impl Calc for MyCalc {
    async fn add(&self, a: i64, b: i64) -> i64 {
        a + b
    }

    async fn log(&self, line: String) {
        // the server calls its consumer as the consumer calls it
        let _ = ConsumerStub::new(&self.po).logged(line).await;
    }

    async fn count(&self, to: u32) -> hbi::Items<u32> {
        hbi::Items::iter(0..to)
    }
}

struct Me(tokio::sync::mpsc::UnboundedSender<String>);

impl Consumer for Me {
    async fn logged(&self, line: String) {
        let _ = self.0.send(line);
    }
}

#[tokio::main]
async fn main() -> hbi::Result<()> {
    let server = hbi::serve("tcp://127.0.0.1:0", |peer: Peer| async move {
        Ok(HostingEnv::new().service(CalcHost::new(MyCalc { po: peer.po() })))
    })
    .await?;

    let (lines, mut logged) = tokio::sync::mpsc::unbounded_channel();
    let env = HostingEnv::new().service(ConsumerHost::new(Me(lines)));
    let peer = hbi::connect(server.address().to_string(), env).await?;
    let calc = CalcStub::new(&peer);

    // a call; two dependent calls in one round trip; a small program sent to the data
    assert_eq!(calc.add(1, 2).await?, 3);
    assert_eq!(calc.add(calc.add(1, 2), 27).await?, 30);
    let doubled: i64 = peer.script("calc::add(n, n)").bind("n", 21).await?;
    assert_eq!(doubled, 42);

    // a stream, whose consumer sets the pace
    let mut counted = calc.count(3).await?;
    while let Some(n) = counted.try_next().await? {
        println!("counted {n}");
    }

    // a notification, and what the server pushes back
    calc.log("hello").await?;
    println!("logged: {:?}", logged.recv().await);
    Ok(())
}
