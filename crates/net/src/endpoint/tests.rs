use std::sync::OnceLock;

use bytes::{BufMut, Bytes};
use chatty_core::frame::Class;
use chatty_core::id::{ClusterId, ServerId, Slot};
use quinn::ConnectionError;
use tokio::net::UdpSocket;

use super::*;
use crate::frame::{FrameReader, RawFrame};
use crate::link::{LinkError, LinkStreams, accept_classes, class_to_byte};
use crate::pki::{Authority, Fingerprint, SERVER_VALIDITY};
use crate::tls::CredentialsError;

/// For what should happen at once: only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(fact: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, fact).await.expect("it did not happen")
}

fn authority(cluster: u128) -> Authority {
    Authority::generate(ClusterId::new(cluster)).unwrap()
}

fn identity(cluster: ClusterId, server: u128) -> Identity {
    let slot = Slot::new(format!("s{server}")).unwrap();
    Identity { cluster, slot, generation: 1, server: ServerId::new(server) }
}

fn config(authority: &Authority, server: u128) -> ServerEndpointConfig {
    let identity = identity(authority.cluster(), server);
    ServerEndpointConfig {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        credentials: authority.issue_server(&identity, SERVER_VALIDITY).unwrap(),
        authority_pem: authority.cert_pem().to_owned(),
        reset_secret: [7; 32],
    }
}

fn server(authority: &Authority, number: u128) -> (Endpoint, SocketAddr) {
    let endpoint = Endpoint::server(config(authority, number)).unwrap();
    let address = endpoint.local_addr().unwrap();
    (endpoint, address)
}

fn trust(fingerprint: Fingerprint) -> Trust {
    Trust::pinned(fingerprint).unwrap()
}

/// A server in a runtime of its own, which dies like a process: nobody is told.
struct Process {
    runtime: tokio::runtime::Runtime,
    address: SocketAddr,
    endpoint: Endpoint,
    /// A connection holds the socket too.
    accepted: std::sync::Mutex<Vec<Accepted>>,
}

impl Process {
    fn start(config: ServerEndpointConfig) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let endpoint = {
            let _inside = runtime.enter();
            Endpoint::server(config).unwrap()
        };
        let accepted = std::sync::Mutex::default();
        Self { address: endpoint.local_addr().unwrap(), runtime, endpoint, accepted }
    }

    async fn accept(&self) {
        let accepted = soon(self.endpoint.accept()).await.unwrap();
        self.accepted.lock().unwrap().push(accepted);
    }

    /// Returns when the port is free.
    async fn kill(self) {
        let Self { runtime, endpoint, accepted, .. } = self;
        let dying = std::thread::spawn(move || {
            runtime.shutdown_timeout(PATIENCE);
            drop((accepted, endpoint));
        });
        soon(tokio::task::spawn_blocking(|| dying.join())).await.unwrap().unwrap();
    }
}

async fn peers(a: &Endpoint, b: &Endpoint) -> (Connection, Connection) {
    let address = b.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(a.dial_peer(address, PATIENCE), soon(b.accept()));
    let Some(Accepted::Peer { connection, .. }) = accepted else { panic!("{accepted:?}") };
    (dialled.unwrap().0, connection)
}

#[tokio::test]
async fn peers_know_each_other_by_their_certificates() {
    let authority = authority(1);
    let ((a, _), (b, b_address)) = (server(&authority, 1), server(&authority, 2));

    let (dialled, accepted) = tokio::join!(a.dial_peer(b_address, PATIENCE), soon(b.accept()));

    assert_eq!(dialled.unwrap().1, identity(authority.cluster(), 2));
    let Some(Accepted::Peer { identity: of_a, .. }) = accepted else { panic!("{accepted:?}") };
    assert_eq!(of_a, identity(authority.cluster(), 1));
}

