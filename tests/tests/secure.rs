//! TLS and certificates: what is let in, and what the others are told.

use std::{path::PathBuf, time::Duration};

use hbi::{
    Backoff, Connection, Defences, Error, Fingerprint, HostingEnv, Kind, Options, Server,
    tls::{Certificate, ClientTls, ServerTls},
};
use hbi_tests::authority::{Authority, says, serve, works};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

async fn serve_tls(tls: ServerTls) -> Server {
    serve_secured("tls", tls).await
}

async fn serve_secured(scheme: &str, tls: ServerTls) -> Server {
    let address = format!("{scheme}://127.0.0.1:0");
    serve(Options::new().server_tls(tls), &address).await
}

/// Certificates are checked by these, and alike.
const SECURED: [&str; 2] = ["tls", "quic"];

/// The same port by name, without a pin.
fn named(server: &Server) -> String {
    let shown = server.address().to_string();
    let address = shown.split('#').next().unwrap();
    let port = address.rsplit(':').next().unwrap();
    let scheme = address.split(':').next().unwrap();
    format!("{scheme}://localhost:{port}")
}

async fn connect(tls: ClientTls, address: &str) -> Result<Connection, Error> {
    let options = Options::new().client_tls(tls);
    options.connect(address, HostingEnv::new()).await
}

/// Why a client is refused in its handshake. Over QUIC a reset may overtake what a server says that forgets
/// the connection soon: then it is asked again.
async fn refused(tls: &ClientTls, address: &str) -> Error {
    loop {
        let error = connect(tls.clone(), address).await.unwrap_err();
        let overtaken = address.starts_with("quic") && error.is_disconnected();
        if !overtaken {
            return error;
        }
    }
}

