//! In: rules as configs write them, and callers of several kinds; out: who may do what.

use serde_json::{Value, json};

use super::*;
use crate::base::caller::Chain;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::principal::Token;
use crate::inspect::{Era, scan_strictly, strict};

/// A config's node, all of it in line 1.
fn node(value: &Value) -> Node {
    let kind = match value {
        Value::Array(all) => NodeKind::Seq(all.iter().map(node).collect()),
        Value::Object(all) => {
            NodeKind::Map(all.iter().map(|(key, value)| (key.clone(), 1, node(value))).collect())
        }
        Value::String(text) => scalar(text),
        other => scalar(&other.to_string()),
    };
    Node { line: 1, kind }
}

fn scalar(text: &str) -> NodeKind {
    NodeKind::Scalar { text: text.to_owned(), plain: true, written: None }
}

fn rules_of(route: &Value) -> Vec<Arc<dyn Rule>> {
    let (node, mut cx) = (node(route), Cx::default());
    let mut fields = cx.map(&node).unwrap();
    let rules = rules(&mut fields, None, &mut cx);
    fields.finish(&mut cx);
    assert_eq!(cx.errors, []);
    rules
}

fn post() -> crate::base::head::Head {
    let mut headers = http::HeaderMap::new();
    headers.insert("content-type", http::HeaderValue::from_static("application/json"));
    crate::base::head::Head {
        method: http::Method::POST,
        path: "/mcp".into(),
        query: None,
        authority: "a.example".into(),
        headers,
        version: crate::base::head::Version::H11,
        websocket: false,
    }
}

