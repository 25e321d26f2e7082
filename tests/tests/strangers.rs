//! Who calls, and what strangers can do: tokens, guesses, limits, and peers that drip.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hbi::{Caller, Defences, Error, HostingEnv, Kind, Options, Server};
use hbi_tests::{
    authority::{Authority, says, serve, works},
    pair::Transport,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

struct User(String);

#[hbi::service]
trait Who {
    async fn am_i(&self, cx: &Caller) -> String;
}

struct MyWho;

impl Who for MyWho {
    async fn am_i(&self, cx: &Caller) -> String {
        let User(name) = cx.identity().expect("it was checked");
        name.clone()
    }
}

/// A server that knows `ali` by her token.
async fn serve_users(over: Transport, made: &Arc<AtomicUsize>, defences: Defences) -> Server {
    let made = Arc::clone(made);
    over.serving(Options::new())
        .defences(defences)
        .authenticate(|shown| async move {
            if shown.token_is(b"ali's token") {
                return Ok(User("ali".to_owned()));
            }
            // an answer that takes its time
            tokio::task::yield_now().await;
            Err(Error::refusal("this token is nobody's: ask for one"))
        })
        .serve(over.address(), move |peer| {
            made.fetch_add(1, Ordering::Relaxed);
            assert!(peer.identity::<User>().is_some());
            async { Ok(HostingEnv::new().service(WhoHost::new(MyWho))) }
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn a_token_says_who_calls_over_every_transport() {
    for over in [
        Transport::Mem,
        Transport::Tcp,
        Transport::Unix,
        Transport::Tls,
        Transport::Quic,
    ] {
        let made = Arc::default();
        let server = serve_users(over, &made, Defences::default()).await;
        let address = server.address().to_string();
        let options = Options::new().token(&b"ali's token"[..]);
        let peer = options.connect(&address, HostingEnv::new()).await.unwrap();
        assert_eq!(WhoStub::new(&peer).am_i().await.unwrap(), "ali");
        for wrong in [&b""[..], b"ali's", b"eve's token"] {
            let options = Options::new().token(wrong);
            let error = options
                .connect(&address, HostingEnv::new())
                .await
                .unwrap_err();
            assert!(error.is_refused(), "{over:?}: {error:?}");
            says(&error, &["this token is nobody's: ask for one"]);
        }
        assert_eq!(
            made.load(Ordering::Relaxed),
            1,
            "nothing is made for who is refused"
        );
    }
}

#[tokio::test]
async fn a_panic_of_the_check_refuses() {
    let server = Options::new().authenticate(|shown| async move {
        assert!(shown.token().is_empty(), "a test panics");
        Ok(())
    });
    let server = serve(server, "mem://check-panics").await;
    let options = Options::new().token(&b"x"[..]);
    let error = options
        .connect("mem://check-panics", HostingEnv::new())
        .await
        .unwrap_err();
    assert!(error.is_panic());
    says(&error, &["checking the credentials failed"]);
    works(
        &hbi::connect(server.address().to_string(), HostingEnv::new())
            .await
            .unwrap(),
    )
    .await;
}

#[tokio::test]
async fn logs_do_not_show_tokens() {
    let options = Options::new().token(&b"secret"[..]);
    assert!(!format!("{options:?}").contains("secret"));
}

#[tokio::test]
async fn who_guesses_too_often_is_not_heard() {
    for over in [
        Transport::Tcp,
        Transport::Unix,
        Transport::Tls,
        Transport::Quic,
    ] {
        let mut defences = Defences::default();
        defences.failures_per_address = 3;
        let server = serve_users(over, &Arc::default(), defences).await;
        let address = server.address().to_string();
        let right = Options::new().token(&b"ali's token"[..]);
        drop(right.connect(&address, HostingEnv::new()).await.unwrap());
        for _ in 0..3 {
            let guess = hbi::connect(&address, HostingEnv::new()).await.unwrap_err();
            says(&guess, &["this token is nobody's"]);
        }
        let error = right
            .connect(&address, HostingEnv::new())
            .await
            .unwrap_err();
        if matches!(over, Transport::Tls | Transport::Quic) {
            // to say more would take a handshake
            says(&error, &["credentials refused too often", "try again"]);
            assert_eq!(error.kind(), Kind::Address);
            continue;
        }
        assert!(error.is_limit(), "{error:?}");
        says(&error, &["too many failed attempts", "try again in"]);
    }
}

#[tokio::test]
async fn who_guesses_side_by_side_guesses_no_more() {
    for over in [Transport::Tcp, Transport::Tls, Transport::Quic] {
        let mut defences = Defences::default();
        defences.failures_per_address = 3;
        let asked = Arc::new(AtomicUsize::new(0));
        let asks = Arc::clone(&asked);
        let options = over.serving(Options::new()).defences(defences);
        let options = options.authenticate(move |_shown| {
            asks.fetch_add(1, Ordering::Relaxed);
            async {
                // an answer that takes its time
                tokio::task::yield_now().await;
                Err::<(), _>(Error::refusal("this token is nobody's"))
            }
        });
        let server = serve(options, &over.address()).await;
        let address = server.address().to_string();
        let guess = || hbi::connect(&address, HostingEnv::new());
        let guesses = futures_util::future::join_all((0..30).map(|_| guess())).await;
        assert!(guesses.iter().all(Result::is_err));
        assert_eq!(asked.load(Ordering::Relaxed), 3, "{over:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_check_that_hangs_ends() {
    let options = Options::new().authenticate(|shown| async move {
        if !shown.token_is(b"ali's token") {
            std::future::pending::<()>().await;
        }
        Ok(())
    });
    let mut defences = Defences::default();
    defences.handshake = Duration::from_secs(3);
    defences.connections = 1;
    let _server = serve(options.defences(defences), "mem://check-hangs").await;
    let hanging = hbi::connect("mem://check-hangs", HostingEnv::new());
    let error = hanging.await.unwrap_err();
    // it may pass: a client that connects again does
    assert!(error.is_disconnected(), "{error:?}");
    says(&error, &["not checked within 3s"]);
    // and its place is free
    let options = Options::new().token(&b"ali's token"[..]);
    let peer = options.connect("mem://check-hangs", HostingEnv::new());
    works(&peer.await.unwrap()).await;
}

#[tokio::test]
async fn an_address_has_so_many_connections() {
    let mut defences = Defences::default();
    defences.connections_per_address = 2;
    let server = serve(Options::new().defences(defences), "tcp://127.0.0.1:0").await;
    let address = server.address().to_string();
    let one = hbi::connect(&address, HostingEnv::new()).await.unwrap();
    let two = hbi::connect(&address, HostingEnv::new()).await.unwrap();
    let error = hbi::connect(&address, HostingEnv::new()).await.unwrap_err();
    assert!(error.is_limit(), "{error:?}");
    says(&error, &["connections_per_address", "(2)", "Defences"]);
    works(&one).await;
    one.close(Duration::from_secs(5)).await.unwrap();
    // the server lets go of it in its own time
    let three = loop {
        match hbi::connect(&address, HostingEnv::new()).await {
            Ok(three) => break three,
            Err(error) => assert!(error.is_limit(), "{error:?}"),
        }
    };
    works(&three).await;
    works(&two).await;
}

#[tokio::test]
async fn who_is_turned_away_over_and_over_takes_no_places() {
    let mut defences = Defences::default();
    defences.connections_per_address = 1;
    let server = serve(Options::new().defences(defences), "tcp://127.0.0.1:0").await;
    let address = server.address().to_string();
    let one = hbi::connect(&address, HostingEnv::new()).await.unwrap();
    let (_, host) = address.split_once("://").unwrap();
    let coming = (0..100).map(|_| TcpStream::connect(host));
    let mut coming = futures_util::future::try_join_all(coming).await.unwrap();
    // they stay as long as they may
    let ends = coming.iter_mut().map(|stream| async {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        !bytes.is_empty()
    });
    let told = futures_util::future::join_all(ends).await;
    let told = told.iter().filter(|told| **told).count();
    // others are when some of these are gone
    assert!((1..100).contains(&told), "{told}");
    works(&one).await;
}

/// What a raw peer is told before it is cut off.
async fn told(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // a cut is an end, too
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn who_says_nothing_or_drips_is_cut_off() {
    let mut defences = Defences::default();
    defences.handshake = Duration::from_millis(200);
    let tcp = serve(
        Options::new().defences(defences.clone()),
        "tcp://127.0.0.1:0",
    )
    .await;
    let authority = Authority::new();
    let options = Options::new()
        .defences(defences)
        .server_tls(authority.server("localhost"));
    let tls = serve(options, "tls://127.0.0.1:0").await;
    for server in [&tcp, &tls] {
        let address = server.address().to_string();
        let (_, host) = address.split_once("://").unwrap();
        let silent = TcpStream::connect(host).await.unwrap();
        assert_eq!(told(silent).await, "");
        let (mut reads, mut writes) = TcpStream::connect(host).await.unwrap().into_split();
        let first = if server.address() == tcp.address() {
            0x89
        } else {
            0x16
        };
        let dripping = tokio::spawn(async move {
            let mut byte = [first];
            while writes.write_all(&byte).await.is_ok() {
                byte = [b"HBI\r\n"[0]];
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let mut bytes = Vec::new();
        let _ = reads.read_to_end(&mut bytes).await;
        dripping.await.unwrap();
        assert_eq!(server.connections(), 0);
    }
}

#[tokio::test]
async fn little_is_read_of_strangers() {
    let mut defences = Defences::default();
    defences.unauthenticated_bytes = 100;
    let server = serve(Options::new().defences(defences), "tcp://127.0.0.1:0").await;
    let address = server.address().to_string();
    let options = Options::new().token(vec![7; 200]);
    let error = options
        .connect(&address, HostingEnv::new())
        .await
        .unwrap_err();
    says(&error, &["unauthenticated_bytes", "(100)"]);
    works(&hbi::connect(&address, HostingEnv::new()).await.unwrap()).await;
    let options = Options::new().token(vec![7; 5_000]);
    let error = options
        .connect(&address, HostingEnv::new())
        .await
        .unwrap_err();
    says(&error, &["5000 bytes", "4096"]);
}

#[tokio::test]
async fn a_frame_that_is_never_whole_ends_the_connection() {
    let mut settings = hbi::Settings::default();
    settings.idle_timeout = Duration::from_millis(300);
    let server = serve(Options::new().settings(settings), "tcp://127.0.0.1:0").await;
    let address = server.address().to_string();
    let (_, host) = address.split_once("://").unwrap();
    let (mut reads, mut writes) = TcpStream::connect(host).await.unwrap().into_split();
    writes.write_all(b"\x89HBI\r\n\x01\x01\0\0").await.unwrap();
    let dripping = tokio::spawn(async move {
        // the head of a frame, and then its body byte by byte
        let mut next = vec![0xff, 0, 0, 1, 0, 0, 0, 0];
        while writes.write_all(&next).await.is_ok() {
            next = vec![0];
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut bytes = Vec::new();
    let _ = reads.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("the rest of a frame did not come"), "{text}");
    dripping.await.unwrap();
}

#[tokio::test]
async fn a_server_that_shuts_down_lets_nobody_in_any_more() {
    let server = serve(Options::new(), "tcp://127.0.0.1:0").await;
    let address = server.address().to_string();
    let (_, host) = address.split_once("://").unwrap();
    let silent = TcpStream::connect(host).await.unwrap();
    works(&hbi::connect(&address, HostingEnv::new()).await.unwrap()).await;
    server.shutdown(Duration::from_secs(5)).await;
    assert_eq!(told(silent).await, "");
}

#[tokio::test(start_paused = true)]
async fn who_opens_too_much_is_read_more_slowly() {
    let mut defences = Defences::default();
    defences.openings_per_second = 100;
    let options = Options::new().defences(defences);
    let _server = options
        .serve("mem://secure-openings", |_peer| async {
            Ok(HostingEnv::new().function("double", |n: u64| n * 2))
        })
        .await
        .unwrap();
    let peer = hbi::connect("mem://secure-openings", HostingEnv::new())
        .await
        .unwrap();
    let began = tokio::time::Instant::now();
    for round in 0..5 {
        let call = |n: u64| peer.script::<u64>("double(n)").bind("n", n).into_future();
        let calls = (0..100).map(call);
        let answers = futures_util::future::try_join_all(calls).await.unwrap();
        assert_eq!(answers[99], 198);
        // those of the first second at once, those of each further one when it begins
        let took = began.elapsed();
        let least = Duration::from_secs(round);
        assert!(took >= least, "{took:?} for round {round}");
        assert!(
            took < least + Duration::from_secs(1),
            "{took:?} for round {round}"
        );
    }
    // the other way nothing is limited, and what is slow is not dead
    tokio::time::sleep(Duration::from_secs(100)).await;
    let four: u64 = peer.script("double(2)").await.unwrap();
    assert_eq!(four, 4);
}