#[tokio::test]
async fn an_authority_of_a_file_is_trusted() {
    for scheme in SECURED {
        let authority = Authority::new();
        let server = serve_secured(scheme, authority.server("localhost")).await;
        works(&connect(authority.trusted(), &named(&server)).await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_not_taken() {
    for scheme in SECURED {
        let server = serve_secured(scheme, Authority::new().server("localhost")).await;
        let other = Authority::new();
        let error = connect(other.trusted(), &named(&server)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Refused);
        says(
            &error,
            &["no authority that this side trusts", "ca_file", "#sha256="],
        );
    }
}

#[tokio::test]
async fn authorities_of_one_name_are_told_apart() {
    for scheme in SECURED {
        let server = Authority::named("same").server("localhost");
        let server = serve_secured(scheme, server).await;
        let other = Authority::named("same");
        let error = connect(other.trusted(), &named(&server)).await.unwrap_err();
        says(&error, &["another of the same name"]);
    }
}

#[tokio::test]
async fn by_default_only_the_systems_authorities_are_trusted() {
    for scheme in SECURED {
        let server = serve_secured(scheme, Authority::new().server("localhost")).await;
        let address = named(&server);
        assert!(connect(ClientTls::new(), &address).await.is_err());
        assert!(hbi::connect(address, HostingEnv::new()).await.is_err());
    }
}

#[tokio::test]
async fn a_wrong_name_is_told_with_those_that_are_right() {
    for scheme in SECURED {
        let authority = Authority::new();
        let server = serve_secured(scheme, authority.server("example.org")).await;
        let error = connect(authority.trusted(), &named(&server))
            .await
            .unwrap_err();
        says(
            &error,
            &[
                "not for localhost",
                "but for: example.org;",
                "connect by a name",
            ],
        );
    }
}

#[tokio::test]
async fn an_expired_certificate_is_told() {
    for scheme in SECURED {
        let authority = Authority::new();
        let (chain, key) = authority.issue("localhost", |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        let server = serve_secured(scheme, ServerTls::files(chain, key).unwrap()).await;
        let error = connect(authority.trusted(), &named(&server))
            .await
            .unwrap_err();
        says(&error, &["has expired", "days ago", "renew"]);
    }
}

#[tokio::test]
async fn one_that_is_not_valid_yet_is_told() {
    for scheme in SECURED {
        let authority = Authority::new();
        let (chain, key) = authority.issue("localhost", |params| {
            params.not_before = rcgen::date_time_ymd(4000, 1, 1);
        });
        let server = serve_secured(scheme, ServerTls::files(chain, key).unwrap()).await;
        let error = connect(authority.trusted(), &named(&server))
            .await
            .unwrap_err();
        says(&error, &["not valid yet", "clocks"]);
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_made_once_and_pinned() {
    for scheme in SECURED {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.pem");
        let made = ServerTls::self_signed(&file, &["localhost"]).unwrap();
        let read = ServerTls::self_signed(&file, &["localhost"]).unwrap();
        let pin = made.fingerprint();
        assert_eq!(pin, read.fingerprint());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "the key is the owner's alone");
        }
        let files = std::fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(files, 1, "nothing is left beside it");

        let server = serve_secured(scheme, made).await;
        let address = server.address().to_string();
        assert!(address.ends_with(&format!("#sha256={pin}")), "{address}");
        works(&hbi::connect(&address, HostingEnv::new()).await.unwrap()).await;
        // without a pin nobody vouches for it
        let unpinned = named(&server);
        works(&connect(ClientTls::new().pin(pin), &unpinned).await.unwrap()).await;
        let trusting = Authority::new().trusted();
        assert!(connect(trusting, &unpinned).await.is_err());
    }
}

#[test]
fn servers_that_start_side_by_side_share_one_self_signed_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("server.pem");
    let starting = std::sync::Barrier::new(8);
    let start = || {
        starting.wait();
        ServerTls::self_signed(&file, &["localhost"]).map(|tls| tls.fingerprint())
    };
    let pins = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
        let pins = starts.into_iter().map(|start| start.join().unwrap());
        pins.collect::<Result<Vec<_>, _>>().unwrap()
    });
    assert!(pins.iter().all(|pin| *pin == pins[0]), "{pins:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_wrong_pin_is_told_with_the_right_one() {
    for scheme in SECURED {
        let folder = tempfile::tempdir().unwrap();
        let tls = ServerTls::self_signed(folder.path().join("server.pem"), &["localhost"]).unwrap();
        let seen = tls.fingerprint().to_string();
        let server = serve_secured(scheme, tls).await;
        let pinned = Fingerprint([7; 32]);
        let address = format!("{}#sha256={pinned}", named(&server));
        // the pin of the address comes before what is trusted otherwise
        let error = hbi::connect(&address, HostingEnv::new()).await.unwrap_err();
        says(
            &error,
            &["fingerprint", &seen, &pinned.to_string(), "ask its owner"],
        );
    }
}

#[tokio::test]
async fn clients_show_certificates_where_they_are_asked_for() {
    for scheme in SECURED {
        let authority = Authority::new();
        let tls = authority
            .server("localhost")
            .require_clients(authority.file())
            .unwrap();
        let server = Options::new()
            .server_tls(tls)
            .serve(format!("{scheme}://127.0.0.1:0"), |peer| async move {
                // without a check of the application's the certificate is who the peer is
                let shown: &Certificate = peer.identity().expect("one is required");
                let names = shown.dns_names();
                Ok(HostingEnv::new().function("names", move || names.clone()))
            })
            .await
            .unwrap();
        let (chain, key) = authority.issue("ali.example", |_| {});
        let tls = authority.trusted().certificate(&chain, &key).unwrap();
        let peer = connect(tls, &named(&server)).await.unwrap();
        let names: Vec<String> = peer.script("names()").await.unwrap();
        assert_eq!(names, ["ali.example"]);

        let none = refused(&authority.trusted(), &named(&server)).await;
        assert!(none.is_refused(), "{none}");
        says(&none, &["asks for a certificate", "ClientTls::certificate"]);

        let other = Authority::new();
        let (chain, key) = other.issue("eve.example", |_| {});
        let tls = authority.trusted().certificate(&chain, &key).unwrap();
        let wrong = refused(&tls, &named(&server)).await;
        assert!(wrong.is_refused(), "{wrong}");
        says(&wrong, &["this side's certificate"]);
    }
}

#[tokio::test]
async fn a_client_knows_the_certificate_of_its_server() {
    for scheme in SECURED {
        let authority = Authority::new();
        let server = serve_secured(scheme, authority.server("localhost")).await;
        let peer = connect(authority.trusted(), &named(&server)).await.unwrap();
        let shown: &Certificate = peer.identity().expect("it has shown it");
        assert_eq!(shown.dns_names(), ["localhost"]);
    }
}

#[tokio::test]
async fn a_client_certificate_that_is_not_taken_is_a_failed_attempt() {
    for scheme in SECURED {
        let authority = Authority::named("same");
        let others = [Some(Authority::new()), Some(Authority::named("same")), None];
        for other in others {
            let tls = authority.server("localhost");
            let mut defences = Defences::default();
            defences.failures_per_address = 1;
            let options = Options::new()
                .server_tls(tls.require_clients(authority.file()).unwrap())
                .defences(defences);
            let server = serve(options, &format!("{scheme}://127.0.0.1:0")).await;
            let mut client = authority.trusted();
            if let Some(other) = &other {
                let (chain, key) = other.issue("eve.example", |_| {});
                client = client.certificate(chain, key).unwrap();
            }
            let wrong = connect(client.clone(), &named(&server)).await.unwrap_err();
            // over QUIC a reset may overtake what a server says that forgets the connection soon
            let reset = scheme == "quic" && wrong.is_disconnected();
            assert!(wrong.is_refused() || reset, "{scheme}: {wrong}");
            let again = connect(client, &named(&server)).await.unwrap_err();
            says(&again, &["credentials refused too often"]);
        }
    }
}

#[tokio::test]
async fn who_says_whom_to_trust_is_not_left_unsecured() {
    let server = serve(Options::new(), "tcp://127.0.0.1:0").await;
    let address = server.address().to_string();
    let error = connect(ClientTls::new(), &address).await.unwrap_err();
    assert_eq!(error.kind(), hbi::Kind::Misuse, "{error}");
    says(&error, &[&address, "not secured", "tls://"]);
}

#[tokio::test]
async fn clients_may_be_asked_only() {
    for scheme in SECURED {
        let authority = Authority::new();
        let tls = authority
            .server("localhost")
            .ask_clients(authority.file())
            .unwrap();
        let server = Options::new()
            .server_tls(tls)
            .authenticate(|shown| async move { Ok(shown.certificate().is_some()) })
            .serve(format!("{scheme}://127.0.0.1:0"), |peer| async move {
                let known = *peer.identity::<bool>().expect("it was checked");
                Ok(HostingEnv::new().function("known", move || known))
            })
            .await
            .unwrap();
        let (chain, key) = authority.issue("ali.example", |_| {});
        let shown = authority.trusted().certificate(chain, key).unwrap();
        for (tls, expected) in [(authority.trusted(), false), (shown, true)] {
            let peer = connect(tls, &named(&server)).await.unwrap();
            let known: bool = peer.script("known()").await.unwrap();
            assert_eq!(known, expected);
        }
    }
}

/// Serves a certificate that signs itself, of which the client makes its authority.
async fn trusting_itself(scheme: &str, names: &[&str], ca: bool) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let (chain, key_file) = (folder.path().join("own.pem"), folder.path().join("own.key"));
    std::fs::write(&chain, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&key_file, key.serialize_pem()).unwrap();
    let server = serve_secured(scheme, ServerTls::files(&chain, key_file).unwrap()).await;
    let tls = ClientTls::new().ca_file(chain).unwrap();
    connect(tls, &named(&server)).await.unwrap_err()
}

#[tokio::test]
async fn certificates_as_other_tools_make_them_are_told() {
    for scheme in SECURED {
        let authority = trusting_itself(scheme, &["localhost"], true).await;
        assert!(authority.is_refused(), "{authority:?}");
        says(&authority, &["CA:TRUE", "#sha256=", "signed"]);
        let nameless = trusting_itself(scheme, &[], false).await;
        says(&nameless, &["not for localhost", "common name"]);
    }
}

#[tokio::test]
async fn a_server_is_not_what_its_address_does_not_pin() {
    for scheme in SECURED {
        let tls = Authority::new().server("localhost");
        let own = tls.fingerprint();
        let options = Options::new().server_tls(tls);
        let pinning = |pin| {
            let address = format!("{scheme}://127.0.0.1:0#sha256={pin}");
            options.serve(address, |_| async { Ok(HostingEnv::new()) })
        };
        let error = pinning(Fingerprint([7; 32])).await.unwrap_err();
        says(&error, &["another certificate", &own.to_string()]);
        assert!(pinning(own).await.is_ok());
    }
}

#[tokio::test]
async fn who_is_no_hbi_server_is_told_as_that() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let authority = Authority::new();
    let hanging_up = async { drop(listener.accept().await) };
    let address = format!("tls://{at}");
    let (error, ()) = tokio::join!(connect(authority.trusted(), &address), hanging_up);
    says(
        &error.unwrap_err(),
        &["hung up", "no hbi server", "check host and port"],
    );
    let options = Options::new().handshake(Duration::from_millis(100));
    let silent = options.connect(format!("tcp://{at}"), HostingEnv::new());
    says(
        &silent.await.unwrap_err(),
        &[&at.to_string(), "hbi server of this scheme"],
    );
    for scheme in ["tcp", "tls", "quic"] {
        let nowhere = format!("{scheme}://127.0.0.1:0");
        let error = connect(authority.trusted(), &nowhere).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Address);
        says(&error, &["port 0", "Server::address"]);
    }
}

