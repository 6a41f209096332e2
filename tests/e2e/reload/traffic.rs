//! In: reload upon reload under traffic; out: nothing is lost.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crate::support::backend::plain;
use crate::support::certs::Certs;
use crate::support::client::{Client, get, post};
use crate::support::edge::edge;
use crate::support::h2::{H2, request};
use crate::support::mcp::{by, call, initialize, replica, session};

#[test]
fn twenty_reloads_in_a_row_lose_nothing() {
    let (certs, backend, sessions) = (Certs::new(), plain(), replica("a"));
    let config = |n: usize| {
        let mut config = edge()
            .listener("")
            .listener(&certs.listener())
            .upstream("one", &[backend.url()], &format!("first_byte_timeout: {}s", 20 + n % 2))
            .upstream("two", &[sessions.url()], "")
            .route("upstream: one")
            .route("upstream: two, path: /mcp");
        if n.is_multiple_of(3) {
            config = config.raw_listener("address: \"127.0.0.3:0\", plaintext: true");
        }
        config
    };
    let edge = config(1).start();
    let id = session(&edge.ask(initialize("/mcp")));
    let (done, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let until_done = |mut once: Box<dyn FnMut() + '_>| {
        while !done.load(Ordering::SeqCst) {
            once();
            asked.fetch_add(1, Ordering::SeqCst);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = edge.client();
            until_done(Box::new(|| {
                assert_eq!(client.ask(post("localhost", "/", "", "{}")).status, 200)
            }));
        });
        scope.spawn(|| until_done(Box::new(|| assert_eq!(edge.get("/x").status, 200))));
        scope.spawn(|| {
            let tls = certs.client(&["http/1.1"]);
            let ask = || {
                Client::tls(edge.listener(1), tls.clone(), "localhost").ask(get("localhost", "/"))
            };
            until_done(Box::new(|| assert_eq!(ask().status, 200)));
        });
        scope.spawn(|| {
            let mut h2 = H2::connect(edge.listener(1), certs.client(&["h2"]));
            until_done(Box::new(|| {
                assert_eq!(h2.ask(request("GET", "/x", &[]), b"").unwrap().status, 200);
            }));
        });
        scope.spawn(|| {
            let mut n = 1;
            until_done(Box::new(|| {
                n += 1;
                assert_eq!(by(&edge.ask(call("/mcp", &id, n))), "a");
            }));
        });
        scope.spawn(|| {
            for n in 2..22 {
                edge.take(&config(n));
            }
            done.store(true, Ordering::SeqCst);
        });
    });
    assert!(asked.load(Ordering::SeqCst) > 100, "{asked:?}");
    edge.wait_line("generation 21 of the config is at work");
    edge.stop();
}
