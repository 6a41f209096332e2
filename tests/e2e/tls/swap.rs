//! In: certificates that change on disk; out, what new clients are shown, and live ones that notice nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;

use super::certificates::listener;
use super::shake::shake;
use crate::support::backend::{backend, feed, plain};
use crate::support::certs::Certs;
use crate::support::client::{Client, get, get_events, post};
use crate::support::edge::{Edge, edge};
use crate::support::h2::{H2, request};
use crate::support::wait::eventually;

/// A folder as certbot keeps it: `live/site.pem` is a link into `archive`.
struct Live<'c> {
    certs: &'c Certs,
    generation: usize,
}

impl<'c> Live<'c> {
    fn new(certs: &'c Certs) -> (Self, CertificateDer<'static>) {
        for folder in ["archive", "live"] {
            fs::create_dir(certs.path(folder)).unwrap();
        }
        let mut live = Self { certs, generation: 0 };
        let first = live.renew();
        (live, first)
    }

    fn path(&self, end: &str) -> PathBuf {
        self.certs.path(&format!("live/site.{end}"))
    }

    /// A new pair in the archive, and both links moved to it, one after the other, as certbot does.
    fn renew(&mut self) -> CertificateDer<'static> {
        self.generation += 1;
        let made = self.certs.leaf(&["localhost"]).write(&format!("archive/{}", self.generation));
        self.link(&["key", "pem"]);
        made
    }

    fn link(&self, ends: &[&str]) {
        for end in ends {
            drop(fs::remove_file(self.path(end)));
            symlink(format!("../archive/{}.{end}", self.generation), self.path(end)).unwrap();
        }
    }
}

fn shown(edge: &Edge, certs: &Certs) -> CertificateDer<'static> {
    shake(edge.address(), &certs.client(&[]), "localhost").unwrap().shown
}

/// The value of a sample whose labels contain `part`.
fn metric(edge: &Edge, name: &str, part: &str) -> Option<i64> {
    let page = Client::plain(edge.admin()).ask(get("localhost", "/metrics")).text();
    let line = page.lines().find(|l| l.starts_with(&format!("{name}{{")) && l.contains(part))?;
    line.rsplit(' ').next()?.parse().ok()
}

const ADMIN: &str = "admin: { address: \"127.0.0.1:0\" }";

#[test]
fn a_renewal_is_taken_by_itself_and_at_once_on_sighup() {
    let certs = Certs::new();
    let (mut live, first) = Live::new(&certs);
    let backend = plain();
    let edge =
        edge().top(ADMIN).listener(&listener(&certs, &["live/site"], "")).to(&backend).start();
    assert_eq!(shown(&edge, &certs), first);
    let expiry =
        || metric(&edge, "mcp_edge_certificate_expiry_timestamp_seconds", "live/site.pem").unwrap();
    let before = expiry();
    let client = certs.client(&[]);
    let resumed = || shake(edge.address(), &client, "localhost").unwrap().resumed;
    assert!(!resumed() && resumed());

    let second = live.renew();
    eventually("the new certificate is shown", || shown(&edge, &certs) == second);
    assert!(resumed(), "tickets outlive a renewal");
    certs.leaf(&["localhost"]).until(std::time::Duration::from_secs(86_400)).write("archive/9");
    live.generation = 9;
    live.link(&["key", "pem"]);
    edge.signal("HUP");
    let third = certs.der("archive/9.pem");
    eventually("the new certificate is shown", || shown(&edge, &certs) == third);
    assert!(expiry() < before, "the metric follows");
}

