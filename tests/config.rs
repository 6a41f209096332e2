//! The config, through `check` of the real binary: in, files; out, what it prints and its exit code.
//!
//! `tests/config/invalid/X.yaml` must be refused with exactly `X.expected` on stderr, and
//! `tests/config/valid/X.yaml` be taken, with every line of `X.expected` on stdout, in this order.
//! `BLESS=1 cargo test --test config` writes the invalid ones anew: read the difference.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, SerialNumber, date_time_ymd,
};
use tempfile::TempDir;

const SECRET: &str = "hunter2";

#[test]
fn invalid_files_are_refused_with_every_mistake() {
    let stage = Stage::new();
    let files = stage.copy("tests/config/invalid");
    assert!(files.len() >= 30, "only {} files", files.len());
    let mut wrong = Vec::new();
    for file in &files {
        let out = stage.check(file);
        let stderr = text(&out.stderr);
        let golden = Path::new("tests/config/invalid").join(file).with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &stderr).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert!(
            !stderr.contains(SECRET) && !stderr.contains(API_KEY),
            "{file} shows a secret: {stderr}"
        );
        assert_eq!(text(&out.stdout), "", "{file}");
        if out.status.code() != Some(2) || expected.is_empty() || expected != stderr {
            wrong.push(format!("{file}: {}\n{stderr}--- expected\n{expected}", out.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_golden_file_has_its_config() {
    for folder in ["tests/config/valid", "tests/config/invalid", "tests/config/warned"] {
        let golden = with_extension(Path::new(folder), "expected");
        let configs = with_extension(Path::new(folder), "yaml");
        assert_eq!(stems(&golden), stems(&configs), "{folder}");
    }
}

#[test]
fn valid_files_are_taken() {
    let stage = Stage::new();
    let files = stage.copy("tests/config/valid");
    assert!(files.len() >= 3, "only {} files", files.len());
    for file in &files {
        let stdout = stage.accepted(file);
        let golden = Path::new("tests/config/valid").join(file).with_extension("expected");
        let mut lines = stdout.lines();
        for expected in fs::read_to_string(golden).unwrap().lines() {
            let found = lines.any(|line| line == expected);
            assert!(found, "{file}: no further line `{expected}` in\n{stdout}");
        }
        let secrets = [SECRET, KEY, API_KEY, SHA];
        assert!(!secrets.iter().any(|s| stdout.contains(s)), "{file} shows a secret");
    }
}

#[test]
fn shipped_configs_are_taken() {
    let stage = Stage::new();
    let mut files = stage.copy("conf");
    files.extend(stage.copy("conf/examples"));
    assert!(files.len() >= 4, "only {} files", files.len());
    assert!(files.iter().any(|file| file == "mcp-edge.yaml"));
    for file in &files {
        let stdout = stage.accepted(file);
        assert!(stdout.contains("public_url: "), "{file}: {stdout}");
    }
}

/// What the shipped config says is the default: without it, the same would run.
#[test]
fn the_shipped_config_holds_the_defaults() {
    let stage = Stage::new();
    stage.copy("conf");
    let shortest = "listeners: [ { address: '127.0.0.1:8080' } ]\n\
         upstreams: [ { name: default, servers: [ 'http://127.0.0.1:8000' ] } ]\n\
         routes: [ { upstream: default, auth: [ anonymous ] } ]\n";
    fs::write(stage.file("shortest.yaml"), shortest).unwrap();
    let load = |file: &str| {
        let env = |_: &str| None;
        let path = stage.file(file);
        let mut settings =
            mcp_edge::config::load(&path, &env, mcp_edge::config::Mode::Check).unwrap();
        // keys that `check` makes up differ each time
        settings.session_keys =
            mcp_edge::balance::session::SessionKeys::from_texts(&[KEY.to_owned()]).unwrap();
        // sums of how it is written, by which a reload knows what has changed
        settings.fixed.clear();
        format!("{settings:#?}")
    };
    assert_eq!(load("mcp-edge.yaml"), load("shortest.yaml"));
}

/// The `#key:` lines of the shipped config are part of its documentation: they must be true, too.
#[test]
fn the_shipped_config_with_every_key_is_taken() {
    let stage = Stage::new();
    let mut text = String::new();
    for line in fs::read_to_string("conf/mcp-edge.yaml").unwrap().lines() {
        let bare = line.trim_start();
        let key = bare.strip_prefix("# ").map(|rest| rest.trim_start());
        let is_key = key.is_some_and(|key| {
            key.split_once(':').is_some_and(|(word, _)| {
                let word = word.strip_prefix("- ").unwrap_or(word);
                !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
            })
        });
        let prose = ["body", "session", "durations"];
        if is_key && !prose.iter().any(|p| bare.to_lowercase().starts_with(&format!("# {p}:"))) {
            text.push_str(&line.replacen("# ", "", 1));
        } else {
            text.push_str(line);
        }
        text.push('\n');
    }
    // what redirects is another listener than what serves
    let second = ["- address: 127.0.0.1:8081", "  redirect: https", "  redirect_port: 443"]
        .map(|line| format!("  {line}\n"))
        .concat();
    let text = text
        .replace("- host: mcp.example.com\n  - path:", "- host: mcp.example.com\n    path:")
        .replace("plaintext: false", "")
        .replace("    redirect: https\n    redirect_port: 443\n", &second)
        .replace("/var/www/html", ".")
        .replace("http://127.0.0.1:8000", "https://127.0.0.1:8000")
        .replace(" c.pem", " fullchain.pem")
        .replace(" k.pem", " privkey.pem")
        .replace("/run/secrets/", "")
        .replace("/var/lib/mcp-edge", "nowhere");
    fs::write(stage.file("all.yaml"), &text).unwrap();
    let stdout = stage.accepted("all.yaml");
    for part in ["state_dir: nowhere", "https://mcp.example.com/", "fullchain.pem", "/healthz"] {
        assert!(stdout.contains(part), "no {part} in\n{stdout}\nof\n{text}");
    }
}

/// What the README shows of configs is taken: each example, filled up to a whole config.
#[test]
fn the_examples_of_the_readme_are_taken() {
    let stage = Stage::new();
    let (examples, _) = readme();
    assert!(examples.len() >= 11, "only {}", examples.len());
    for example in &examples {
        let mut text = example.clone();
        for (shown, there) in README_FILES {
            text = text.replace(shown, there);
        }
        let part: Map = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{e}:\n{example}"));
        let config = serde_yaml::to_string(&whole(part)).unwrap();
        let problems = stage.problems(&config);
        assert!(problems.is_empty(), "{}\nin\n{config}\nof\n{example}", problems.join("\n"));
    }
}

/// So is what stands in its text, such as `affinity: none`, in one place of a config at least.
#[test]
fn the_keys_in_the_text_of_the_readme_are_taken() {
    let stage = Stage::new();
    let (_, text) = readme();
    let is_key = |code: &&str| {
        code.split_once(": ").is_some_and(|(key, _)| {
            !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_')
        })
    };
    let keys: Vec<&str> = text.split('`').skip(1).step_by(2).filter(is_key).collect();
    assert!(keys.len() >= 12 && keys.iter().any(|key| key.starts_with("identity:")), "{keys:?}");
    for key in keys.iter().filter(|key| !README_OTHERS.contains(key)) {
        let problems = README_PLACES.map(|place| stage.problems(&place.replace('%', key)));
        assert!(problems.iter().any(Vec::is_empty), "`{key}` fits nowhere: {problems:#?}");
    }
}

/// What is no error, and hardly what is meant, is said with its place.
#[test]
fn what_is_hardly_meant_is_warned_of() {
    let stage = Stage::new();
    for file in stage.copy("tests/config/warned") {
        let out = stage.check(&file);
        let stderr = text(&out.stderr);
        let golden = Path::new("tests/config/warned").join(&file).with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&golden, &stderr).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert!(!expected.is_empty() && !stderr.contains(SECRET), "{file}: {stderr}");
        assert_eq!((out.status.code(), stderr), (Some(0), expected), "{file}");
        assert!(text(&out.stdout).contains("routes:"), "{file}");
    }
}

#[test]
fn check_changes_nothing_and_refuses_a_readable_key() {
    let stage = Stage::new();
    let minimal = "state_dir: kept\nlisteners: [ { address: '127.0.0.1:0' } ]\n\
         routes: [ { upstream: 'http://127.0.0.1:8000', auth: [ anonymous ] } ]\n";
    fs::write(stage.file("c.yaml"), minimal).unwrap();
    let stdout = stage.accepted("c.yaml");
    assert!(stdout.contains("generated into kept/session-key by the first run"), "{stdout}");
    assert!(!stage.file("kept").exists());

    fs::create_dir(stage.file("kept")).unwrap();
    fs::write(stage.file("kept/session-key"), KEY).unwrap();
    fs::set_permissions(stage.file("kept/session-key"), fs::Permissions::from_mode(0o644)).unwrap();
    let out = stage.check("c.yaml");
    assert_eq!(out.status.code(), Some(2));
    assert_eq!(
        text(&out.stderr),
        "c.yaml: sessions.keys: `kept/session-key` can be read by others (mode 0644): set it to 0600\n"
    );

    fs::set_permissions(stage.file("kept/session-key"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(stage.accepted("c.yaml").contains("(kept/session-key)"));
}

#[test]
fn a_missing_file_and_bad_flags_are_usage_errors() {
    let stage = Stage::new();
    let out = stage.check("gone.yaml");
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).starts_with("gone.yaml: cannot read `gone.yaml`: "));
    let bad: &[(&[&str], &str)] = &[
        (&["run"], "--config"),
        (&["run", "--config", "c.yaml", "--to", "http://h"], "cannot be used with"),
        (&["run", "--config", "c.yaml", "--anonymous"], "cannot be used with"),
        (&["run", "--to", "http://h:1/mcp"], "--to: `http://h:1/mcp` has more than an origin"),
        (&["run", "--to", "h:1"], "--to: `h:1` must start with http://"),
        (&["run", "--to", "http://h", "--listen", "0.0.0.0:0"], "--anonymous"),
        (&["run", "--to", "http://h", "--listen", "0.0.0.0:0", "--anonymous"], "--plaintext"),
        (
            &["run", "--to", "http://h", "--admin", "0.0.0.0:9900"],
            "--admin: `0.0.0.0:9900` is not a loopback address",
        ),
        (&["run", "--to", "http://h", "--to", "http://h:80"], "--to: the server `h` stands twice"),
        (&["run", "--to", "http://${env:HOME}"], "`${env:HOME}` has no good port"),
        (&["check"], "--config"),
        (&["walk"], "unrecognized subcommand"),
    ];
    for (args, part) in bad {
        let out = stage.run(args);
        let stderr = text(&out.stderr);
        assert_eq!(out.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(part), "{args:?}: {stderr}");
    }
}

type Map = serde_yaml::Mapping;

/// What the README names, and what is there in its place; `…` is for the reader to fill in.
const README_FILES: [(&str, &str); 8] = [
    ("/etc/nginx/.htpasswd", ".htpasswd"),
    ("/run/secrets/", ""),
    ("/var/lib/mcp-edge", "nowhere"),
    ("/var/log/mcp-edge/", ""),
    ("balancers.txt", "networks.txt"),
    ("offices.txt", "networks.txt"),
    ("api_key: { … }", "api_key: { header: X-Team-Key, keys: [ { name: team, sha256: \"…\" } ] }"),
    ("\"…\"", "\"0000000000000000000000000000000000000000000000000000000000000000\""),
];

/// Where something that stands in its text may be at home.
const README_PLACES: [&str; 7] = [
    "listeners: [ { address: '127.0.0.1:0' } ]\nroutes: [ { upstream: 'http://127.0.0.1:1', auth: [ anonymous ] } ]\n%\n",
    "listeners: [ { address: '127.0.0.1:0' }, { address: '0.0.0.0:80', % } ]\n\
     routes: [ { host: a.example, upstream: 'http://127.0.0.1:1', auth: [ anonymous ] } ]\n",
    "listeners: [ { address: '127.0.0.1:0' } ]\n\
     upstreams: [ { name: one, servers: [ 'http://127.0.0.1:1', 'http://127.0.0.1:2' ], % } ]\n\
     routes: [ { upstream: one, auth: [ anonymous ] } ]\n",
    "listeners: [ { address: '127.0.0.1:8081' } ]\naccess_log: off\naudit: { to: stdout }\n\
     traces: { endpoint: 'http://127.0.0.1:4318' }\n\
     routes: [ { upstream: 'http://127.0.0.1:1', %, auth: [ { oauth: { resource: 'https://a.example/', \
     issuers: [ { issuer: 'https://b.example' } ] } } ] } ]\n",
    "listeners: [ { address: '127.0.0.1:0' } ]\n\
     routes: [ { upstream: 'http://127.0.0.1:1', auth: [ { oauth: { resource: 'https://a.example/', \
     issuers: [ { issuer: 'https://b.example', audiences: [ a ], % } ] } } ] } ]\n",
    "listeners: [ { address: '127.0.0.1:0' } ]\naccess_log: off\naudit: { to: stdout, % }\n\
     routes: [ { upstream: 'http://127.0.0.1:1', auth: [ anonymous ] } ]\n",
    "listeners: [ { address: '127.0.0.1:0' } ]\ntraces: { endpoint: 'http://127.0.0.1:4318', % }\n\
     routes: [ { upstream: 'http://127.0.0.1:1', auth: [ anonymous ] } ]\n",
];

/// What looks like a key of the config, and is another's: of the access log, of Prometheus.
const README_OTHERS: [&str; 2] = ["event: request", "job_name: mcp-edge"];

/// The README's examples of configs, and its text without any code that stands apart.
fn readme() -> (Vec<String>, String) {
    let (mut examples, mut text) = (Vec::new(), String::new());
    let mut example: Option<(bool, String)> = None;
    for line in fs::read_to_string("README.md").unwrap().lines() {
        match (&mut example, line.trim_start().strip_prefix("```")) {
            (None, Some(kind)) => example = Some((kind == "yaml", String::new())),
            (Some((is_yaml, lines)), Some(_)) => {
                if *is_yaml {
                    examples.push(lines.clone());
                }
                example = None;
            }
            (Some((_, lines)), None) => *lines += &format!("{line}\n"),
            (None, None) if line.starts_with("    ") => {}
            (None, None) => text += &format!("{line}\n"),
        }
    }
    (examples, text)
}

fn yaml<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_yaml::from_str(text).unwrap()
}

fn items<'m>(map: &'m mut Map, key: &str) -> impl Iterator<Item = &'m mut Map> {
    let list = map.get_mut(key).unwrap().as_sequence_mut().unwrap();
    list.iter_mut().map(|item| item.as_mapping_mut().unwrap())
}

