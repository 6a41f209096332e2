//! Two streams joined: in, a client's and a backend's; out, how it ended and how much went each way.

use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, split};
use tokio::time::timeout;

use crate::base::io::fill;

/// How long one direction of a tunnel may outlive the other.
const GOODBYE: Duration = Duration::from_secs(10);

/// Copies both ways until both have ended; when one has, the other gets a little time to say goodbye.
pub(super) async fn join<A, B>(client: &mut A, other: &mut B) -> (io::Result<()>, u64, u64)
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut client_read, mut client_write) = split(client);
    let (mut other_read, mut other_write) = split(other);
    let (mut up, mut down) = (0, 0);
    let ended = {
        let mut upward = pin!(pipe(&mut client_read, &mut other_write, &mut up));
        let mut downward = pin!(pipe(&mut other_read, &mut client_write, &mut down));
        tokio::select! {
            ended = &mut upward => goodbye(ended, downward).await,
            ended = &mut downward => goodbye(ended, upward).await,
        }
    };
    (ended, up, down)
}

/// Copies until the end, and passes that on.
async fn pipe<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
    from: &mut R,
    to: &mut W,
    count: &mut u64,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while fill(from, &mut buffer).await? > 0 {
        to.write_all(&buffer).await?;
        to.flush().await?;
        *count += buffer.len() as u64;
        buffer = BytesMut::new();
    }
    to.shutdown().await
}

/// After a proper end, waits for the other direction; a broken one takes it along.
async fn goodbye(
    ended: io::Result<()>,
    rest: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    ended?;
    timeout(GOODBYE, rest).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
