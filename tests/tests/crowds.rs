//! Many calls at a time. Between two threads, each with a runtime of its own, a connection reads what came
//! in pieces, where that is faster; and a transport takes only a part of what is to be written.

use std::{sync::mpsc, thread, time::Duration};

use hbi::{HostingEnv, Options, Settings};
use tokio::{runtime, sync::oneshot, task::JoinSet, time};

/// More than a read is split from, and more rounds than it takes to try every way.
const CALLERS: u32 = 1024;
const ROUNDS: u32 = 100;

#[hbi::service]
trait Echo {
    async fn echo(&self, id: u32) -> u32;
}

struct MyEcho;

impl Echo for MyEcho {
    async fn echo(&self, id: u32) -> u32 {
        id
    }
}

fn single_threaded() -> runtime::Runtime {
    let mut runtime = runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap()
}

#[test]
fn every_call_of_a_crowd_gets_its_own_answer() {
    let (tell, address) = mpsc::channel();
    let (over, until) = oneshot::channel::<()>();
    let server = thread::spawn(move || {
        single_threaded().block_on(async move {
            let env = |_| async { Ok(HostingEnv::new().service(EchoHost::new(MyEcho))) };
            let server = hbi::serve("tcp://127.0.0.1:0", env).await.unwrap();
            tell.send(server.address().to_string()).unwrap();
            let _ = until.await;
        });
    });
    single_threaded().block_on(async move {
        let peer = hbi::connect(address.recv().unwrap(), HostingEnv::new());
        let peer = peer.await.unwrap();
        let echo = EchoStub::new(&peer);
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let echo = echo.clone();
            callers.spawn(async move {
                for round in 0..ROUNDS {
                    let id = caller * ROUNDS + round;
                    assert_eq!(echo.echo(id).await.unwrap(), id);
                }
            });
        }
        let all = async {
            while let Some(caller) = callers.join_next().await {
                caller.unwrap();
            }
        };
        // one that is not answered hangs
        time::timeout(Duration::from_secs(60), all).await.unwrap();
        drop(over);
    });
    server.join().unwrap();
}

/// More than a mebibyte of frames, which a thread does not keep a buffer for.
const MULTITUDE: u32 = 100_000;

#[tokio::test]
async fn what_a_transport_does_not_take_at_once_arrives_whole() {
    let mut settings = Settings::default();
    settings.conversations = MULTITUDE;
    let options = Options::new().settings(settings);
    for address in ["mem://multitude", "tcp://127.0.0.1:0"] {
        let env = |_| async { Ok(HostingEnv::new().service(EchoHost::new(MyEcho))) };
        let server = options.serve(address, env).await.unwrap();
        let address = server.address().to_string();
        let peer = options.connect(&address, HostingEnv::new()).await.unwrap();
        let echo = EchoStub::new(&peer);
        let mut callers = JoinSet::new();
        for id in 0..MULTITUDE {
            let echo = echo.clone();
            callers.spawn(async move { echo.echo(id).await.map(|answer| (id, answer)) });
        }
        let all = async {
            while let Some(answer) = callers.join_next().await {
                let (id, answer) = answer.unwrap().unwrap();
                assert_eq!(answer, id, "{address}");
            }
        };
        time::timeout(Duration::from_secs(60), all).await.unwrap();
    }
}