/// A part of a config with what it leaves to others; keys that are not of the top are a route's.
fn whole(part: Map) -> Map {
    let top = "[ listeners, upstreams, routes, admin, audit, traces, shutdown, trusted_proxies ]";
    let top: Vec<String> = yaml(top);
    let mut config = match top.iter().any(|key| part.contains_key(key.as_str())) {
        true => part,
        false => Map::from_iter([("routes".into(), vec![serde_yaml::Value::from(part)].into())]),
    };
    let mut missing = |key: &str, text: &str| {
        config.entry(key.into()).or_insert_with(|| yaml(text));
    };
    missing("listeners", "[ { address: '0.0.0.0:443' } ]");
    missing("routes", "[ {} ]");
    missing("upstreams", "[ { name: aws-pricing, servers: [ 'http://127.0.0.1:8000' ] } ]");
    for listener in items(&mut config, "listeners") {
        if !listener.contains_key("redirect") {
            let tls = "{ certificates: [ { cert: fullchain.pem, key: privkey.pem } ], \
                       client_certificates: { ca: ca.pem, required: false } }";
            listener.entry("tls".into()).or_insert_with(|| yaml(tls));
        }
    }
    let auth = "[ { oauth: { resource: 'https://mcp.example.com/', issuers: [ { issuer: 'https://b.example' } ] } } ]";
    for route in items(&mut config, "routes") {
        for (key, text) in
            [("upstream", "http://127.0.0.1:8000"), ("host", "mcp.example.com"), ("auth", auth)]
        {
            route.entry(key.into()).or_insert_with(|| yaml(text));
        }
    }
    config
}

