//! In: keys, tokens and moods; out: an identity provider on a port of its own that counts who asks it what.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::backend::{Backend, Exchange, Seen, backend};
use super::wait::Watched;

/// The edge's name and secret at every provider.
pub(crate) const CLIENT: (&str, &str) = ("edge app", "s:3cr+et/ä");

/// How a provider answers.
#[derive(Clone, PartialEq)]
pub(crate) enum Mood {
    /// As it should.
    Well,
    /// With this status and body.
    Says(&'static str, String),
    /// Not before its mood is another one.
    Waits,
    /// By hanging up.
    HangsUp,
}

struct State {
    mood: Mood,
    keys: Vec<Value>,
    metadata: Value,
    tokens: HashMap<String, Value>,
}

/// A running provider: metadata by RFC 8414 and OIDC, `/keys`, and `/introspect`.
pub(crate) struct Provider {
    backend: Backend,
    state: Arc<Watched<State>>,
}

/// A provider that publishes these keys.
pub(crate) fn provider(keys: &[Value]) -> Provider {
    let state = State {
        mood: Mood::Well,
        keys: keys.to_vec(),
        metadata: json!({}),
        tokens: HashMap::new(),
    };
    let state = Arc::new(Watched::new(state));
    let shared = state.clone();
    let backend = backend(move |x| answer(x, &shared));
    let issuer = backend.url();
    state.update(|s| {
        s.metadata = json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys"), "extra": 1 });
    });
    Provider { backend, state }
}

impl Provider {
    /// Its name.
    pub(crate) fn issuer(&self) -> String {
        self.backend.url()
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    pub(crate) fn set_mood(&self, mood: Mood) {
        self.state.update(|s| s.mood = mood);
    }

    pub(crate) fn set_keys(&self, keys: &[Value]) {
        self.state.update(|s| s.keys = keys.to_vec());
    }

    pub(crate) fn set_metadata(&self, name: &str, value: Value) {
        self.state.update(|s| s.metadata[name] = value);
    }

    /// What it says of an opaque token; any other one is not active.
    pub(crate) fn set_token(&self, token: &str, answer: Value) {
        self.state.update(|s| {
            s.tokens.insert(token.to_owned(), answer);
        });
    }

    /// How often this path was asked for.
    pub(crate) fn calls(&self, path: &str) -> usize {
        self.requests(path).len()
    }

    /// All requests for this path.
    pub(crate) fn requests(&self, path: &str) -> Vec<Seen> {
        self.backend.requests().into_iter().filter(|seen| seen.target == path).collect()
    }

    /// Waits until this path was asked for so often.
    pub(crate) fn wait_calls(&self, path: &str, count: usize) {
        self.backend.wait(&format!("{count} calls of {path}"), |record| {
            let calls = record.requests.iter().filter(|seen| seen.target == path).count();
            (calls >= count).then_some(())
        });
    }
}

fn answer(x: &mut Exchange, state: &Watched<State>) {
    let Some(body) = x.body() else { return };
    let target = x.request.target.clone();
    let mood =
        state.wait("the provider may answer", |s| (s.mood != Mood::Waits).then(|| s.mood.clone()));
    match mood {
        Mood::Well | Mood::Waits => {}
        Mood::Says(status, body) => return x.answer(status, &[], body.as_bytes()),
        Mood::HangsUp => return x.close(),
    }
    let found = match target.as_str() {
        "/.well-known/oauth-authorization-server" => state.look(|s| s.metadata.to_string()),
        "/keys" => state.look(|s| json!({ "keys": s.keys }).to_string()),
        "/introspect" if x.header("authorization") == Some(expected()) => {
            let form = String::from_utf8(body).unwrap();
            let token = form.strip_prefix("token=").and_then(|rest| rest.split('&').next());
            let token = token.unwrap_or_default().to_owned();
            state
                .look(|s| s.tokens.get(&token).cloned())
                .unwrap_or(json!({ "active": false }))
                .to_string()
        }
        "/introspect" => return x.answer("401 Unauthorized", &[], b"{}"),
        _ => return x.answer("404 Not Found", &[], b"{}"),
    };
    x.json(&found);
}

/// RFC 6749 §2.3.1: both halves as in a form, then as in RFC 7617.
fn expected() -> String {
    format!("Basic {}", BASE64_STANDARD.encode("edge+app:s%3A3cr%2Bet%2F%C3%A4"))
}
