//! What differs from quinn's defaults, and why. Everything else was measured to be best as it is
//! (design, section 12).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{
    AckFrequencyConfig, ClientConfig, Connection, EndpointConfig, ServerConfig, TransportConfig,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use socket2::{Domain, Protocol, Socket, Type};

use super::error::BindError;
use crate::hint::HintSocket;
use crate::tls::ServerTls;

/// Default buffers of 208 KiB lose 0.3 to 1.5 % of packets on loopback at full rate, these none.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// A connection without a packet for so long is over.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Three lost in a row do not end a connection.
const KEEP_ALIVE: Duration = Duration::from_millis(2500);
/// What the other side may send on a stream before we read it: 100 Mbit/s at 100 ms. With the
/// number of streams it bounds what a connection makes us hold.
const STREAM_BYTES: u32 = 1_250_000;
/// What comes is acknowledged every so many packets, or after 25 ms
/// (draft-ietf-quic-ack-frequency). By default it is every second: a burst of four packets was
/// two acknowledgements, and they were half of all packets of a busy server.
const PACKETS_AN_ACK: u32 = 10;
/// A packet is lost when so many that were sent after it have come, or so many round trips after it
/// one of them has. By default these are 3 and 9/8 (RFC 9002, section 6.1): on a long way on which
/// packets take 60 to 140 ms by turns nearly every burst counted as lost, and the window stayed at its
/// least, two packets a round trip, until a server was thousands of events behind.
const REORDERED_PACKETS: u32 = 128;
const REORDERED_ROUND_TRIPS: f32 = 2.0;
/// A client opens one stream, of two directions.
const CLIENT_STREAMS: u32 = 1;
/// A client may send so much before we read it: 5 Mbit/s at 100 ms.
const CLIENT_RECEIVE_BYTES: u32 = 64 << 10;
/// What we send to a client and it has not acknowledged is kept, a copy for each client, up to this:
/// 20 Mbit/s at 100 ms. What waits before that is shared by all it goes to.
const CLIENT_SEND_BYTES: u64 = 256 << 10;
/// A server opens one for the admission, where it accepted, and one for each class.
const SERVER_STREAMS: u32 = 5;
/// As much as fits its streams.
const SERVER_RECEIVE_BYTES: u32 = SERVER_STREAMS * STREAM_BYTES;
/// To a server we send on four streams, over long ways: quinn's default.
const SERVER_SEND_BYTES: u64 = 8 * STREAM_BYTES as u64;

pub(super) fn bind(address: SocketAddr) -> Result<UdpSocket, BindError> {
    bind_socket(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::AddressInUse { address },
        _ => BindError::Socket { address, source },
    })
}

fn bind_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    // The system gives less if its limit is lower; then bursts lose packets, and nothing worse.
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    let got = socket.recv_buffer_size()?;
    if got < SOCKET_BUFFER_BYTES {
        tracing::warn!(
            got,
            wanted = SOCKET_BUFFER_BYTES,
            "small socket buffer: raise net.core.rmem_max and wmem_max"
        );
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

pub(super) fn endpoint(
    socket: UdpSocket,
    config: EndpointConfig,
    accepting: Option<ServerConfig>,
) -> io::Result<(quinn::Endpoint, Arc<HintSocket>)> {
    let socket = Arc::new(HintSocket::new(socket)?);
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint =
        quinn::Endpoint::new_with_abstract_socket(config, accepting, socket.clone(), runtime)?;
    Ok((endpoint, socket))
}

/// Both the key of the reset tokens and that of the connection ids come from the secret: quinn
/// drops a packet of an unknown connection in silence unless its id was made with the same key.
pub(super) fn server_endpoint(secret: &[u8; 32]) -> EndpointConfig {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let derive = |label: &[u8]| hmac::sign(&secret, label);
    let reset = hmac::Key::new(hmac::HMAC_SHA256, derive(b"chatty stateless reset").as_ref());
    let ids = derive(b"chatty connection ids");
    let ids = ids.as_ref().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(ids)));
    config
}

/// For whoever connects, until it has proved to be a server: what a client needs.
pub(super) fn accepting(tls: &ServerTls) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(tls.accept.clone());
    let mut transport = transport();
    transport.max_concurrent_bidi_streams(CLIENT_STREAMS.into());
    transport.max_concurrent_uni_streams(0_u32.into());
    transport.receive_window(CLIENT_RECEIVE_BYTES.into());
    transport.send_window(CLIENT_SEND_BYTES);
    config.transport_config(Arc::new(transport));
    config
}

/// Lets a server that connected have what a link needs.
pub(super) fn admit_server(connection: &Connection) {
    connection.set_max_concurrent_uni_streams(SERVER_STREAMS.into());
    connection.set_receive_window(SERVER_RECEIVE_BYTES.into());
    connection.set_send_window(SERVER_SEND_BYTES);
}

/// Whom we dial is a server, and has proved it before it may open a stream.
pub(super) fn dialling(tls: Arc<QuicClientConfig>) -> ClientConfig {
    let mut config = ClientConfig::new(tls);
    let mut transport = transport();
    transport.max_concurrent_bidi_streams(0_u32.into());
    transport.max_concurrent_uni_streams(SERVER_STREAMS.into());
    transport.send_window(SERVER_SEND_BYTES);
    config.transport_config(Arc::new(transport));
    config
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport.max_idle_timeout(IDLE_MAX.try_into().ok());
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    transport.stream_receive_window(STREAM_BYTES.into());
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold((PACKETS_AN_ACK - 1).into());
    acks.reordering_threshold((REORDERED_PACKETS - 1).into());
    transport.packet_threshold(REORDERED_PACKETS);
    transport.time_threshold(REORDERED_ROUND_TRIPS);
    transport.ack_frequency_config(Some(acks));
    // Nothing here speaks in datagrams, so nobody fills a buffer with them.
    transport.datagram_receive_buffer_size(None);
    transport
}