/// At least 32 bytes, and nowhere to be printed.
const KEY: &str = "a key of the tests, long enough for every rule";

/// As `mcp-edge key new` made it.
const API_KEY: &str = "mcpk_auiCNaxPi6whJCWfyngk3NTK0krD5A1zzFqWLBmCLd3hW2";
/// A line of an htpasswd file.
const SHA: &str = "{SHA}NMfTLf4kql4x98PMVl16orqGin0=";

/// A folder with certificates and keys, in which the binary runs.
struct Stage {
    dir: TempDir,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().unwrap() };
        let key = KeyPair::generate().unwrap();
        let other = KeyPair::generate().unwrap();
        let pem = |from: i32, to: i32| {
            let names = ["MCP.example.com", "*.mcp.example.com"].map(str::to_owned);
            let mut params = CertificateParams::new(names).unwrap();
            params.not_before = date_time_ymd(from, 1, 2);
            params.not_after = date_time_ymd(to, 1, 2);
            params.self_signed(&key).unwrap().pem()
        };
        let ca = |to: i32| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.not_after = date_time_ymd(to, 1, 2);
            params
        };
        let other_ca = {
            let mut params = ca(2045);
            params.distinguished_name.push(DnType::CommonName, "other, CA");
            params.self_signed(&other).unwrap().pem()
        };
        let crl = |to: i32| {
            let list = CertificateRevocationListParams {
                this_update: date_time_ymd(2020, 1, 2),
                next_update: date_time_ymd(to, 1, 2),
                crl_number: SerialNumber::from(1),
                issuing_distribution_point: None,
                revoked_certs: Vec::new(),
                key_identifier_method: KeyIdMethod::Sha256,
            };
            list.signed_by(&Issuer::new(ca(2045), &key)).unwrap().pem().unwrap()
        };
        let files = [
            ("ca.pem", ca(2045).self_signed(&key).unwrap().pem()),
            ("two-cas.pem", ca(2045).self_signed(&key).unwrap().pem() + &other_ca),
            ("expired-ca.pem", ca(2021).self_signed(&key).unwrap().pem()),
            ("crl.pem", crl(2045)),
            ("old-crl.pem", crl(2021)),
            ("fullchain.pem", pem(2020, 2045)),
            ("expired.pem", pem(2020, 2021)),
            ("future.pem", pem(2044, 2045)),
            (
                "nameless.pem",
                CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap().pem(),
            ),
            ("privkey.pem", key.serialize_pem()),
            ("other-key.pem", other.serialize_pem()),
            (
                "garbage.pem",
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            ),
            ("session-key", format!("{KEY}, from a file\n")),
            ("upstream-token", "a-token\n".into()),
            (".htpasswd", format!("ann:{SHA}\n")),
            ("htpasswd-plain", format!("ann:{SHA}\n\nbob:{SECRET}\neve\n")),
            ("htpasswd-des", "ann:u40Fvup4dyM8.\n".into()),
            ("htpasswd-twice", format!("ann:{SHA}\n# one more\nann:{SHA}\n")),
            ("networks.txt", "# ours\n10.0.0.0/8\n2001:db8::1\n".into()),
        ];
        for (name, content) in files {
            fs::write(stage.file(name), content).unwrap();
        }
        stage
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Copies a folder's configs here; gives their names.
    fn copy(&self, folder: &str) -> Vec<String> {
        let mut names = Vec::new();
        for path in with_extension(Path::new(folder), "yaml") {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            fs::copy(&path, self.file(&name)).unwrap();
            names.push(name);
        }
        names
    }

    /// What is wrong with a config in this folder, or hardly meant.
    fn problems(&self, config: &str) -> Vec<String> {
        let mode = mcp_edge::config::Mode::Check;
        let loaded = mcp_edge::config::load_text(config, self.dir.path(), &|_| None, mode);
        let problems = loaded.map_or_else(|errors| errors, |settings| settings.warnings);
        problems.iter().map(ToString::to_string).collect()
    }

    fn check(&self, file: &str) -> Output {
        self.run(&["check", "--config", file])
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mcp-edge"))
            .args(args)
            .current_dir(self.dir.path())
            .env_remove("TEST_IS_NOT_SET")
            .env("XDG_STATE_HOME", self.file("state-home"))
            .env("TEST_SESSION_KEY", KEY)
            .env("TEST_SHORT_KEY", SECRET)
            .env("TEST_KEY", API_KEY)
            .env("TEST_DAMAGED_KEY", format!("{API_KEY}x"))
            .env("TEST_BLANKS", " a b ")
            .env("TEST_THREADS", "2")
            .env("TEST_PORT", "8088")
            .output()
            .unwrap()
    }

    fn accepted(&self, file: &str) -> String {
        let out = self.check(file);
        assert_eq!(text(&out.stderr), "", "{file}");
        assert_eq!(out.status.code(), Some(0), "{file}");
        assert!(!self.file("state-home").exists(), "{file}: check wrote something");
        text(&out.stdout)
    }
}

