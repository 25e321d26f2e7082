//! Layers around hosting: what they see, refuse, and how they fail.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use hbi::{Error, HostedCall, HostingEnv, Kind, Layer, Options, testing};
use hbi_tests::{
    pair::Transport,
    work::{CounterHost, CounterStub, FileMeta, MyCounter},
};

/// What layers saw, in order.
type Seen = Arc<Mutex<Vec<String>>>;

/// Notes all that it sees.
struct Notes {
    name: &'static str,
    seen: Seen,
    refuses: Option<&'static str>,
}

impl Notes {
    fn new(name: &'static str, seen: &Seen) -> Self {
        Self {
            name,
            seen: Arc::clone(seen),
            refuses: None,
        }
    }

    fn note(&self, text: String) {
        self.seen.lock().unwrap().push(text);
    }
}

impl Layer for Notes {
    fn before(&self, call: &HostedCall) -> hbi::Result<()> {
        self.note(format!("{} before {}", self.name, call.name()));
        match self.refuses {
            Some(name) if name == call.name() => Err(Error::refusal("not for you")),
            _ => Ok(()),
        }
    }

    fn after(&self, call: &HostedCall, outcome: Result<(), &Error>, took: Duration) {
        let outcome = outcome.map_err(|error| error.kind());
        let millis = took.as_millis();
        self.note(format!(
            "{} after {} {outcome:?} {millis}",
            self.name,
            call.name()
        ));
    }
}

fn taken(seen: &Seen) -> Vec<String> {
    std::mem::take(&mut *seen.lock().unwrap())
}

/// Waits until so much was seen.
async fn until(seen: &Seen, count: usize) -> Vec<String> {
    while seen.lock().unwrap().len() < count {
        tokio::task::yield_now().await;
    }
    taken(seen)
}

fn server() -> HostingEnv {
    HostingEnv::new()
        .function("double", |n: i64| n * 2)
        .try_function("fail", || Err::<(), _>("no".to_owned()))
        .async_function("sleep", |millis: u64| async move {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        })
        .async_function("never", std::future::pending::<()>)
}

async fn joined(server: HostingEnv) -> testing::Pair {
    testing::pair(server, HostingEnv::new())
        .await
        .expect("the environments are sound")
}

#[tokio::test(start_paused = true)]
async fn calls_are_seen_from_the_outermost_layer_in_and_back() {
    let seen = Seen::default();
    let server = server()
        .layer(Notes::new("outer", &seen))
        .layer(Notes::new("inner", &seen));
    let pair = joined(server).await;
    let double: i64 = pair.client.script("double(n)").bind("n", 4).await.unwrap();
    assert_eq!(double, 8);
    assert_eq!(
        taken(&seen),
        [
            "outer before double",
            "inner before double",
            "inner after double Ok(()) 0",
            "outer after double Ok(()) 0",
        ]
    );
    let failed: hbi::Result<()> = pair.client.script("fail()").await;
    assert_eq!(failed.unwrap_err().kind(), Kind::App);
    assert_eq!(
        taken(&seen)[2..],
        ["inner after fail Err(App) 0", "outer after fail Err(App) 0"]
    );
}

