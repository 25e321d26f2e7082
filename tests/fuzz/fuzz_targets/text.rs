//! Arbitrary bytes come to a server of the text wire, or arbitrary text comes well framed: the server
//! answers or refuses, closes when its peer does, and serves the next.

#![no_main]

use std::{cell::RefCell, time::Duration};

use hbi::{HostingEnv, Server, env::Bounds};
use libfuzzer_sys::fuzz_target;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Runtime,
};

struct Host {
    runtime: Runtime,
    path: String,
    _server: Server,
}

thread_local! {
    static HOST: RefCell<Option<Host>> = const { RefCell::new(None) };
}

#[hbi::service(flat)]
trait Files {
    /// Takes what follows.
    async fn keep(&self, name: String, data: hbi::Data) -> u64;
    /// Answers what was named.
    async fn echo(&self, name: String) -> String;
}

struct MyFiles;

impl Files for MyFiles {
    async fn keep(&self, _: String, data: hbi::Data) -> u64 {
        data.write_to(&mut tokio::io::sink()).await.unwrap_or_default()
    }

    async fn echo(&self, name: String) -> String {
        name
    }
}

fn exposed() -> HostingEnv {
    let mut bounds = Bounds::default();
    bounds.operations = 5_000;
    bounds.calls = 200;
    HostingEnv::new()
        .bounds(bounds)
        .service(FilesHost::new(MyFiles))
        .function("double", |n: i64| n.wrapping_mul(2))
        .async_function("later", |n: i64| async move {
            tokio::task::yield_now().await;
            n
        })
        .value("limit", &[1, 2, 3])
        .on_print(|_| {})
        .on_error(|_| {})
}

fn host() -> Host {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be had");
    let path = std::env::temp_dir().join(format!("hbi-fuzz-{}.sock", std::process::id()));
    let path = path.display().to_string();
    let _ = std::fs::remove_file(&path);
    let server = hbi::serve(format!("text+unix://{path}"), |_| async { Ok(exposed()) });
    let _server = runtime.block_on(server).expect("the path is free");
    Host {
        runtime,
        path,
        _server,
    }
}

/// A script in a span of its own, whose value is wanted.
fn framed(script: &[u8]) -> Vec<u8> {
    let mut bytes = format!("[3#co_begin]101[{}#co_recv]", script.len()).into_bytes();
    bytes.extend_from_slice(script);
    bytes.extend_from_slice(b"[3#co_end]101");
    bytes
}

fuzz_target!(|input: &[u8]| {
    let Some((&kind, input)) = input.split_first() else {
        return;
    };
    let bytes = match kind {
        b'#' => framed(input),
        _ => input.to_vec(),
    };
    HOST.with_borrow_mut(|kept| {
        let host = kept.get_or_insert_with(host);
        host.runtime.block_on(async {
            let stream = UnixStream::connect(&host.path).await;
            let (mut answers, mut requests) = stream.expect("it serves").into_split();
            let mut all = Vec::new();
            let ask = async {
                // a server that refused reads no more
                let _ = requests.write_all(&bytes).await;
                drop(requests);
            };
            let listen = answers.read_to_end(&mut all);
            let both = async { tokio::join!(ask, listen) };
            let ended = tokio::time::timeout(Duration::from_secs(20), both).await;
            assert!(ended.is_ok(), "it hangs");
            assert!(all.len() < 1 << 20, "{} bytes of answers", all.len());
        });
    });
});
