//! Greets whoever connects, and answers `hello()` with the name that the peer has set: over any wire,
//! so that the hello clients written in Python and Go are served, too.

use std::process::ExitCode;

use clap::Parser;
use hbi::{Scheme, env::Kept, prelude::*};

/// The hello server.
#[derive(Parser)]
struct Options {
    /// Where to listen: `text+tcp://...` for peers written in Python or Go.
    #[arg(long, default_value = "tcp://127.0.0.1:3232")]
    addr: String,
}

#[hbi::service(flat)]
trait Hello {
    /// Greets the caller by the name it keeps here as `my_name`.
    async fn hello(&self) -> String;
}

struct Greeter {
    peer: Peer,
    kept: Kept,
}

impl Hello for Greeter {
    async fn hello(&self) -> String {
        let name = self.kept.get::<String>("my_name").ok().flatten();
        let name = name.as_deref().unwrap_or("stranger");
        format!("Hello, {name} from {}!", self.peer.address())
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    // for a certificate, where the address needs one
    let folder = tempfile::tempdir()?;
    let factory = |peer: Peer| async move {
        let env = HostingEnv::new();
        let kept = env.kept();
        Ok(env
            .service(HelloHost::new(Greeter { peer, kept }))
            .on_connect(|po| async move {
                // a peer that is gone again needs no greeting
                let _ = po.notif("print(\"Welcome to HBI world!\")").await;
            }))
    };
    let serving = hbi_examples::options(&options.addr, folder.path())?;
    let server = serving.serve(&options.addr, factory).await?;
    match server.address().scheme() {
        Scheme::Tcp(address) => println!("hello server listening: {address}"),
        _ => println!("hello server listening: {}", server.address()),
    }
    tokio::signal::ctrl_c().await?;
    server.shutdown(std::time::Duration::from_secs(1)).await;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello_server: {error:#}");
            ExitCode::FAILURE
        }
    }
}
