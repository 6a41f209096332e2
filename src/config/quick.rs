//! `run --to …`: in, flags; out, a config text that goes the way of every config file.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::load::{self, Mode, load_text};
use super::substitute::Env;
use super::{Settings, self_signed};
use crate::base::compile::ConfigError;
use crate::base::{defaults, url};

/// The flags of `run --to`, not checked yet.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// The servers, all replicas of one.
    pub to: Vec<String>,
    /// Where to listen; default 127.0.0.1:8080.
    pub listen: Option<SocketAddr>,
    /// Whether to speak TLS with a certificate of our own.
    pub tls_self_signed: bool,
    /// Whether everybody may come in, also from elsewhere.
    pub anonymous: bool,
    /// Whether to speak plain HTTP also off loopback.
    pub plaintext: bool,
    /// Where metrics are served; nowhere where absent.
    pub admin: Option<SocketAddr>,
}

/// Settings for the flags. Keys and certificates are generated where missing, as in `run`.
///
/// # Errors
/// Every mistake, with the flag as its path.
pub fn settings(flags: &Flags, env: Env<'_>) -> Result<Settings, Vec<ConfigError>> {
    let errors = mistakes(flags);
    if !errors.is_empty() {
        return Err(errors);
    }
    let listen = flags.listen.unwrap_or(defaults::LISTEN);
    let certificate = if flags.tls_self_signed {
        let path = self_signed::certificate(&load::default_state_dir(env), listen.ip())
            .map_err(|problem| vec![error("--tls-self-signed", problem)])?;
        Some(path)
    } else {
        None
    };
    let text = config(flags, certificate.as_deref())
        .map_err(|problem| vec![error("command line", problem)])?;
    // paths in the text are relative to where the command was typed
    load_text(&text, Path::new(""), env, Mode::Run).map_err(|mut errors| {
        // lines of a text that nobody sees
        errors.iter_mut().for_each(|error| error.line = 0);
        errors
    })
}

/// What flags can do wrong, in words of flags. The loader would find most of it, in words of files.
fn mistakes(flags: &Flags) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    let mut seen = Vec::new();
    for to in &flags.to {
        match url::split(to) {
            Err(problem) => errors.push(error("--to", problem)),
            Ok((origin, "" | "/")) => {
                let authority = origin.authority();
                if seen.contains(&authority) {
                    errors.push(error("--to", format!("the server `{authority}` stands twice")));
                }
                seen.push(authority);
            }
            Ok((origin, _)) => {
                let origin = format!("{}://{}", origin.scheme(), origin.authority());
                let problem = format!(
                    "`{to}` has more than an origin: give `{origin}`; \
                     the path that clients ask for is passed on as it is"
                );
                errors.push(error("--to", problem));
            }
        }
    }
    let listen = flags.listen.unwrap_or(defaults::LISTEN);
    if !listen.ip().to_canonical().is_loopback() {
        if !flags.anonymous {
            let problem = format!(
                "`{listen}` can be reached from elsewhere and nobody is asked who they are: \
                 say `--anonymous` if that is meant"
            );
            errors.push(error("--listen", problem));
        }
        if !flags.tls_self_signed && !flags.plaintext {
            let problem = format!(
                "`{listen}` can be reached from elsewhere without TLS: \
                 add `--tls-self-signed`, or say `--plaintext` if that is meant"
            );
            errors.push(error("--listen", problem));
        }
    }
    if let Some(admin) = flags.admin
        && !admin.ip().to_canonical().is_loopback()
    {
        let problem = format!("`{admin}` is not a loopback address: there is no auth");
        errors.push(error("--admin", problem));
    }
    if flags.tls_self_signed && flags.plaintext {
        errors.push(error("--plaintext", "contradicts `--tls-self-signed`"));
    }
    errors
}

/// The config that the flags stand for.
fn config(flags: &Flags, certificate: Option<&Path>) -> Result<String, String> {
    let mut listener = json!({ "address": flags.listen.unwrap_or(defaults::LISTEN).to_string() });
    if let Some(path) = certificate {
        let path = path.to_str().ok_or("the state folder's path is not UTF-8")?;
        let pair = json!({ "cert": literal(path), "key": literal(path) });
        set(&mut listener, "tls", json!({ "certificates": [pair] }));
    }
    if flags.plaintext {
        set(&mut listener, "plaintext", Value::Bool(true));
    }
    let servers: Vec<String> = flags.to.iter().map(|to| literal(to)).collect();
    let admin = match flags.admin {
        Some(address) => json!({ "address": address.to_string() }),
        None => json!("off"),
    };
    let config = json!({
        "admin": admin,
        "listeners": [listener],
        "upstreams": [{ "name": "to", "servers": servers }],
        "routes": [{ "upstream": "to", "auth": ["anonymous"] }],
    });
    serde_yaml::to_string(&config).map_err(|e| e.to_string())
}

fn set(map: &mut Value, key: &str, value: Value) {
    if let Some(map) = map.as_object_mut() {
        map.insert(key.to_owned(), value);
    }
}

/// A text in which nothing is substituted.
fn literal(text: &str) -> String {
    text.replace("${", "$${")
}

fn error(flag: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError { line: 0, path: flag.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(to: &[&str], listen: &str) -> Flags {
        let to = to.iter().map(|&to| to.to_owned()).collect();
        Flags { to, listen: Some(listen.parse().unwrap()), ..Flags::default() }
    }

    fn problems(flags: &Flags) -> Vec<String> {
        let env = |_: &str| panic!("nothing may be looked up before the flags are right");
        let errors = settings(flags, &env).unwrap_err();
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn loopback_needs_nothing_said() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let env = move |name: &str| (name == "XDG_STATE_HOME").then(|| home.clone());
        let mut flags = flags(&["http://127.0.0.1:8000", "http://127.0.0.1:8001/"], "127.0.0.1:0");
        let settings = super::settings(&flags, &env).unwrap();
        assert_eq!(settings.upstreams[0].servers.len(), 2);
        assert_eq!(settings.routes[0].auth.methods[0].name(), "anonymous");
        assert!(settings.admin.is_none());
        assert!(settings.listeners[0].tls.is_none());
        flags.tls_self_signed = true;
        let settings = super::settings(&flags, &env).unwrap();
        assert_eq!(settings.listeners[0].tls.as_ref().unwrap().certificates.len(), 1);
        assert_eq!(settings.routes[0].public_url.scheme, "https");
    }

    #[test]
    fn elsewhere_everything_is_said() {
        let mut flags = flags(&["http://127.0.0.1:8000"], "0.0.0.0:0");
        let texts = problems(&flags);
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("--anonymous") && texts[1].contains("--plaintext"));
        flags.anonymous = true;
        assert_eq!(problems(&flags).len(), 1);
    }

    #[test]
    fn a_path_is_refused_with_the_origin() {
        let texts = problems(&flags(&["http://a:8000/mcp", "a:1"], "127.0.0.1:0"));
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("give `http://a:8000`"), "{texts:?}");
    }
}