#[test]
fn a_bad_renewal_changes_nothing_and_is_told_once() {
    let certs = Certs::new();
    let good = certs.leaf(&["localhost"]).write("site");
    let backend = plain();
    let edge = edge().top(ADMIN).listener(&listener(&certs, &["site"], "")).to(&backend).start();
    let failed = || metric(&edge, "mcp_edge_file_reload_failed", "site.pem");
    eventually("all is well", || failed() == Some(0));
    let copy = |from: &str, end: &str| {
        fs::copy(certs.path(&format!("{from}.{end}")), certs.path(&format!("site.{end}"))).unwrap();
    };
    certs.leaf(&["localhost"]).expired().write("expired");
    certs.leaf(&["localhost"]).future().write("future");
    certs.leaf(&["localhost"]).write("new");
    type Spoil<'a> = &'a dyn Fn();
    let spoilt: [(&str, Spoil<'_>); 5] = [
        ("site.pem` holds no certificate", &|| fs::write(certs.path("site.pem"), "half").unwrap()),
        ("does not belong to the certificate", &|| copy("new", "pem")),
        ("site.pem` expired on", &|| ["pem", "key"].iter().for_each(|e| copy("expired", e))),
        ("site.pem` is not valid before", &|| {
            ["pem", "key"].iter().for_each(|e| copy("future", e))
        }),
        ("cannot read", &|| fs::remove_file(certs.path("site.key")).unwrap()),
    ];
    for (said, spoil) in spoilt {
        spoil();
        edge.wait_line(said);
        eventually("the metric says so", || failed() == Some(1));
        assert_eq!(shown(&edge, &certs), good, "{said}");
    }
    for (said, _) in spoilt {
        let told = edge.stderr().iter().filter(|l| l.contains(said)).count();
        // a file that is copied is half there for a moment
        assert!((1..=2).contains(&told), "{said}: {told} times\n{}", edge.stderr().join("\n"));
    }
    ["pem", "key"].iter().for_each(|end| copy("new", end));
    let new = certs.der("new.pem");
    eventually("the good one is shown", || shown(&edge, &certs) == new);
    eventually("all is well again", || failed() == Some(0));
}

#[test]
fn renewals_under_load_fail_no_request_and_cut_no_stream() {
    let certs = Certs::new();
    let (mut live, _) = Live::new(&certs);
    let (feed, source) = feed();
    let backend = backend(move |x| match x.header("accept").as_deref() {
        Some("text/event-stream") => {
            x.sse(&[]);
            x.play(&source);
        }
        _ => {
            if x.body().is_some() {
                x.json("{}");
            }
        }
    });
    let edge = edge().listener(&listener(&certs, &["live/site"], "")).to(&backend).start();
    let mut stream = edge.tls(certs.client(&[]));
    stream.send(get_events("localhost", "/events", ""));
    assert_eq!(stream.start().status, 200);
    let mut kept = edge.tls(certs.client(&[]));
    let mut h2 = H2::connect(edge.address(), certs.client(&["h2"]));

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..3)
        .map(|n| {
            let (stop, served) = (stop.clone(), served.clone());
            let (to, config) = (edge.address(), certs.client(&[]));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut client = Client::tls(to, config.clone(), "localhost");
                    for id in 0..=n {
                        let body =
                            format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"ping\"}}");
                        assert_eq!(client.ask(post("localhost", "/", "", &body)).status, 200);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    for n in 0..5 {
        let renewed = live.renew();
        edge.signal("HUP");
        let before = served.load(Ordering::Relaxed);
        eventually("the renewal is shown, under load", || {
            let loaded = served.load(Ordering::Relaxed) > before + 20;
            loaded && shown(&edge, &certs) == renewed
        });
        let event = format!("data: {n}\n\n");
        feed.push(&event);
        assert_eq!(stream.chunks(event.len()), event.as_bytes());
        assert_eq!(kept.ask(get("localhost", "/kept")).status, 200);
        assert_eq!(h2.ask(request("GET", "/h2", &[]), b"").unwrap().status, 200);
    }
    stop.store(true, Ordering::Relaxed);
    for thread in load {
        thread.join().expect("no request failed");
    }
}

#[test]
fn one_client_two_generations_of_names() {
    let certs = Certs::new();
    certs.leaf(&["a.example"]).write("site");
    let backend = plain();
    let tls = listener(&certs, &["site"], "unknown_names: refuse");
    let edge = edge().listener(&tls).to(&backend).start();
    let client =
        super::shake::anything(&[&TLS13], &[rustls::SignatureScheme::ECDSA_NISTP256_SHA256]);
    let known = |name: &str| shake(edge.address(), &client, name).is_ok();
    assert!(known("a.example") && !known("b.example"));
    // the new names are served, and the old one is gone
    certs.leaf(&["b.example"]).write("site");
    eventually("the names are new", || known("b.example"));
    assert!(!known("a.example"));
}