fn seen() -> Seen {
    let body = scan_strictly(br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    strict::head(&post(), true).unwrap().body(Some(&body)).unwrap()
}

fn call(method: &'static str, name: Option<&str>) -> Call {
    Call {
        era: Era::Legacy,
        rpc_id: None,
        rpc_method: Some(method.into()),
        name: name.map(Arc::from),
        initialize: false,
    }
}

/// `ok`, or the code of the refusal and what the log is told.
fn ask(route: &Value, who: &Principal, method: &'static str, name: Option<&str>) -> String {
    let rules = rules_of(route);
    let entered = enter(&rules, Arc::new(who.clone()));
    match entered.and_then(|entered| authorize(&rules, entered, call(method, name), seen())) {
        Ok(granted) => {
            assert_eq!(granted.principal.as_ref(), who);
            "ok".to_owned()
        }
        Err(denial) => {
            assert_eq!(denial.reason, Reason::Forbidden);
            assert!(!denial.message.contains("line"), "{}", denial.message);
            format!("{}: {}", denial.code, denial.detail)
        }
    }
}

fn tool(route: &Value, who: &Principal, name: &str) -> bool {
    ask(route, who, "tools/call", Some(name)) == "ok"
}

fn ann(claims: &Value) -> Principal {
    let token = Token {
        resource: String::new(),
        scopes: vec!["mcp:read".into()],
        claims: claims.as_object().unwrap().clone(),
        streams_until: None,
    };
    Principal { token: Some(Arc::new(token)), ..Principal::new("oauth", "https://login", "ann") }
}

#[test]
fn without_rules_everybody_may_everything() {
    let nobody = enter(&[], Arc::new(Principal::anonymous())).unwrap();
    let unread = authorize(&[], nobody, call("tools/call", None), Seen::in_part());
    assert!(unread.is_ok());
}

#[test]
fn every_condition_must_be_met() {
    let route = json!({ "require": { "groups": ["finops"], "email_verified": [true] } });
    let ask = |claims: Value| ask(&route, &ann(&claims), "ping", None);
    assert_eq!(ask(json!({ "groups": ["dev", "finops"], "email_verified": true })), "ok");
    let unmet = |name| format!("authz.require: `require` in line 1: `{name}` does not fit");
    assert_eq!(ask(json!({ "groups": ["finops"] })), unmet("email_verified"));
    assert_eq!(
        ask(json!({ "groups": ["finops"], "email_verified": false })),
        unmet("email_verified")
    );
    assert_eq!(ask(json!({ "email_verified": true, "groups": "fin" })), unmet("groups"));
    assert!(!tool(&route, &Principal::anonymous(), "any"));
    // they need no reading of bodies
    let good = Arc::new(ann(&json!({ "groups": "finops", "email_verified": "true" })));
    let (rules, tool) = (rules_of(&route), call("tools/call", None));
    let unread = authorize(&rules, enter(&rules, good).unwrap(), tool, Seen::in_part());
    assert!(unread.is_ok());
}

#[test]
fn the_first_rule_that_fits_decides() {
    let route = json!({ "tools": [
        { "deny": ["delete_*"], "when": { "subject": ["guest*"] } },
        { "allow": ["get_*", "list_?"] },
        { "deny": ["drop"] },
        { "allow": ["*"], "when": { "method": ["api_key"], "metadata.tenant": ["a", "b"] } },
    ] });
    let mut key = Principal::new("api_key", "", "ci");
    key.metadata = vec![("tenant".into(), "b".into())];
    let mut guest = Principal { subject: "guest7".into(), ..key.clone() };
    for (name, of_key, of_guest) in [
        ("get_x", true, true),
        ("list_x", true, true),
        ("list_xy", true, true),
        ("drop", false, false),
        ("delete_x", true, false),
        ("Get_x", true, true),
        ("", true, true),
    ] {
        assert_eq!(tool(&route, &key, name), of_key, "{name}");
        assert_eq!(tool(&route, &guest, name), of_guest, "{name}");
        let public = name.starts_with("get_") || name == "list_x";
        assert_eq!(tool(&route, &Principal::anonymous(), name), public, "{name}");
    }
    guest.metadata.clear();
    assert!(!tool(&route, &guest, "other") && tool(&route, &guest, "get_x"));
    assert_eq!(
        ask(&route, &key, "tools/call", Some("drop")),
        "authz.tool: the rule in line 1 denies it"
    );
    assert_eq!(
        ask(&route, &guest, "tools/call", Some("other")),
        "authz.tool: no rule of `tools` in line 1 allows it"
    );
}

#[test]
fn only_calls_of_tools_are_judged() {
    let route = json!({ "tools": [ { "deny": ["*"] } ] });
    let nobody = Principal::anonymous();
    for method in ["initialize", "tools/list", "tasks/get", "tasks/update", "prompts/get", "x/y"] {
        assert_eq!(ask(&route, &nobody, method, Some("echo")), "ok", "{method}");
    }
    assert!(!tool(&route, &nobody, "echo"));
    assert_eq!(ask(&route, &nobody, "tools/call", None), "authz.nameless: ");
}

#[test]
fn a_body_that_was_not_read_strictly_is_our_fault() {
    let rules = rules_of(&json!({ "tools": [ { "allow": ["*"] } ] }));
    let nobody = enter(&rules, Arc::new(Principal::anonymous())).unwrap();
    let got = authorize(&rules, nobody, call("ping", None), Seen::in_part()).unwrap_err();
    assert_eq!((got.reason, got.code), (Reason::Internal, "authz.unread"));
}

#[test]
fn all_rules_are_asked() {
    let mut both = rules_of(&json!({ "tools": [ { "allow": ["a", "b"] } ] }));
    both.extend(rules_of(&json!({ "tools": [ { "allow": ["b", "c"] } ] })));
    for (name, expected) in [("a", false), ("b", true), ("c", false)] {
        let nobody = enter(&both, Arc::new(Principal::anonymous())).unwrap();
        let got = authorize(&both, nobody, call("tools/call", Some(name)), seen());
        assert_eq!(got.is_ok(), expected, "{name}");
    }
}

#[test]
fn mistakes_are_reported() {
    let problems = |route: Value| {
        let (node, mut cx) = (node(&route), Cx::default());
        let mut fields = cx.map(&node).unwrap();
        let chain = Chain::default();
        rules(&mut fields, Some(&chain), &mut cx);
        fields.finish(&mut cx);
        cx.errors.into_iter().map(|e| format!("{}: {}", e.path, e.problem)).collect::<Vec<_>>()
    };
    let one = |rules: Value| {
        let found = problems(json!({ "tools": rules }));
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    let behind = "tools[1]: this is never asked: all of it is decided before, in line 1";
    for last in [
        json!({ "allow": ["get_x"] }),
        json!({ "deny": ["get_*"], "when": { "subject": ["a"] } }),
        json!({ "deny": ["get_a*", "get_?"] }),
    ] {
        assert_eq!(one(json!([{ "allow": ["get_*"] }, last])), behind);
        assert_eq!(one(json!([{ "allow": ["x", "*"] }, last])), behind);
    }
    let when = json!({ "subject": ["a"] });
    let same = json!([{ "allow": ["get_*"], "when": when }, { "deny": ["get_x"], "when": when }]);
    assert_eq!(one(same), behind);
    for good in [
        json!([{ "allow": ["get_*"] }, { "deny": ["get_x", "y"] }]),
        json!([{ "allow": ["get_*"], "when": when }, { "deny": ["get_x"] }]),
        json!([{ "deny": ["get_?"] }, { "allow": ["get_*"] }]),
        json!([{ "allow": ["get_*"] }, { "deny": ["*"] }]),
        json!([{ "deny": ["*"] }]),
    ] {
        assert_eq!(problems(json!({ "tools": good })), Vec::<String>::new(), "{good}");
    }
}
