//! A client's connection: in, an accepted socket, and what TLS was agreed on it; out, bytes both ways.

use pingora::protocols::l4::stream::Stream as TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// A stream to a client, plain or TLS; boxed, because it moves and its parts are large.
pub type ClientStream = Either<Box<TcpStream>, Box<TlsStream<Box<TcpStream>>>>;
