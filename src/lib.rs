//! mcp-edge, an edge proxy for unmodified MCP servers: in, requests of clients; out, those that may pass, each
//! at a server, and its answer at the client.
//!
//! # The life of a request
//!
//! A request's way is the order of the folders. Each stage takes plain values and gives a proof that
//! the next one needs, or a [`Denial`](base::denial::Denial).
//!
//! 1. [`listen`]: a socket is accepted, and asked whether it may come in (address lists,
//!    PROXY protocol, connections by address); TLS is done, HTTP/1.x or HTTP/2 is read, and what is
//!    not a clean request is refused. Out comes a [`Head`](base::head::Head) and a
//!    [`Wire`](listen::wire::Wire).
//! 2. [`client`]: who is connected, or whom a trusted proxy names.
//! 3. [`route`]: path, Host and Origin are checked, and the longest path wins; then the client's
//!    address and the method. Out comes [`Routed`](route::Routed) with the path that the backend gets.
//! 4. [`auth`]: the route's methods say who the caller is: a
//!    [`Principal`](base::principal::Principal). Preflights of browsers are answered before.
//! 5. [`inspect`]: a JSON body is read whole and scanned; era, method and tool are known from here
//!    on: a [`Call`](inspect::Call). Where tools are guarded, what could be read in another way is refused.
//! 6. [`authz`]: may this caller make this call? Every rule of the route is asked: about the caller
//!    before step 5, about the call here. Out comes [`Granted`](authz::Granted).
//! 7. [`limit`]: how much? Limits by address are asked before step 4, others right after it, so that
//!    who is over one takes up no room for a body; those of streams here, where a stream is known for
//!    one. (The body of step 5 has already taken its share of the buffer budget.)
//! 8. [`balance`]: the session's replica, the caller's, or the policy's: a
//!    [`Plan`](balance::Plan). Of a body that is not JSON, the beginning is gathered before the replica
//!    is chosen.
//! 9. [`forward`]: the request goes out once; the answer's head comes back.
//! 10. [`stream`]: the answer's body goes to the client as it comes; where tools are guarded, with lists
//!     of tools cut.
//! 11. [`observe`]: one line in the log, and the counters; where that is asked for, a span, and before
//!     step 9 a line in the audit log.
//!
//! [`proxy::admit::admit`] is steps 2 to 8 in one screen; [`proxy::exchange`] is 9, [`proxy::answer`]
//! what is done to an answer, and [`proxy::respond`] the one place that writes refusals.
//!
//! # Another config
//!
//! One [`Runtime`](proxy::runtime::Runtime) is a generation of the config; [`Edge`](proxy::Edge) swaps it whole, and a
//! request keeps the one that it began with. What remembers (counters, caches, keys, replicas with their
//! connections) is found again by what the config says of it ([`base::kept`]). A stream is asked once more whether
//! it would be let in ([`proxy::standing`]), and so is a connection before its next request.
//!
//! # Which engine carries what
//!
//! | what | carried by |
//! |---|---|
//! | threads, start, stop | Pingora's `Server`, our listeners as a `Service` of it |
//! | sockets, accepting | tokio, [`listen::accept`] |
//! | TLS | rustls with a `ServerConfig` of ours |
//! | HTTP/1.x from clients | our own loop, [`listen::h1`]: strict, with whole-head deadlines and answers in our words |
//! | HTTP/2 from clients | the `h2` crate under our accept loop, [`listen::h2`] |
//! | HTTP/1.1 to backends | our own client, [`forward`] |
//! | WebSocket | our own loops joined to each other: [`Wire::splice`](listen::wire::Wire::splice) |
//! | the admin listener | `pingora-proxy` where it is plain and local ([`listen::local`]), else the same sockets and loops; [`admin`] |
//! | weighted turns | `pingora-load-balancing`, [`balance::policy`] |
//! | names of replicas | `hickory-resolver`, [`forward::names`] |
//!
//! `pingora-proxy` carried the upgrades at first. Its two halves race: when a backend's 101 overtakes
//! the end of the request's (empty) body, the upgraded connection is closed at once; that was seen in
//! one of some thirty upgrades against a fast backend, and bytes that a backend sends right behind
//! its 101 and before it closes were lost. So it carries no traffic of clients, and the local admin listener has no bound
//! on connections but that of open files.
//!
//! # The import rule
//!
//! base ← listen ← client ← route ← auth ← inspect ← authz ← limit ← balance ← forward ← stream ←
//! observe ← acme, control ← cli, config ← import ← proxy ← admin ← demo, app ← main. A stage imports `base` and earlier stages
//! only; Pingora is named only in listen, balance, forward, proxy and app.
//! `tests/architecture.rs` holds it. (A stage's `compile.rs` turns config nodes into its settings;
//! the nodes are in `base`, so that the rule holds for them, too.)

pub mod base;

pub mod listen;

pub mod client;

pub mod route;

pub mod auth;

pub mod inspect;

pub mod authz;

pub mod limit;

pub mod balance;

pub mod forward;

pub mod stream;

pub mod observe;

pub mod acme;

pub mod control;

pub mod config;

pub mod import;

pub mod proxy;

pub mod admin;

pub mod app;

pub mod cli;

#[cfg(feature = "demo")]
pub mod demo;
