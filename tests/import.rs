//! Leaving nginx: in, `tests/import/*.conf`; out, configs and reports as they were read and found good.
//!
//! `X.conf` must give exactly `X.yaml` and `X.report`, whose last line is the exit code. `BLESS=1 cargo test
//! --test import` writes them anew: read the difference.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may stop")]

#[path = "import/choice.rs"]
#[allow(clippy::indexing_slicing, reason = "the tables are the test's own")]
mod choice;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mcp_edge::import::{self, Options};
use proptest::prelude::*;
use proptest::sample::Index;

const FOLDER: &str = "tests/import";

/// Every configuration: the files of the folder, and the one that has a folder of its own.
fn cases() -> Vec<PathBuf> {
    let all = fs::read_dir(FOLDER).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|e| e == "conf")).collect();
    cases.push(Path::new(FOLDER).join("debian/nginx.conf"));
    cases.sort();
    assert!(cases.len() >= 15, "only {} cases", cases.len());
    cases
}

#[test]
fn configs_are_carried_as_they_were_read_and_found_good() {
    let mut wrong = Vec::new();
    for case in cases() {
        let imported = import::import(&case, &Options::default()).unwrap();
        let code = if imported.refuses() { import::REFUSED } else { 0 };
        let report = format!("{}exit code {code}\n", imported.report());
        for (golden, found) in [("yaml", &imported.yaml), ("report", &report)] {
            let golden = case.with_extension(golden);
            if std::env::var_os("BLESS").is_some() {
                fs::write(&golden, found).unwrap();
            }
            if fs::read_to_string(&golden).unwrap_or_default() != *found {
                wrong.push(format!("{}:\n{found}", golden.display()));
            }
        }
        let shown = report.contains("hunter2") || imported.yaml.contains("hunter2");
        assert!(!shown, "{} shows a secret: {report}", case.display());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Where something refuses, the exit code says it, and where it does not, nothing is said to refuse.
#[test]
fn what_refuses_is_said_at_the_route_and_by_the_exit_code() {
    for case in cases() {
        let imported = import::import(&case, &Options::default()).unwrap();
        let routes = imported.yaml.contains("# refuses: ");
        assert!(!routes || imported.refuses(), "{}", case.display());
    }
    let refused =
        import::import(&Path::new(FOLDER).join("refused.conf"), &Options::default()).unwrap();
    let routes = refused.yaml.matches("- host: ").count();
    let refusing = refused.yaml.matches("deny: [ 0.0.0.0/0, \"::/0\" ]  # refuses: ").count();
    // `satisfy all` alone restricts nothing
    assert_eq!((routes, refusing), (15, 14), "{}", refused.yaml);
}

/// A folder with the configurations and every file that they name.
fn stage() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_usages =
        vec![rcgen::KeyUsagePurpose::DigitalSignature, rcgen::KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).unwrap().pem();
    let now = std::time::SystemTime::now();
    let crl = rcgen::CertificateRevocationListParams {
        this_update: (now - std::time::Duration::from_secs(3600)).into(),
        next_update: (now + std::time::Duration::from_secs(3600)).into(),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    let issuer = rcgen::Issuer::new(params, key);
    let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    file("crl.pem", &crl.signed_by(&issuer).unwrap().pem().unwrap());
    for name in ["a", "b", "all", "ca", "other-ca", "client", "fullchain"] {
        file(&format!("{name}.pem"), &certificate);
        file(&format!("{name}.key"), &issuer.key().serialize_pem());
    }
    file("privkey.pem", &issuer.key().serialize_pem());
    file("credential-30", "Bearer hunter2");
    for name in ["users", "htpasswd", ".htpasswd"] {
        file(name, "user:{SHA}nU4eI71bcnBGqeO0t9tXvY1u5oQ=\n");
    }
    dir
}

/// What is written is a config that the edge takes.
#[test]
fn what_is_written_is_a_config() {
    let dir = stage();
    for case in cases() {
        let imported = import::import(&case, &Options::default()).unwrap();
        let folders = ["/etc/letsencrypt/live/mcp.example.com/", "/etc/nginx/"];
        let mut text = imported.yaml.replace("tests/import/debian/letsencrypt/live/a.example/", "");
        for folder in folders.into_iter().chain(["tests/import/"]) {
            text = text.replace(folder, "");
        }
        // folders that only a machine with nginx has
        text = text.replace("acme_webroot: /var/www/html", "acme_webroot: .");
        text = text.replace("acme_webroot: /srv/acme", "acme_webroot: .");
        fs::write(dir.path().join("edge.yaml"), &text).unwrap();
        let out = run(dir.path(), &["check", "--config", "edge.yaml"]);
        let said = text_of(&out.stderr);
        assert_eq!(
            (out.status.code(), said.as_str()),
            (Some(0), ""),
            "{}:\n{text}",
            case.display()
        );
    }
}

/// A renewal that needs nginx is said wherever its certificate is used.
#[test]
fn a_renewal_that_needs_nginx_is_warned_of() {
    let dir = stage();
    for folder in ["live/a.example", "renewal"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for name in ["fullchain.pem", "privkey.pem"] {
        fs::copy(dir.path().join(name), dir.path().join("live/a.example").join(name)).unwrap();
    }
    let config = "listeners: [ { address: '127.0.0.1:0', tls: { certificates: [ \
        { cert: live/a.example/fullchain.pem, key: live/a.example/privkey.pem } ] } } ]\n\
        routes: [ { upstream: 'http://127.0.0.1:8000', auth: [ anonymous ] } ]\n";
    fs::write(dir.path().join("edge.yaml"), config).unwrap();
    let renewal =
        fs::read_to_string("tests/import/debian/letsencrypt/renewal/a.example.conf").unwrap();
    for (authenticator, warned) in [("nginx", true), ("webroot", false)] {
        let text = renewal.replace("= nginx", &format!("= {authenticator}"));
        fs::write(dir.path().join("renewal/a.example.conf"), text).unwrap();
        let out = run(dir.path(), &["check", "--config", "edge.yaml"]);
        let said = text_of(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{said}");
        assert_eq!(said.contains("the renewal of `a.example` needs nginx"), warned, "{said}");
    }
}

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mcp-edge")).args(args).current_dir(folder).output().unwrap()
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_command_writes_a_file_and_never_over_one() {
    let dir = tempfile::tempdir().unwrap();
    let open = "server { listen 127.0.0.1:8080; location / { proxy_pass http://127.0.0.1:8000; } }";
    fs::write(dir.path().join("nginx.conf"), open).unwrap();
    let out = run(dir.path(), &["import", "nginx", "nginx.conf", "--output", "edge.yaml"]);
    assert_eq!(
        (out.status.code(), text_of(&out.stdout).as_str()),
        (Some(0), ""),
        "{}",
        text_of(&out.stderr)
    );
    let written = fs::read_to_string(dir.path().join("edge.yaml")).unwrap();
    assert!(written.contains("upstream: 127.0.0.1-8000"), "{written}");
    let again = run(dir.path(), &["import", "nginx", "nginx.conf", "--output", "edge.yaml"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text_of(&again.stderr).contains("cannot write `edge.yaml`"),
        "{}",
        text_of(&again.stderr)
    );

    let shut = open.replace("location / {", "location / { satisfy any;");
    fs::write(dir.path().join("nginx.conf"), shut).unwrap();
    let out = run(dir.path(), &["import", "nginx", "nginx.conf"]);
    assert_eq!(out.status.code(), Some(3));
    assert!(
        text_of(&out.stdout).contains("deny: [ 0.0.0.0/0, \"::/0\" ]"),
        "{}",
        text_of(&out.stdout)
    );
    assert!(
        text_of(&out.stderr).contains("nginx.conf:1: refused: `satisfy any`"),
        "{}",
        text_of(&out.stderr)
    );
}

#[test]
fn what_cannot_be_read_ends_the_import() {
    let dir = tempfile::tempdir().unwrap();
    for (conf, problem) in [
        ("server {", "nginx.conf:1: a `}` is missing"),
        ("include gone.conf;", "nginx.conf:1: include: "),
        ("include nginx.conf;", "the file includes itself"),
        ("events {}", "there is neither `http` nor `server` in it"),
        ("http { server { listen 80; root /x; } }", "nothing in it passes requests on"),
        ("http {} http {}", "a second `http`"),
    ] {
        fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        let out = run(dir.path(), &["import", "nginx", "nginx.conf", "--output", "edge.yaml"]);
        assert_eq!(out.status.code(), Some(2), "{conf}");
        assert!(text_of(&out.stderr).contains(problem), "{conf}: {}", text_of(&out.stderr));
        assert!(!dir.path().join("edge.yaml").exists(), "{conf}");
    }
    let out = run(dir.path(), &["import", "nginx", "gone.conf"]);
    assert_eq!(out.status.code(), Some(2));
}

/// Bytes of all kinds in all places: an import says something or gives a config, and never breaks out of it.
#[test]
fn hostile_words_stay_in_their_place() {
    let mut read = 0;
    for word in [
        "\"a\\\"b\"",
        "'a\n# b'",
        "'x: y'",
        "'- z'",
        "\"${env:HOME}\"",
        "'\u{2028}listeners:'",
        "'[ {'",
    ] {
        for conf in [
            format!(
                "server {{ listen 127.0.0.1:1; location / {{ proxy_pass http://127.0.0.1:2; auth_basic {word}; auth_basic_user_file {word}; }} }}"
            ),
            format!(
                "server {{ listen 127.0.0.1:1; location / {{ proxy_pass http://127.0.0.1:2; proxy_set_header X-A {word}; add_header X-B {word}; }} }}"
            ),
            format!(
                "server {{ listen 127.0.0.1:1; server_name {word}; location {word} {{ proxy_pass http://127.0.0.1:2; }} location / {{ proxy_pass http://127.0.0.1:2; }} }}"
            ),
            format!(
                "upstream {word} {{ server 127.0.0.1:1; }} server {{ listen 127.0.0.1:1; x {word}; location / {{ proxy_pass http://{word}; }} location /x {{ proxy_pass http://127.0.0.1:2; sendfile {word}; }} }}"
            ),
        ] {
            let Ok(tree) = import::nginx::read_text(conf.as_bytes(), "n.conf") else { continue };
            let Ok(imported) = import::from_tree(&tree, &Options::default()) else { continue };
            read += 1;
            let yaml: serde_yaml::Value = serde_yaml::from_str(&imported.yaml)
                .unwrap_or_else(|e| panic!("{e}\n{}", imported.yaml));
            let keys: Vec<&str> =
                yaml.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap()).collect();
            assert_eq!(keys, ["listeners", "upstreams", "routes"], "{}", imported.yaml);
        }
    }
    assert!(read > 20, "only {read} were read");
}

/// Pieces of real configurations, thrown together.
fn scraps() -> Vec<String> {
    let mut out: Vec<String> =
        ["}", "}", "}", "{", ";", "server {", "location / {", "http {", "\u{0}", "'", "if ("]
            .map(str::to_owned)
            .to_vec();
    for case in cases() {
        out.extend(fs::read_to_string(case).unwrap().lines().map(|line| format!("{line}\n")));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn whatever_is_read_gives_a_config_or_a_sentence(picks in proptest::collection::vec(any::<Index>(), 0..120)) {
        let scraps = scraps();
        let inner: String = picks.iter().map(|pick| pick.get(&scraps).as_str()).collect();
        let whole = format!(
            "server {{ listen 127.0.0.1:1; location / {{ proxy_pass http://127.0.0.1:2; }} {inner}"
        );
        for text in [inner.clone(), whole.clone() + "}", whole] {
            let options = Options { letsencrypt: Some("/nonexistent".into()), webroot: None };
            let imported = import::nginx::read_text(text.as_bytes(), "n.conf")
                .and_then(|tree| import::from_tree(&tree, &options));
            match imported {
                Ok(imported) => {
                    let yaml: Result<serde_yaml::Value, _> = serde_yaml::from_str(&imported.yaml);
                    prop_assert!(yaml.is_ok(), "{:?}\n{}\n{text}", yaml, imported.yaml);
                }
                Err(problem) => prop_assert!(!problem.is_empty()),
            }
        }
    }
}
