//! TLS, certificates, identity, and defences: what is let in, and what the others are told.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hbi::{
    Backoff, Caller, Connection, Defences, Error, Fingerprint, HostingEnv, Kind, Options, Server,
    tls::{Certificate, ClientTls, ServerTls},
};
use hbi_tests::pair::Transport;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer,
    KeyPair,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// A directory of its own, gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("hbi-secure-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An authority, and the files of what it vouches for.
struct Authority {
    folder: Folder,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let folder = Folder::new();
        let name = folder.0.display().to_string();
        Self::named(folder, &name)
    }

    fn named(folder: Folder, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.file("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { folder, issuer }
    }

    fn file(&self) -> PathBuf {
        self.folder.file("ca.pem")
    }

    /// The files of a certificate and its key.
    fn issue(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (
            self.folder.file(&format!("{name}.pem")),
            self.folder.file(&format!("{name}.key")),
        );
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    fn server(&self, name: &str) -> ServerTls {
        let (chain, key) = self.issue(name, |_| {});
        ServerTls::files(chain, key).unwrap()
    }

    fn trusted(&self) -> ClientTls {
        ClientTls::new().ca_file(self.file()).unwrap()
    }
}

async fn serve(options: Options, address: &str) -> Server {
    let factory = |_peer| async { Ok(HostingEnv::new().function("one", || 1)) };
    options.serve(address, factory).await.unwrap()
}

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

/// Checks that a peer is taken, and is not taken before it lands.
async fn works(peer: &Connection) {
    let one: i64 = peer.script("one()").await.unwrap();
    assert_eq!(one, 1);
}

fn says(error: &Error, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
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
        let server = Authority::named(Folder::new(), "same").server("localhost");
        let server = serve_secured(scheme, server).await;
        let other = Authority::named(Folder::new(), "same");
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
        let folder = Folder::new();
        let file = folder.file("server.pem");
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
        let files = std::fs::read_dir(&folder.0).unwrap().count();
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
    let folder = Folder::new();
    let file = folder.file("server.pem");
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
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 1);
}

#[tokio::test]
async fn a_wrong_pin_is_told_with_the_right_one() {
    for scheme in SECURED {
        let folder = Folder::new();
        let tls = ServerTls::self_signed(folder.file("server.pem"), &["localhost"]).unwrap();
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
async fn a_client_certificate_that_is_not_taken_is_a_failed_attempt() {
    for scheme in SECURED {
        let authority = Authority::named(Folder::new(), "same");
        let others = [
            Some(Authority::new()),
            Some(Authority::named(Folder::new(), "same")),
            None,
        ];
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
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    if ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    let (chain, key_file) = (folder.file("own.pem"), folder.file("own.key"));
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
        .env(TRUSTING, &authority.folder.0)
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
    let folder = Folder::new();
    let missing = ServerTls::files(folder.file("none.pem"), folder.file("none.key")).unwrap_err();
    says(&missing, &["certificate", "none.pem", "PEM"]);
    let empty = folder.file("empty.pem");
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

#[test]
fn fingerprints_are_read_with_colons_and_without() {
    let text = format!("AB{}", ":cd".repeat(31));
    let read: Fingerprint = text.parse().unwrap();
    assert_eq!(read.to_string(), format!("ab{}", "cd".repeat(31)));
    assert!("ab".parse::<Fingerprint>().is_err());
    assert!("ab".repeat(33).parse::<Fingerprint>().is_err());
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