#[tokio::test(start_paused = true)]
async fn durations_are_the_clocks() {
    let seen = Seen::default();
    let pair = joined(server().layer(Notes::new("layer", &seen))).await;
    let slept = pair.client.script("sleep(n)").bind("n", 1500);
    let () = slept.await.unwrap();
    assert_eq!(
        taken(&seen),
        ["layer before sleep", "layer after sleep Ok(()) 1500"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_is_seen_to_its_end() {
    let seen = Seen::default();
    let pair = joined(server().layer(Notes::new("layer", &seen))).await;
    let call = pair.client.script::<()>("never()").send();
    until(&seen, 1).await;
    drop(call);
    assert_eq!(
        until(&seen, 1).await,
        ["layer after never Err(Cancelled) 0"]
    );
    let call = pair.client.script::<()>("never()").send();
    until(&seen, 1).await;
    pair.wire.cut();
    assert_eq!(
        until(&seen, 1).await,
        ["layer after never Err(Cancelled) 0"]
    );
    assert!(call.await.unwrap_err().is_disconnected());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_callers_error_and_goes_no_further() {
    let seen = Seen::default();
    let ran = Seen::default();
    let kept = Arc::clone(&ran);
    let guard = Notes {
        refuses: Some("secret"),
        ..Notes::new("guard", &seen)
    };
    let server = server()
        .function("secret", move || kept.lock().unwrap().push("ran".into()))
        .layer(Notes::new("outer", &seen))
        .layer(guard)
        .layer(Notes::new("inner", &seen));
    let pair = joined(server).await;
    let refused: hbi::Result<()> = pair.client.script("secret()").await;
    let error = refused.unwrap_err();
    assert!(error.is_refused(), "{error:?}");
    assert!(error.message().contains("not for you"), "{error}");
    assert_eq!(
        taken(&seen),
        [
            "outer before secret",
            "guard before secret",
            "outer after secret Err(Refused) 0",
        ]
    );
    assert!(taken(&ran).is_empty());
    // in the middle of a composition, too
    let line: hbi::Result<i64> = pair
        .client
        .script("let a = double(n); secret(); a")
        .bind("n", 1)
        .await;
    assert!(line.unwrap_err().is_refused());
    assert!(taken(&ran).is_empty());
    // and others are as they were
    let double: i64 = pair.client.script("double(n)").bind("n", 4).await.unwrap();
    assert_eq!(double, 8);
}

#[tokio::test(start_paused = true)]
async fn panics_in_layers_stay_with_their_call() {
    struct Panics;
    impl Layer for Panics {
        fn before(&self, call: &HostedCall) -> hbi::Result<()> {
            assert_ne!(call.name(), "double", "before it");
            Ok(())
        }
        fn after(&self, _: &HostedCall, _: Result<(), &Error>, _: Duration) {
            panic!("after it");
        }
    }
    let seen = Seen::default();
    let heard = Seen::default();
    let kept = Arc::clone(&heard);
    let server = server()
        .function("one", || 1)
        .layer(Notes::new("outer", &seen))
        .layer(Panics)
        .on_error(move |error| kept.lock().unwrap().push(error.to_string()));
    let pair = joined(server).await;
    let panicked: hbi::Result<i64> = pair.client.script("double(n)").bind("n", 4).await;
    let error = panicked.unwrap_err();
    assert!(error.is_panic() && error.message().contains("before it"));
    assert_eq!(taken(&seen)[1], "outer after double Err(Panic) 0");
    assert!(taken(&heard).is_empty());
    let one: i64 = pair.client.script("one()").await.unwrap();
    assert_eq!(one, 1);
    assert_eq!(taken(&seen).len(), 2);
    let heard = taken(&heard);
    assert!(
        heard.len() == 1 && heard[0].contains("after it"),
        "{heard:?}"
    );
}

#[tokio::test]
async fn every_way_to_call_is_seen() {
    struct Facts(Seen);
    impl Layer for Facts {
        fn before(&self, call: &HostedCall) -> hbi::Result<()> {
            let depth = call.caller().depth();
            let fact = format!("{} {} {depth}", call.name(), call.arguments() > 1000);
            self.0.lock().unwrap().push(fact);
            Ok(())
        }
    }
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let layered = move |env: HostingEnv| env.layer(Facts(Arc::clone(&kept)));
    let pair = Transport::Mem
        .pair_with(Options::new(), Options::new(), layered)
        .await;
    let work = &pair.work;
    work.echo(vec![1; 2000]).await.unwrap();
    work.log("one").await.unwrap();
    work.add(work.add(1, 2), 3).await.unwrap();
    let counter =
        hbi::Reactor::<CounterStub>::new(CounterHost::new(MyCounter::new(0, &Arc::default())));
    work.call_back(counter, 2).await.unwrap();
    let theirs = work.counter(1).await.unwrap();
    theirs.bump(1).await.unwrap();
    let mut co = work.send_file("f").await.unwrap();
    let _: FileMeta = co.recv_obj().await.unwrap();
    assert_eq!(
        taken(&seen),
        [
            "work::echo true 0",
            "work::log false 0",
            "work::add false 0",
            "work::add false 0",
            "work::call_back false 0",
            "work::counter false 0",
            "bump false 0",
            "work::send_file false 0",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn calls_within_a_free_script_are_seen_one_by_one() {
    let seen = Seen::default();
    let guard = Notes {
        refuses: Some("fail"),
        ..Notes::new("layer", &seen)
    };
    let pair = joined(server().layer(guard)).await;
    let script = "
        let sum = 0;
        for n in 1..3 { sum += double(n); sleep(5); }
        try { fail(); } catch { sum += 100; }
        sum";
    let sum: i64 = pair.client.script(script).await.unwrap();
    assert_eq!(sum, 106);
    let seen: Vec<_> = taken(&seen)
        .into_iter()
        .filter(|line| line.contains("after"))
        .collect();
    assert_eq!(
        seen,
        [
            "layer after double Ok(()) 0",
            "layer after sleep Ok(()) 5",
            "layer after double Ok(()) 0",
            "layer after sleep Ok(()) 5",
        ]
    );
}