#[tokio::test]
async fn a_client_reaches_the_cluster_it_pinned_and_comes_as_a_client() {
    let authority = authority(1);
    let (endpoint, address) = server(&authority, 1);
    let client = Endpoint::client().unwrap();
    let pinned = trust(authority.fingerprint());
    for _ in 0..2 {
        let (dialled, accepted) =
            tokio::join!(client.dial_server(address, &pinned, PATIENCE), soon(endpoint.accept()));
        let connection = dialled.unwrap();
        assert!(matches!(accepted, Some(Accepted::Client { .. })), "{accepted:?}");
        drop(connection);
    }
}

#[tokio::test]
async fn a_client_refuses_every_authority_but_the_pinned_one() {
    // The other cluster even has the same id.
    let (ours, other) = (authority(1), authority(1));
    let (_endpoint, address) = server(&other, 1);
    let client = Endpoint::client().unwrap();
    let error =
        client.dial_server(address, &trust(ours.fingerprint()), PATIENCE).await.unwrap_err();
    assert!(matches!(error, DialError::WrongCluster { .. }), "{error:?}");
}

#[tokio::test]
async fn a_client_refuses_who_shows_the_pinned_authority_with_a_certificate_of_another() {
    let (ours, other) = (authority(1), authority(1));
    let forged = config(&other, 1);
    let chain = crate::tls::tests::accept_showing(&forged.credentials, ours.cert_pem());
    let socket = super::config::bind(forged.listen).unwrap();
    let address = socket.local_addr().unwrap();
    let (quinn, _socket) =
        super::config::endpoint(socket, quinn::EndpointConfig::default(), Some(chain)).unwrap();
    let accepting = tokio::spawn(async move { quinn.accept().await.unwrap().await.map(drop) });

    let client = Endpoint::client().unwrap();
    let pinned = trust(ours.fingerprint());
    let error = client.dial_server(address, &pinned, PATIENCE).await.unwrap_err();

    assert!(matches!(error, DialError::WrongCluster { .. }), "{error:?}");
    accepting.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_peer_without_a_certificate_never_reaches_accept() {
    let authority = authority(1);
    let (endpoint, address) = server(&authority, 1);
    let client = Endpoint::client().unwrap();
    let bare = crate::tls::tests::peer_without_certificate(authority.fingerprint());

    let connection = client.connect(address, bare, ANY_SERVER).await.unwrap();
    let error = await_admission(address, &connection).await.unwrap_err();

    let DialError::Refused { code: 2, reason, .. } = error else { panic!("{error:?}") };
    assert!(reason.contains("certificate"), "{reason}");
    // What reaches accept next is the client that came later.
    let pinned = trust(authority.fingerprint());
    let (dialled, accepted) =
        tokio::join!(client.dial_server(address, &pinned, PATIENCE), soon(endpoint.accept()));
    dialled.unwrap();
    assert!(matches!(accepted, Some(Accepted::Client { .. })), "{accepted:?}");
}

#[tokio::test]
async fn a_peer_with_a_foreign_certificate_is_told_so() {
    let (ours, foreign) = (authority(1), authority(1));
    let (_endpoint, address) = server(&ours, 1);
    let (stranger, _) = server(&foreign, 2);
    let credentials = config(&foreign, 2).credentials;
    // It has our authority's certificate, which is public, and so takes us for its cluster.
    let dial = crate::tls::tests::dial_as(&credentials, ours.cert_pem());
    let name = crate::pki::dns_name(ours.cluster());

    let error = match stranger.connect(address, dial, &name).await {
        Ok(connection) => await_admission(address, &connection).await.unwrap_err(),
        Err(error) => error,
    };

    assert!(matches!(error, DialError::CertificateRefused { .. }), "{error:?}");
}

#[tokio::test]
async fn a_peer_of_another_cluster_is_not_dialled() {
    let (one, two) = (authority(1), authority(2));
    let ((a, _), (_b, b_address)) = (server(&one, 1), server(&two, 1));
    let error = a.dial_peer(b_address, PATIENCE).await.unwrap_err();
    assert!(matches!(error, DialError::WrongCluster { .. }), "{error:?}");
    let client = Endpoint::client().unwrap();
    assert_eq!(client.dial_peer(b_address, PATIENCE).await.unwrap_err(), DialError::NotAServer);
}

fn bind_error(config: ServerEndpointConfig) -> BindError {
    Endpoint::server(config).err().expect("it was bound")
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let authority = authority(1);
    let (_endpoint, address) = server(&authority, 1);
    let error = bind_error(ServerEndpointConfig { listen: address, ..config(&authority, 2) });
    assert!(matches!(error, BindError::AddressInUse { address: named } if named == address));
}

#[tokio::test]
async fn credentials_that_do_not_fit_are_told_apart() {
    let (ours, same_id, other) = (authority(1), authority(1), authority(2));
    let good = config(&ours, 1);
    let refused = |credentials: &Credentials, authority_pem: &str| {
        let (credentials, authority_pem) = (credentials.clone(), authority_pem.to_owned());
        match bind_error(ServerEndpointConfig { credentials, authority_pem, ..good.clone() }) {
            BindError::Credentials(error) => error,
            error => panic!("{error:?}"),
        }
    };

    let foreign = refused(&good.credentials, other.cert_pem());
    let (certificate, authority) = (ours.cluster(), other.cluster());
    assert_eq!(foreign, CredentialsError::OtherCluster { certificate, authority });

    assert_eq!(refused(&good.credentials, same_id.cert_pem()), CredentialsError::NotSigned);

    let key_pem = config(&ours, 1).credentials.key_pem;
    let mixed = Credentials { key_pem, ..good.credentials.clone() };
    assert_eq!(refused(&mixed, ours.cert_pem()), CredentialsError::KeyMismatch);

    let garbage = Credentials { key_pem: "?".into(), ..good.credentials.clone() };
    assert_eq!(refused(&garbage, ours.cert_pem()), CredentialsError::UnreadableKey);
    assert_eq!(refused(&good.credentials, "?"), CredentialsError::Pki(PkiError::NotACertificate));
}

#[tokio::test]
async fn a_reloaded_certificate_is_shown_to_both_sides() {
    let authority = authority(1);
    let ((a, a_address), (b, b_address)) = (server(&authority, 1), server(&authority, 2));
    let renewed = Identity { generation: 2, ..identity(authority.cluster(), 1) };
    let credentials = authority.issue_server(&renewed, SERVER_VALIDITY).unwrap();

    a.reload(&credentials, authority.cert_pem()).unwrap();

    let (_, accepted) = tokio::join!(a.dial_peer(b_address, PATIENCE), soon(b.accept()));
    let Some(Accepted::Peer { identity: shown, .. }) = accepted else { panic!("{accepted:?}") };
    assert_eq!(shown, renewed);
    let (_, shown) = b.dial_peer(a_address, PATIENCE).await.unwrap();
    assert_eq!(shown, renewed);
    let others = config(&authority, 3).credentials;
    let certificate = ServerId::new(3);
    assert_eq!(
        a.reload(&others, authority.cert_pem()),
        Err(ReloadError::OtherServer { certificate })
    );
}

#[tokio::test]
async fn an_expired_certificate_is_refused_with_the_reason_on_both_sides() {
    let authority = authority(1);
    let ((good, good_address), (late, late_address)) =
        (server(&authority, 1), server(&authority, 2));
    let identity = identity(authority.cluster(), 2);
    let short = Duration::from_secs(2);
    late.reload(&authority.issue_server(&identity, short).unwrap(), authority.cert_pem()).unwrap();
    // Certificates end with a second; until then each dial succeeds.
    let refused = soon(async {
        loop {
            match late.dial_peer(good_address, PATIENCE).await {
                Ok((connection, _)) => connection.close(0u32.into(), b""),
                Err(error) => return error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let accepting = async {
        while let Some(accepted) = good.accept().await {
            drop(accepted);
        }
    };
    let error = tokio::select! { error = refused => error, () = accepting => panic!("closed") };
    let DialError::CertificateRefused { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("expired"), "{reason}");
    assert!(error.to_string().contains("renew it"), "{error}");

    let error = good.dial_peer(late_address, PATIENCE).await.unwrap_err();
    assert!(matches!(error, DialError::OutOfTime { .. }), "{error:?}");
    assert!(error.to_string().contains("renew"), "{error}");
}

#[tokio::test]
async fn a_certificate_that_has_ended_does_not_take_the_place_of_a_good_one() {
    let authority = authority(1);
    let (endpoint, _) = server(&authority, 1);
    let over = authority.issue_server(&identity(authority.cluster(), 1), Duration::ZERO).unwrap();
    // It ends in this second, cut to whole seconds: it is over by the next.
    let refused = soon(async {
        loop {
            match endpoint.reload(&over, authority.cert_pem()) {
                Err(error) => return error,
                Ok(()) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
            let good = config(&authority, 1).credentials;
            endpoint.reload(&good, authority.cert_pem()).unwrap();
        }
    });
    let refused = refused.await;
    let ReloadError::Credentials(CredentialsError::Expired { .. }) = refused else {
        panic!("{refused:?}")
    };
}

#[tokio::test]
async fn a_renewed_certificate_has_the_old_key_and_a_new_end() {
    let authority = authority(1);
    let (endpoint, address) = server(&authority, 1);
    let identity = identity(authority.cluster(), 1);
    let old = authority.issue_server(&identity, Duration::from_secs(1000)).unwrap();
    let new = authority.renew_server(&identity, &old.cert_pem, SERVER_VALIDITY).unwrap();
    assert_ne!(new, old.cert_pem);

    let both = Credentials { cert_pem: new, key_pem: old.key_pem };
    endpoint.reload(&both, authority.cert_pem()).unwrap();

    let (other, _) = server(&authority, 2);
    assert_eq!(other.dial_peer(address, PATIENCE).await.unwrap().1, identity);
}

#[tokio::test]
async fn two_authorities_of_one_cluster_are_trusted_while_one_replaces_the_other() {
    let (old, new) = (authority(1), authority(1));
    let both = format!("{}{}", old.cert_pem(), new.cert_pem());
    let bundled = |authority, number| {
        let config =
            ServerEndpointConfig { authority_pem: both.clone(), ..config(authority, number) };
        let endpoint = Endpoint::server(config).unwrap();
        let address = endpoint.local_addr().unwrap();
        (endpoint, address)
    };
    let ((a, a_address), (b, b_address)) = (bundled(&old, 1), bundled(&new, 2));
    peers(&a, &b).await;
    peers(&b, &a).await;
    // A client that pinned either finds the servers that it signed.
    let client = Endpoint::client().unwrap();
    for (address, authority) in [(a_address, &old), (b_address, &new)] {
        client.dial_server(address, &trust(authority.fingerprint()), PATIENCE).await.unwrap();
    }
    let error = client.dial_server(a_address, &trust(new.fingerprint()), PATIENCE).await;
    assert!(matches!(error, Err(DialError::WrongCluster { .. })), "{error:?}");

    // With the old one gone from the file, its servers are refused.
    let credentials = config(&new, 2).credentials;
    b.reload(&credentials, new.cert_pem()).unwrap();
    let error = b.dial_peer(a_address, PATIENCE).await.unwrap_err();
    assert!(matches!(error, DialError::WrongCluster { .. }), "{error:?}");
}

#[tokio::test]
async fn closing_tells_why_and_ends_accept_and_dials() {
    let authority = authority(1);
    let ((a, a_address), (b, _)) = (server(&authority, 1), server(&authority, 2));
    let (at_a, at_b) = peers(&a, &b).await;

    a.close("upgrade");

    let ConnectionError::ApplicationClosed(close) = soon(at_b.closed()).await else {
        panic!("{:?}", at_b.close_reason())
    };
    assert_eq!(
        (close.error_code, &close.reason[..]),
        (CloseCode::Stopping.into(), &b"upgrade"[..])
    );
    assert!(soon(a.accept()).await.is_none());
    assert_eq!(a.dial_peer(a_address, PATIENCE).await.unwrap_err(), DialError::Stopped);
    drop(at_a);
    a.wait_idle(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_canary_to_a_dead_server_brings_a_hint_and_the_endpoint_lives_on() {
    let authority = authority(1);
    let dead = Process::start(config(&authority, 1));
    let (living, living_address) = server(&authority, 2);
    // Dual-stack: what it learns of IPv4 must come out as IPv4.
    let client = Endpoint::client().unwrap();
    let pinned = trust(authority.fingerprint());
    let address = dead.address;
    let (dialled, ()) = tokio::join!(client.dial_server(address, &pinned, PATIENCE), dead.accept());
    let connection = dialled.unwrap();
    let mut hints = client.hints();
    dead.kill().await;

    client.canary(address).unwrap();

    assert_eq!(soon(hints.next()).await, Some(address));
    // Every one of these makes the next send or receive fail, were it not kept from QUIC.
    for _ in 0..100 {
        client.canary(address).unwrap();
    }
    let (dialled, _accepted) =
        tokio::join!(client.dial_server(living_address, &pinned, PATIENCE), soon(living.accept()));
    dialled.unwrap();
    drop(connection);
}

#[tokio::test]
async fn a_canary_to_a_living_server_is_dropped_without_an_answer() {
    let authority = authority(1);
    let (_endpoint, address) = server(&authority, 1);
    let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.send_to(&[0], address).await.unwrap();
    // A version nobody knows, in a datagram of full size, is answered: the first answer is to this.
    let mut probe = vec![0; 1200];
    probe.splice(..7, [0xc0, 0x1a, 0x2a, 0x3a, 0x5a, 1, 9]);
    socket.send_to(&probe, address).await.unwrap();
    let mut answer = [0; 1500];
    let length = soon(socket.recv(&mut answer)).await.unwrap();
    assert!(length > 5 && answer[1..5] == [0; 4], "version negotiation");
}

#[tokio::test]
async fn a_dial_to_nobody_ends_soon() {
    let authority = authority(1);
    let (a, _) = server(&authority, 1);
    let nobody = Process::start(config(&authority, 2));
    let address = nobody.address;
    nobody.kill().await;
    let error = a.dial_peer(address, PATIENCE).await.unwrap_err();
    assert_eq!(error, DialError::Unreachable { address });
}

#[tokio::test]
async fn a_forged_hint_does_not_end_a_handshake_that_completes() {
    let authority = authority(1);
    let (_endpoint, address) = server(&authority, 1);
    let client = Endpoint::client().unwrap();
    let pinned = trust(authority.fingerprint());
    let mut dial = std::pin::pin!(client.dial_server(address, &pinned, PATIENCE));
    assert!(!is_ready(dial.as_mut()), "it has sent its first packet, and nothing has come back");

    client.0.socket.forge_hint(address);

    dial.await.unwrap();
}

#[tokio::test]
async fn a_dial_to_silence_times_out() {
    let silence = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silence.local_addr().unwrap();
    let (a, _) = server(&authority(1), 1);
    let limit = Duration::from_millis(50);
    let error = a.dial_peer(address, limit).await.unwrap_err();
    assert_eq!(error, DialError::TimedOut { address, limit });
}

#[tokio::test]
async fn a_restarted_server_resets_the_connections_of_its_former_life() {
    let authority = authority(1);
    let first = Process::start(config(&authority, 1));
    let (a, _) = server(&authority, 2);
    let (dialled, ()) = tokio::join!(a.dial_peer(first.address, PATIENCE), first.accept());
    let (connection, _) = dialled.unwrap();
    let listen = first.address;
    first.kill().await;
    let second = Process::start(ServerEndpointConfig { listen, ..config(&authority, 1) });

    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[0; 100]).await.unwrap();

    assert_eq!(soon(connection.closed()).await, ConnectionError::Reset);
    second.kill().await;
}

#[tokio::test]
async fn a_connection_to_a_dead_server_ends_after_the_idle_time() {
    let authority = authority(1);
    let dead = Process::start(config(&authority, 1));
    let (a, _) = server(&authority, 2);
    let (dialled, ()) = tokio::join!(a.dial_peer(dead.address, PATIENCE), dead.accept());
    let (connection, _) = dialled.unwrap();
    dead.kill().await;
    assert_eq!(soon(connection.closed()).await, ConnectionError::TimedOut);
}

#[tokio::test]
async fn frames_of_each_class_come_out_of_a_stream_of_their_own() {
    let authority = authority(1);
    let ((a, _), (b, _)) = (server(&authority, 1), server(&authority, 2));
    let (at_a, at_b) = peers(&a, &b).await;
    let mut to_b = LinkStreams::open(&at_a).await.unwrap();
    for class in Class::ALL {
        let writer = to_b.class(class);
        for kind in 0..100 {
            writer.push(kind, |body| body.put_u8(class_to_byte(class))).unwrap();
        }
        soon(writer.flush()).await.unwrap();
        assert_eq!(writer.waiting(), 0);
    }

    let mut from_a = accept_classes(&at_b);
    let mut seen = Vec::new();
    while let Some((class, mut reader)) = soon(from_a.next()).await.unwrap() {
        for kind in 0..100 {
            let body = Bytes::from(vec![class_to_byte(class)]);
            assert_eq!(soon(reader.next()).await.unwrap(), Some(RawFrame { kind, body }));
        }
        seen.push(class);
    }
    seen.sort();
    assert_eq!(seen, Class::ALL);
}

#[tokio::test]
async fn a_bad_or_second_class_is_an_error() {
    let authority = authority(1);
    let ((a, _), (b, _)) = (server(&authority, 1), server(&authority, 2));
    for (bytes, expected) in
        [([1, 1], LinkError::Duplicate(Class::Control)), ([2, 99], LinkError::UnknownClass(99))]
    {
        let (at_a, at_b) = peers(&a, &b).await;
        for byte in bytes {
            at_a.open_uni().await.unwrap().write_all(&[byte]).await.unwrap();
        }
        let mut from_a = accept_classes(&at_b);
        soon(from_a.next()).await.unwrap();
        assert_eq!(soon(from_a.next()).await.unwrap_err(), expected);
    }
}

/// Whether it is done at once, as opening a stream is for whoever may.
fn is_ready<T>(fact: impl Future<Output = T>) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::pin!(fact).poll(&mut context).is_ready()
}

#[tokio::test]
async fn a_client_may_open_one_stream_and_send_no_datagrams() {
    let authority = authority(1);
    let (endpoint, address) = server(&authority, 1);
    let client = Endpoint::client().unwrap();
    // Not our client's configuration: it would send datagrams.
    let any = quinn::ClientConfig::new(trust(authority.fingerprint()).dial);
    let dialling = client.0.quinn.connect_with(any, address, ANY_SERVER).unwrap();
    let (dialled, accepted) = tokio::join!(dialling, soon(endpoint.accept()));
    let (connection, _accepted) = (dialled.unwrap(), accepted.unwrap());

    let (mut first, _) = soon(connection.open_bi()).await.unwrap();
    let (mut taken, piece) = (0, [0; 4096]);
    while is_ready(first.write(&piece)) {
        taken += piece.len();
        assert!(taken <= 64 << 10, "the server holds what it does not read");
    }
    assert_eq!(taken, 64 << 10);
    assert!(!is_ready(connection.open_bi()), "a second stream makes the server hold its bytes");
    assert!(!is_ready(connection.open_uni()), "nobody at the server would read it");
    let sent = connection.send_datagram(Bytes::from_static(b"?"));
    assert_eq!(sent, Err(quinn::SendDatagramError::UnsupportedByPeer));
}

#[tokio::test]
async fn a_client_talks_on_one_stream_of_two_directions() {
    let authority = authority(1);
    let (endpoint, address) = server(&authority, 1);
    let client = Endpoint::client().unwrap();
    let pinned = trust(authority.fingerprint());
    let (dialled, accepted) =
        tokio::join!(client.dial_server(address, &pinned, PATIENCE), soon(endpoint.accept()));
    let Some(Accepted::Client { connection }) = accepted else { panic!("{accepted:?}") };
    let (to_server, _from_server) = dialled.as_ref().unwrap().open_bi().await.unwrap();
    let mut to_server = crate::frame::FrameWriter::new(to_server);
    let mut long = bytes::BytesMut::new();
    crate::frame::put_frame(&mut long, 9, |body| body.put_bytes(3, 500_000)).unwrap();

    let (written, read) = tokio::join!(soon(to_server.write_encoded(long.freeze())), async {
        let (_to_client, from_client) = soon(connection.accept_bi()).await.unwrap();
        soon(FrameReader::new(from_client).next()).await
    });

    written.unwrap();
    let frame = read.unwrap().unwrap();
    assert_eq!((frame.kind, frame.body.len()), (9, 500_000));
}

#[tokio::test]
async fn both_sides_are_asked_to_acknowledge_less_often() {
    let authority = authority(1);
    let ((a, _), (b, address)) = (server(&authority, 1), server(&authority, 2));
    let client = Endpoint::client().unwrap();
    let pinned = trust(authority.fingerprint());
    let asked = async |connection: &Connection| {
        while connection.stats().frame_rx.ack_frequency == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };

    let (dialled, accepted) =
        tokio::join!(client.dial_server(address, &pinned, PATIENCE), soon(b.accept()));
    let Some(Accepted::Client { connection }) = accepted else { panic!("{accepted:?}") };
    let links = [(dialled.unwrap(), connection), peers(&a, &b).await];

    for (one, other) in &links {
        soon(asked(one)).await;
        soon(asked(other)).await;
    }
}

/// Where packets go, once it is known.
type Whom = Arc<OnceLock<SocketAddr>>;

/// Passes packets on, a tenth of a second later, and every other one 80 ms after those behind it.
async fn pass_on(from: Arc<UdpSocket>, to: Arc<UdpSocket>, whom: Whom, sender: Whom) {
    let mut bytes = vec![0; 2048];
    for nth in 0_u64.. {
        let Ok((len, address)) = from.recv_from(&mut bytes).await else { return };
        sender.get_or_init(|| address);
        let (to, whom, packet) = (to.clone(), whom.clone(), bytes[..len].to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100 + nth % 2 * 80)).await;
            to.send_to(&packet, *whom.get().unwrap()).await
        });
    }
}

/// An address at which a server is reached over a long way.
async fn far_from(server: SocketAddr) -> SocketAddr {
    let front = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let here = front.local_addr().unwrap();
    let (server, dialler) = (Whom::new(server.into()), Whom::default());
    tokio::spawn(pass_on(front.clone(), back.clone(), server.clone(), dialler.clone()));
    tokio::spawn(pass_on(back, front, dialler, server));
    here
}

#[tokio::test]
async fn packets_that_overtake_each_other_on_a_long_way_do_not_close_the_window() {
    let authority = authority(1);
    let (endpoint, address) = server(&authority, 1);
    let client = Endpoint::client().unwrap();
    let pinned = trust(authority.fingerprint());
    let relay = far_from(address).await;
    let (dialled, accepted) =
        tokio::join!(client.dial_server(relay, &pinned, PATIENCE), soon(endpoint.accept()));
    let Some(Accepted::Client { connection }) = accepted else { panic!("{accepted:?}") };
    let dialled = dialled.unwrap();
    let (mut to_server, _from_server) = dialled.open_bi().await.unwrap();

    let (written, read) = tokio::join!(soon(to_server.write_all(&[7; 100_000])), async {
        let (_to_client, mut from_client) = soon(connection.accept_bi()).await.unwrap();
        soon(from_client.read_exact(&mut [0; 100_000])).await
    });

    written.unwrap();
    read.unwrap();
    let path = dialled.stats().path;
    let packets = path.cwnd / u64::from(path.current_mtu);
    assert!(packets >= 6, "the least are 2, it began with 10: {path:?}");
}