fn with_extension(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn stems(files: &[PathBuf]) -> Vec<String> {
    files.iter().map(|f| f.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// Whatever is done to a good config, it is read or refused with reasons; nothing panics.
    #[test]
    fn a_mangled_config_is_read_or_refused(
        cuts in proptest::collection::vec((0usize..4000, 0usize..40, "[\\[\\]{}:,#&*!|>'\"%@`$a-c0-9\\n \\-]{0,6}"), 1..6),
    ) {
        let mut config: Vec<char> = fs::read_to_string("tests/config/valid/every-key.yaml").unwrap().chars().collect();
        for (at, length, put) in cuts {
            let at = at % config.len().max(1);
            let end = (at + length).min(config.len());
            config.splice(at.min(end)..end, put.chars());
        }
        let config: String = config.into_iter().collect();
        let env = |_: &str| Some("x".repeat(40));
        let loaded = mcp_edge::config::load_text(&config, Path::new("gone"), &env, mcp_edge::config::Mode::Check);
        if let Err(errors) = loaded {
            proptest::prop_assert!(!errors.is_empty(), "refused without a reason:\n{config}");
            let lines = config.lines().count() + 1;
            proptest::prop_assert!(errors.iter().all(|e| e.line <= lines), "{errors:?}");
        }
    }
}
