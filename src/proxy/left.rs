//! Clients that leave before their answer begins: in, how long they have waited, and whom for; out, what that says of
//! the replica.
//!
//! A replica that hangs is out of time after `first_byte_timeout`, which is long for the sake of slow tools, and no
//! client waits for so long. That one client had no patience says nothing; that it was in vain for long, and
//! nobody else was answered all the while, not a check either, does.

use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::admit::Admitted;
use super::answer::is_open_ended;
use crate::balance::health::Cause;
use crate::base::head::Head;
use crate::forward::carrier::Opened;
use crate::listen::wire::Wire;

/// For how long a client must have waited: the least that MCP's SDKs wait for an answer before they give up (they wait
/// for 30 to 60 s). Whoever leaves sooner was in a hurry.
const LONG: Duration = Duration::from_secs(30);
/// It waits by design, until a task is done (MCP 2025-11-25).
const TASK_RESULT: &str = "tasks/result";

/// Ends when the client has gone, with how long that took from the first poll.
pub(super) async fn gone<W: Wire>(wire: &mut W) -> Duration {
    let since = Instant::now();
    wire.gone().await;
    since.elapsed()
}

/// What a client that has left after so long says against the replica, whose
/// [`answers`](crate::balance::health::Health::answers) stood at this number when the request went out.
pub(super) fn blame(
    waited: Duration,
    answers: u64,
    opened: &Opened,
    admitted: &Admitted,
    head: &Head,
) {
    let method = admitted.granted.call.rpc_method.as_deref();
    // whose answer may take as long as it likes, as that of a stream in which nothing happens, says nothing
    let asks = head.method == Method::POST
        && method.is_some_and(|method| method != TASK_RESULT)
        && !is_open_ended(admitted, head);
    if asks && waited >= LONG && opened.replica.health.answers() == answers {
        admitted.carrier.upstream.failed(&opened.replica, Cause::Timeout);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use http::HeaderMap;
    use http::header::CONTENT_TYPE;
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio::time::sleep;

    use super::super::admit::admit;
    use super::super::begin::begin;
    use super::super::body::tests::Slow;
    use super::super::exchange::{Failure, exchange};
    use super::super::runtime::Runtime;
    use super::*;
    use crate::balance::Replica;
    use crate::balance::view::State;
    use crate::base::head::Version;
    use crate::client;
    use crate::config::{Mode, load_text};
    use crate::listen::ConnCx;
    use crate::listen::place::Place;

    const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}"#;

    /// An edge before one replica that takes everything and says nothing.
    struct Silent {
        rt: Runtime,
        cx: ConnCx,
        replica: Arc<Replica>,
        _stop: watch::Sender<bool>,
        _silent: TcpListener,
        _folder: tempfile::TempDir,
    }

    impl Silent {
        async fn new() -> Self {
            let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let folder = tempfile::tempdir().unwrap();
            let config = format!(
                "state_dir: none\nlisteners: [ {{ address: '127.0.0.1:8080' }} ]\n\
                 routes: [ {{ upstream: 'http://{}', auth: [ anonymous ] }} ]\n",
                silent.local_addr().unwrap()
            );
            let settings = load_text(&config, folder.path(), &|_| None, Mode::Check).unwrap();
            let rt = Runtime::new(&settings).unwrap();
            let listener = Arc::new(settings.listeners[0].clone());
            let (stop, shutdown) = watch::channel(false);
            let cx = ConnCx {
                peer: "127.0.0.1:1".parse().unwrap(),
                may_forward: false,
                certificate: None,
                shown: Vec::new(),
                good_until: 0.into(),
                place: Place::new(listener.clone()),
                listener,
                looked_at: 0.into(),
                shutdown,
            };
            let carrier = rt.carriers.values().next().unwrap();
            let replica = carrier.upstream.members().replicas[0].clone();
            Self { rt, cx, replica, _stop: stop, _silent: silent, _folder: folder }
        }

        /// Somebody asks, waits for so long, and leaves.
        async fn ask(&self, method: Method, body: &'static str, patience: u64) {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, "application/json".parse().unwrap());
            let (path, authority) = ("/x".to_owned(), "localhost:8080".to_owned());
            let version = Version::H11;
            let (query, websocket) = (None, false);
            let mut head = Head { method, path, query, authority, headers, version, websocket };
            let client = client::identify(&mut head, &self.cx).unwrap();
            let mut record = begin(&head, IpAddr::from([127, 0, 0, 1]));
            let mut wire = Slow::leaving(body, Duration::from_secs(patience));
            let (rt, cx, mut id) = (&self.rt, &self.cx, None);
            let admitted = admit(rt, &mut wire, &head, client, cx, &mut record, &mut id).await;
            let mut admitted = admitted.unwrap();
            let ended = exchange(&mut admitted, &mut wire, &head, cx, &mut record).await;
            assert!(matches!(ended, Err(Failure::ClientGone)), "{ended:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waited_long_and_in_vain_speaks_against_a_replica_that_answers_nobody() {
        let edge = Silent::new().await;
        for _ in 0..9 {
            edge.ask(Method::POST, CALL, 29).await;
        }
        assert_eq!(edge.replica.state(), State::Up, "they were in a hurry");
        for _ in 0..4 {
            edge.ask(Method::POST, CALL, 30).await;
        }
        assert_eq!(edge.replica.state(), State::Up);
        edge.ask(Method::POST, CALL, 60).await;
        // it is the only one, and cannot rest
        assert_eq!(edge.replica.state(), State::Failing);
        let problem = edge.replica.view().problem.unwrap().text;
        assert_eq!(problem, "requests failed: timeout");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_what_may_never_come_speaks_against_nobody() {
        let edge = Silent::new().await;
        let message = r#"{"jsonrpc":"2.0","id":1,"method":"tasks/result","params":{"taskId":"1"}}"#;
        for (method, body) in [(Method::GET, ""), (Method::POST, message)] {
            for _ in 0..9 {
                edge.ask(method.clone(), body, 300).await;
            }
            assert_eq!(edge.replica.state(), State::Up, "{method} {body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_tool_of_a_replica_that_answers_others_is_only_slow() {
        let edge = Silent::new().await;
        for _ in 0..9 {
            let others = async {
                sleep(Duration::from_secs(50)).await;
                edge.replica.health.took(Duration::from_millis(1));
            };
            tokio::join!(edge.ask(Method::POST, CALL, 60), others);
        }
        assert_eq!(edge.replica.state(), State::Up);
    }
}
