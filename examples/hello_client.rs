//! Tells a hello server its name, and prints the greeting and the answer: over any wire, so that the
//! servers may be written in Python or Go, too.

use std::{process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use hbi::prelude::*;
use tokio::{sync::Notify, time::timeout};

/// The hello client.
#[derive(Parser)]
struct Options {
    /// Where the server listens: `text+tcp://...` for one written in Python or Go.
    #[arg(long, default_value = "tcp://127.0.0.1:3232")]
    addr: String,
    /// The name to be greeted by.
    #[arg(long, default_value = "Nick")]
    name: String,
}

async fn run(options: Options) -> anyhow::Result<()> {
    let greeted = Arc::new(Notify::new());
    let greeting = Arc::clone(&greeted);
    let env = HostingEnv::new().on_print(move |line| {
        println!("{line}");
        greeting.notify_one();
    });
    let connection = hbi::connect(&options.addr, env).await?;

    let address: hbi::Address = options.addr.parse()?;
    let answer: String = if address.is_text() {
        // Python and Go read this alike
        let name = hbi::value::literal(&options.name, hbi::Dialect::Python)?;
        connection
            .script(format!("my_name = {name}\nhello()"))
            .await?
    } else {
        connection
            .script("env.my_name = name; hello()")
            .bind("name", options.name)
            .await?
    };
    // the greeting may come before the answer or behind it; a server without one is no failure
    let _ = timeout(Duration::from_secs(2), greeted.notified()).await;
    println!("{answer}");
    connection.close(Duration::from_secs(5)).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hello_client: {error:#}");
            ExitCode::FAILURE
        }
    }
}
