//! The rest of a long answer: in, how its relay ended; out, what the log says of it. And the relay of what is not
//! HTTP any more.

use std::pin::Pin;

use tokio::io::AsyncReadExt;

use crate::base::io::reached;
use crate::forward::conn::BackendConn;
use crate::listen::wire::Wire;
use crate::observe::record::Record;
use crate::stream::pump::{End, Tally};

/// Why a stream ended before its time: its caller's token has expired.
const EXPIRED: &str = "auth.expired";
/// The same: it may come back, to another edge or listener.
const STOPPING: &str = "edge.stopping";
/// The same, where the edge goes on.
const LISTENER_GONE: &str = "listener.revoked";
/// Codes of WebSocket's close frames (RFC 6455 §7.4.1): the server goes down, or the caller may not go on.
const GOING_AWAY: u16 = 1001;
const POLICY: u16 = 1008;

/// How the rest of an answer ended.
pub(super) enum Ended {
    Flow(Tally),
    /// With what is to stand in the log, if anything: an end, or what went wrong.
    Tunnel((Option<&'static str>, String)),
    Already,
}

/// Notes it; whether what carried it can carry another. What was revoked has been noted already. It was to stop with
/// its `listener`, if that is there no more, and with the edge otherwise.
pub(super) fn note_end(record: &mut Record, ended: Ended, listener: bool) -> bool {
    match ended {
        Ended::Flow(tally) => {
            (record.events, record.comments) = (tally.events, tally.comments);
            record.rpc_error = tally.rpc_error.map(i64::from);
            if tally.end != End::Revoked {
                record.end = end_code(tally.end);
            }
            if let End::BackendBroke(kind) = tally.end {
                record.detail = kind.to_string();
            }
        }
        Ended::Tunnel((end, detail)) => {
            record.end = end.or(record.end);
            if !detail.is_empty() {
                record.detail = detail;
            }
        }
        Ended::Already => {}
    }
    if record.end == Some(STOPPING) && !listener {
        record.end = Some(LISTENER_GONE);
    }
    record.end.is_none()
}

/// What the backend sent behind its 101, then both ways.
pub(super) async fn tunnel<W: Wire>(
    wire: &mut W,
    conn: &mut BackendConn,
    draining: Pin<&mut (impl Future<Output = ()> + Send)>,
    until: Option<tokio::time::Instant>,
    revoked: Pin<&mut (impl Future<Output = ()> + Send)>,
) -> (Option<&'static str>, String) {
    let (stream, ahead) = conn.parts();
    let mut why = None;
    let leave = async {
        let (end, code) = tokio::select! {
            () = draining => (Some(STOPPING), GOING_AWAY),
            () = reached(until) => (Some(EXPIRED), POLICY),
            () = revoked => (None, POLICY),
        };
        why = Some(end);
        code
    };
    let ended = if ahead.is_empty() {
        wire.splice(stream, leave).await
    } else {
        let (read, write) = tokio::io::split(stream);
        wire.splice(&mut tokio::io::join(ahead.chain(read), write), leave).await
    };
    match why {
        Some(end) => (end, String::new()),
        None => (None, ended.err().map(|e| e.to_string()).unwrap_or_default()),
    }
}

fn end_code(end: End) -> Option<&'static str> {
    match end {
        End::Complete => None,
        End::ClientGone => Some("client.gone"),
        End::ClientStalled => Some("client.stalled"),
        End::BackendBroke(_) => Some("forward.broke_off"),
        End::BackendSilent => Some("forward.silent"),
        End::BadEndpoint => Some("stream.bad_endpoint"),
        End::BadList(refused) => Some(refused.code()),
        End::Drained => Some(STOPPING),
        End::Expired => Some(EXPIRED),
        End::Revoked => Some("auth.revoked"),
    }
}
