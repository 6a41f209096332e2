//! A client's connection: in, an accepted socket, and what TLS was agreed on it; out, bytes both ways.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

/// A stream to a client, plain or TLS; the latter boxed, because its state is a kilobyte.
pub type ClientStream = Either<Socket, Box<TlsStream<Socket>>>;

/// An accepted socket, to which bytes can be given back.
#[derive(Debug)]
pub struct Socket {
    tcp: TcpStream,
    /// Boxed: hardly a connection has any, and none for long.
    returned: Option<Box<Bytes>>,
}

impl Socket {
    /// Gives back what was read too much: it is read again first.
    pub fn give_back(&mut self, bytes: Bytes) {
        self.returned = (!bytes.is_empty()).then(|| Box::new(bytes));
    }
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, returned: None }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(returned) = &mut this.returned else {
            return Pin::new(&mut this.tcp).poll_read(cx, buf);
        };
        buf.put_slice(&returned.split_to(returned.len().min(buf.remaining())));
        if returned.is_empty() {
            this.returned = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn what_was_given_back_comes_first_in_whatever_pieces() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut socket = Socket::from(listener.accept().await.unwrap().0);
        client.write_all(b"hello world").await.unwrap();
        let mut hello = [0; 8];
        socket.read_exact(&mut hello).await.unwrap();
        socket.give_back(Bytes::copy_from_slice(&hello[2..]));
        let mut rest = [0; 9];
        for piece in rest.chunks_mut(4) {
            socket.read_exact(piece).await.unwrap();
        }
        assert_eq!(&rest, b"llo world");
        assert!(socket.returned.is_none());
    }
}