#[tokio::test]
async fn plain_and_tls_tell_each_other_apart() {
    let authority = Authority::new();
    let secured = serve_tls(authority.server("localhost")).await;
    let plain = named(&secured).replace("tls://", "tcp://");
    let error = hbi::connect(plain, HostingEnv::new()).await.unwrap_err();
    assert!(error.is_refused(), "{error}");
    says(&error, &["speaks TLS", "tls://"]);

    let open = serve(Options::new(), "tcp://127.0.0.1:0").await;
    let address = open.address().to_string().replace("tcp://", "tls://");
    let error = connect(authority.trusted(), &address).await.unwrap_err();
    says(&error, &["does not speak TLS", "tcp://"]);
}

/// Why a client connects no more.
async fn given_up(options: Options, address: &str) -> Error {
    let client = options.reconnect(address, Backoff::default(), HostingEnv::new);
    client.unwrap().peer().await.unwrap_err()
}

#[tokio::test]
async fn clients_do_not_try_again_what_would_be_met_again() {
    for scheme in SECURED {
        let authority = Authority::new();
        let tls = authority.server("localhost");
        let server = serve_secured(scheme, tls.require_clients(authority.file()).unwrap()).await;
        let address = named(&server);
        let pinned = ClientTls::new().pin(Fingerprint([7; 32]));
        let other = Authority::new().trusted();
        for tls in [pinned, other, authority.trusted()] {
            let error = given_up(Options::new().client_tls(tls), &address).await;
            assert!(error.is_refused(), "{scheme}: {error:?}");
        }
        let elsewhere = serve_secured(scheme, authority.server("example.org")).await;
        let trusting = Options::new().client_tls(authority.trusted());
        let error = given_up(trusting, &named(&elsewhere)).await;
        assert!(error.is_refused(), "{scheme}: {error:?}");
    }
    let authority = Authority::new();
    let plain = serve(Options::new(), "tcp://127.0.0.1:0").await;
    let address = plain.address().to_string().replace("tcp://", "tls://");
    let trusting = Options::new().client_tls(authority.trusted());
    let error = given_up(trusting, &address).await;
    assert!(error.is_protocol(), "{error:?}");
    let secured = serve_tls(authority.server("localhost")).await;
    let address = named(&secured).replace("tls://", "tcp://");
    let error = given_up(Options::new(), &address).await;
    assert!(error.is_refused(), "{error:?}");
}

#[tokio::test]
async fn a_certificate_is_renewed_while_the_server_runs() {
    for scheme in SECURED {
        let authority = Authority::new();
        let (chain, key) = authority.issue("localhost", |params| {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        });
        let tls = ServerTls::files(&chain, &key).unwrap();
        let server = serve_secured(scheme, tls.clone()).await;
        let address = named(&server);
        assert!(connect(authority.trusted(), &address).await.is_err());
        // half of a renewal changes nothing
        std::fs::write(&key, "nothing\n").unwrap();
        assert!(tls.reload().is_err());
        let error = connect(authority.trusted(), &address).await.unwrap_err();
        says(&error, &["has expired"]);
        authority.issue("localhost", |_| {});
        tls.reload().unwrap();
        works(&connect(authority.trusted(), &address).await.unwrap()).await;
    }
}

/// Set where this process is told by its environment which authorities the system trusts.
#[cfg(target_os = "linux")]
const TRUSTING: &str = "HBI_TEST_TRUSTING";

/// Runs in a process of its own, since the system's authorities are named by its environment.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_systems_authorities_are_trusted_and_no_others() {
    if let Some(folder) = std::env::var_os(TRUSTING).map(PathBuf::from) {
        for scheme in SECURED {
            let tls = ServerTls::files(folder.join("localhost.pem"), folder.join("localhost.key"));
            let server = serve_secured(scheme, tls.unwrap()).await;
            works(
                &hbi::connect(named(&server), HostingEnv::new())
                    .await
                    .unwrap(),
            )
            .await;
            let other = serve_secured(scheme, Authority::new().server("localhost")).await;
            let error = hbi::connect(named(&other), HostingEnv::new()).await;
            let error = error.unwrap_err();
            assert!(error.is_refused(), "{error:?}");
            says(&error, &["no authority that this side trusts"]);
        }
        return;
    }
    let authority = Authority::new();
    authority.issue("localhost", |_| {});
    let name = "the_systems_authorities_are_trusted_and_no_others";
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("SSL_CERT_FILE", authority.file())
        .env_remove("SSL_CERT_DIR")
        .env(TRUSTING, authority.folder())
        .output();
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[tokio::test]
async fn unusable_files_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let missing = ServerTls::files(
        folder.path().join("none.pem"),
        folder.path().join("none.key"),
    )
    .unwrap_err();
    says(&missing, &["certificate", "none.pem", "PEM"]);
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "nothing\n").unwrap();
    says(
        &ClientTls::new().ca_file(&empty).unwrap_err(),
        &["empty.pem", "none in it"],
    );
    let authority = Authority::new();
    let (chain, _) = authority.issue("one", |_| {});
    let (_, key) = authority.issue("two", |_| {});
    says(
        &ServerTls::files(chain, key).unwrap_err(),
        &["private key is not the certificate's"],
    );
    let options = Options::new();
    let nothing = options.serve("tls://127.0.0.1:0", |_| async { Ok(HostingEnv::new()) });
    says(
        &nothing.await.unwrap_err(),
        &["certificate", "Options::server_tls"],
    );
}

#[test]
fn fingerprints_are_read_with_colons_and_without() {
    let text = format!("AB{}", ":cd".repeat(31));
    let read: Fingerprint = text.parse().unwrap();
    assert_eq!(read.to_string(), format!("ab{}", "cd".repeat(31)));
    assert!("ab".parse::<Fingerprint>().is_err());
    assert!("ab".repeat(33).parse::<Fingerprint>().is_err());
}
