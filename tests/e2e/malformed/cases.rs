//! The table. In: what is sent; out: what has to come back, and which rule says so.

pub(super) const HOST: &str = "mcp.example.com";

/// What happens to the connection after the answer.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum After {
    /// Framing is lost: nothing that follows could be trusted.
    Closes,
    /// The request was framed well and refused for its meaning: the next one is served.
    Stays,
    /// Either is right.
    Any,
}
use After::{Any, Closes, Stays};

pub(super) struct Case {
    pub(super) name: &'static str,
    /// Where the rule comes from.
    pub(super) rule: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Statuses that fulfil the rule; empty: the connection ends without an answer.
    pub(super) status: &'static [u16],
    pub(super) after: After,
}

fn case(
    name: &'static str,
    rule: &'static str,
    bytes: impl Into<Vec<u8>>,
    status: &'static [u16],
    after: After,
) -> Case {
    Case { name, rule, bytes: bytes.into(), status, after }
}

/// A request line and header lines around one `Host` that is right.
fn with(request_line: &str, lines: &str) -> String {
    format!("{request_line}\r\nHost: {HOST}\r\n{lines}\r\n")
}

fn target(target: &str) -> String {
    with(&format!("GET {target} HTTP/1.1"), "")
}

fn chunked(body: &str) -> String {
    with("POST / HTTP/1.1", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n")
        + body
}

fn json(lines: &str, body: &str) -> String {
    with("POST / HTTP/1.1", &format!("Content-Type: application/json\r\n{lines}")) + body
}

/// Line ends and the request line.
#[rustfmt::skip]
pub(super) fn lines() -> Vec<Case> {
    let line = "RFC 9112 §2.2";
    let first = "RFC 9112 §3";
    vec![
        case("bare LF line ends", line, format!("GET / HTTP/1.1\nHost: {HOST}\n\n"), &[400], Closes),
        case("bare LF after a field", line, format!("GET / HTTP/1.1\r\nHost: {HOST}\nA: b\r\n\r\n"), &[400], Closes),
        case("bare LF ends the head", line, format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\n"), &[400], Closes),
        case("bare CR in a field", line, with("GET / HTTP/1.1", "A: b\rX: y\r\n"), &[400], Closes),
        case("bare CR in the request line", line, format!("GET /\rX HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), &[400], Closes),
        case("space before the first field", line, format!("GET / HTTP/1.1\r\n Host: {HOST}\r\n\r\n"), &[400], Closes),
        case("two spaces after the method", first, with("GET  / HTTP/1.1", ""), &[400], Closes),
        case("two spaces before the version", first, with("GET /  HTTP/1.1", ""), &[400], Closes),
        case("tab as separator", first, with("GET\t/ HTTP/1.1", ""), &[400], Closes),
        case("space at the start", first, with(" GET / HTTP/1.1", ""), &[400], Closes),
        case("space in the target", first, with("GET /a b HTTP/1.1", ""), &[400], Closes),
        case("space at the end of the request line", first, with("GET / HTTP/1.1 ", ""), &[400], Closes),
        case("no version", "RFC 9112 §3, HTTP/0.9 is not HTTP/1", "GET /\r\n\r\n", &[400], Closes),
        case("no version, with fields", first, with("GET /", ""), &[400], Closes),
        case("no target", first, with("GET HTTP/1.1", ""), &[400], Closes),
        case("method is not a token", "RFC 9110 §9.1", with("GE(T / HTTP/1.1", ""), &[400], Closes),
        case("empty method", "RFC 9110 §9.1", format!("\u{20}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), &[400], Closes),
        case("HTTP/1.2", "RFC 9110 §15.6.6; the SDKs send 1.1", with("GET / HTTP/1.2", ""), &[505], Closes),
        case("HTTP/2.0 on a request line", "RFC 9110 §15.6.6", with("GET / HTTP/2.0", ""), &[505], Closes),
        case("HTTP/3.7", "RFC 9110 §15.6.6", with("GET / HTTP/3.7", ""), &[505], Closes),
        case("lower-case http", "RFC 9112 §2.3", with("GET / http/1.1", ""), &[400], Closes),
        case("version with two digits", "RFC 9112 §2.3", with("GET / HTTP/1.10", ""), &[400], Closes),
        case("not HTTP at all", first, "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", &[400], Closes),
        case("TRACE", "RFC 9110 §9.3.8: would mirror credentials", with("TRACE / HTTP/1.1", ""), &[405], Any),
        case("CONNECT", "RFC 9110 §9.3.6: not a tunnel", with("CONNECT mcp.example.com:443 HTTP/1.1", ""), &[405], Any),
    ]
}

/// Field lines.
#[rustfmt::skip]
pub(super) fn fields() -> Vec<Case> {
    let name = "RFC 9112 §5.1";
    let value = "RFC 9110 §5.5";
    let many: String = (0..101).map(|i| format!("x-{i}: 1\r\n")).collect();
    let wide: String = (0..40).map(|i| format!("x-{i}: {}\r\n", "v".repeat(1000))).collect();
    vec![
        case("obs-fold", "RFC 9112 §5.2", with("GET / HTTP/1.1", "A: b\r\n c\r\n"), &[400], Closes),
        case("obs-fold with tab", "RFC 9112 §5.2", with("GET / HTTP/1.1", "A: b\r\n\tc\r\n"), &[400], Closes),
        case("space before the colon", name, with("GET / HTTP/1.1", "A : b\r\n"), &[400], Closes),
        case("space in a name", name, with("GET / HTTP/1.1", "A b: c\r\n"), &[400], Closes),
        case("a name that is no token", name, with("GET / HTTP/1.1", "A(b: c\r\n"), &[400], Closes),
        case("8-bit name", name, with("GET / HTTP/1.1", "Ä: c\r\n"), &[400], Closes),
        case("empty name", name, with("GET / HTTP/1.1", ": c\r\n"), &[400], Closes),
        case("no colon", name, with("GET / HTTP/1.1", "nonsense\r\n"), &[400], Closes),
        case("NUL in a value", value, with("GET / HTTP/1.1", "A: b\0c\r\n"), &[400], Closes),
        case("NUL in a name", value, with("GET / HTTP/1.1", "A\0: c\r\n"), &[400], Closes),
        case("control character in a value", value, with("GET / HTTP/1.1", "A: b\x01c\r\n"), &[400], Closes),
        case("DEL in a value", value, with("GET / HTTP/1.1", "A: b\x7fc\r\n"), &[400], Closes),
        case("one field of 17 KiB", "RFC 6585 §5", with("GET / HTTP/1.1", &format!("A: {}\r\n", "a".repeat(17 << 10))), &[431], Closes),
        case("a head of 40 KiB", "RFC 6585 §5", with("GET / HTTP/1.1", &wide), &[431], Closes),
        case("a head without an end", "RFC 6585 §5", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nA: {}", "a".repeat(70_000)), &[431], Closes),
        case("101 fields besides Host", "RFC 6585 §5", with("GET / HTTP/1.1", &many), &[431], Closes),
        case("unknown Expect", "RFC 9110 §10.1.1", json("Expect: 200-ok\r\nContent-Length: 2\r\n", "{}"), &[417], Any),
        case("gzip on a JSON body", "RFC 9110 §15.5.16; some backends would inflate it unseen", json("Content-Encoding: gzip\r\nContent-Length: 2\r\n", "{}"), &[415], Any),
        case("UTF-16 JSON", "RFC 8259 §8.1", with("POST / HTTP/1.1", "Content-Type: application/json; charset=utf-16le\r\nContent-Length: 4\r\n") + "{\0}\0", &[415], Any),
    ]
}

/// `Host` and the target's form.
#[rustfmt::skip]
pub(super) fn hosts() -> Vec<Case> {
    let host = "RFC 9112 §3.2";
    let only = |value: &str| format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
    vec![
        case("no Host", host, "GET / HTTP/1.1\r\nA: b\r\n\r\n", &[400], Any),
        case("two Hosts", host, with("GET / HTTP/1.1", "Host: other\r\n"), &[400], Any),
        case("two equal Hosts", host, with("GET / HTTP/1.1", "Host: mcp.example.com\r\n"), &[400], Any),
        case("two Hosts in one line", host, only("mcp.example.com, other"), &[400], Any),
        case("empty Host", "RFC 9112 §3.2: no authority that we serve", only(""), &[400], Any),
        case("Host with a path", host, only("mcp.example.com/a"), &[400], Any),
        case("Host with userinfo", "RFC 9110 §4.2.4", only("me@mcp.example.com"), &[400], Any),
        case("Host with a scheme", host, only("http://mcp.example.com"), &[400], Any),
        case("Host with a bad port", "RFC 3986 §3.2.3", only("mcp.example.com:80a"), &[400], Any),
        case("Host with a port out of range", "RFC 3986 §3.2.3", only("mcp.example.com:99999"), &[400], Any),
        case("Host with a space", host, only("mcp.example.com x"), &[400], Any),
        case("Host with an open bracket", "RFC 3986 §3.2.2", only("[::1"), &[400], Any),
        case("Host with a backslash", "RFC 3986 §3.2.2", only("mcp.example.com\\x"), &[400], Any),
        case("8-bit Host", "RFC 3986 §3.2.2", only("mcp.exämple.com"), &[400], Any),
        case("unknown Host", "RFC 9110 §15.5.20", only("evil.example.net"), &[421], Stays),
        case("a name below a known one", "RFC 9110 §15.5.20", only("x.mcp.example.com"), &[421], Stays),
        case("a known name as prefix", "RFC 9110 §15.5.20", only("mcp.example.com.evil.net"), &[421], Stays),
        case("absolute form, other host", "RFC 9112 §3.2.2: the target wins, and differs", with("GET http://other.example.com/ HTTP/1.1", ""), &[400, 421], Any),
        case("absolute form, no host", "RFC 9110 §4.2.1", with("GET http:///a HTTP/1.1", ""), &[400], Any),
        case("absolute form with userinfo", "RFC 9110 §4.2.4", with("GET http://me@mcp.example.com/ HTTP/1.1", ""), &[400], Any),
        case("absolute form, other scheme", "RFC 9112 §3.2.2", with("GET ftp://mcp.example.com/ HTTP/1.1", ""), &[400], Any),
        case("asterisk form", "RFC 9112 §3.2.4: no route is meant", with("OPTIONS * HTTP/1.1", ""), &[400], Any),
        case("asterisk form with GET", "RFC 9112 §3.2.4", with("GET * HTTP/1.1", ""), &[400], Any),
        case("authority form with GET", "RFC 9112 §3.2.3", with("GET mcp.example.com:443 HTTP/1.1", ""), &[400], Any),
        case("relative target", "RFC 9112 §3.2.1", target("a/b"), &[400], Any),
    ]
}

/// Targets that another parser could read differently. Issue: refused before routing.
#[rustfmt::skip]
pub(super) fn targets() -> Vec<Case> {
    let syntax = "RFC 3986 §3.3";
    let same = "two spellings of one path must not meet two policies";
    vec![
        case("URI of 9 KiB", "RFC 9110 §15.5.15", target(&format!("/{}", "a".repeat(9 << 10))), &[414], Closes),
        case("query of 9 KiB", "RFC 9110 §15.5.15", target(&format!("/?{}", "a".repeat(9 << 10))), &[414], Closes),
        case("URI of 100 KiB", "RFC 9110 §15.5.15", target(&format!("/{}", "a".repeat(100 << 10))), &[414], Closes),
        case("fragment", "RFC 9112 §3.2", target("/a#b"), &[400], Any),
        case("8-bit target", syntax, target("/ä"), &[400], Any),
        case("8-bit query", syntax, target("/?ä"), &[400], Any),
        case("NUL in the target", syntax, target("/a\0b"), &[400], Closes),
        case("control character in the target", syntax, target("/a\x01b"), &[400], Closes),
        case("DEL in the target", syntax, target("/a\x7fb"), &[400], Any),
        case("%00", same, target("/a%00b"), &[400], Any),
        case("%2f", same, target("/a%2fb"), &[400], Any),
        case("%2F", same, target("/a%2Fb"), &[400], Any),
        case("%5c", same, target("/a%5cb"), &[400], Any),
        case("backslash", same, target("/a\\b"), &[400], Any),
        case("//", same, target("//a"), &[400], Any),
        case("// inside", same, target("/a//b"), &[400], Any),
        case("// at the end", same, target("/a//"), &[400], Any),
        case("/a/../b", same, target("/a/../b"), &[400], Any),
        case("/..", same, target("/.."), &[400], Any),
        case("/./", same, target("/./"), &[400], Any),
        case("/a/.", same, target("/a/."), &[400], Any),
        case("%2e%2e", same, target("/a/%2e%2e/b"), &[400], Any),
        case("%2E.", same, target("/a/%2E./b"), &[400], Any),
        case(".%2e at the end", same, target("/a/.%2e"), &[400], Any),
        case("%2e", same, target("/%2e/a"), &[400], Any),
        case("..;x", "servlet containers drop what follows `;` in a segment", target("/a/..;x/b"), &[400], Any),
        case("%0d%0a in the path", same, target("/a%0d%0ab"), &[400], Any),
        case("%7f in the path", same, target("/a%7fb"), &[400], Any),
        case("% without digits", "RFC 3986 §2.1", target("/a%zz"), &[400], Any),
        case("% at the end", "RFC 3986 §2.1", target("/a%"), &[400], Any),
        case("dot segments in absolute form", same, target("http://mcp.example.com/a/../b"), &[400], Any),
    ]
}

/// How long the body is: where smuggling lives.
#[rustfmt::skip]
pub(super) fn lengths() -> Vec<Case> {
    let rule = "RFC 9112 §6.3";
    let length = |v: &str| json(&format!("Content-Length: {v}\r\n"), "{}x");
    vec![
        case("Content-Length: 3, 3", rule, length("3, 3"), &[400], Closes),
        case("two equal Content-Lengths", rule, json("Content-Length: 3\r\nContent-Length: 3\r\n", "{}x"), &[400], Closes),
        case("two differing Content-Lengths", rule, json("Content-Length: 3\r\nContent-Length: 2\r\n", "{}x"), &[400], Closes),
        case("negative Content-Length", "RFC 9110 §8.6", length("-3"), &[400], Closes),
        case("Content-Length: +3", "RFC 9110 §8.6", length("+3"), &[400], Closes),
        case("Content-Length: 0x3", "RFC 9110 §8.6", length("0x3"), &[400], Closes),
        case("Content-Length: 3.0", "RFC 9110 §8.6", length("3.0"), &[400], Closes),
        case("empty Content-Length", "RFC 9110 §8.6", length(""), &[400], Closes),
        case("Content-Length with a space inside", "RFC 9110 §8.6", length("1 3"), &[400], Closes),
        case("Content-Length of 2^64", "RFC 9110 §8.6", length("18446744073709551616"), &[400, 413], Closes),
        case("Content-Length of 30 digits", "RFC 9110 §8.6", length("333333333333333333333333333333"), &[400, 413], Closes),
        case("CL and TE", "RFC 9112 §6.1, smuggling", json("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), &[400], Closes),
        case("TE and CL", "RFC 9112 §6.1, smuggling", json("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "0\r\n\r\n"), &[400], Closes),
        case("TE: chunked, gzip", "RFC 9112 §6.3 no. 4", json("Transfer-Encoding: chunked, gzip\r\n", "0\r\n\r\n"), &[400], Closes),
        case("TE: gzip, chunked", "RFC 9112 §6.1", json("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), &[501], Closes),
        // Two rules meet: an unknown coding SHOULD be 501 (§6.1), a final one that is not chunked MUST be 400 (§6.3).
        case("TE: xchunked", "RFC 9112 §6.1, §6.3", json("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), &[501, 400], Closes),
        case("TE: identity", "RFC 9112 §6.1, gone since 7230", json("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}"), &[400, 501], Closes),
        case("TE: \"chunked\"", "RFC 9112 §7", json("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"), &[400, 501], Closes),
        case("TE: chunked;x=y", "RFC 9112 §7: chunked has no parameters", json("Transfer-Encoding: chunked;x=y\r\n", "0\r\n\r\n"), &[400, 501], Closes),
        case("TE with a vertical tab", "RFC 9110 §5.5", json("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), &[400], Closes),
        case("chunked twice", "RFC 9112 §6.1", json("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n"), &[400, 501], Closes),
        case("two TE fields", "RFC 9112 §6.1", json("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), &[400], Closes),
        case("two TE fields, one odd", "RFC 9112 §6.1", json("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n"), &[400, 501], Closes),
        case("empty TE", "RFC 9112 §6.1", json("Transfer-Encoding:\r\nContent-Length: 2\r\n", "{}"), &[400, 501], Closes),
        case("TE with HTTP/1.0", "RFC 9112 §6.1", format!("POST / HTTP/1.0\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" ), &[400], Closes),
        case("TE with a space before the colon", "RFC 9112 §5.1", json("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), &[400], Closes),
        case("folded TE", "RFC 9112 §5.2", json("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), &[400], Closes),
    ]
}

/// The chunked coding.
#[rustfmt::skip]
pub(super) fn chunks() -> Vec<Case> {
    let rule = "RFC 9112 §7.1";
    let long = "a".repeat(1100);
    vec![
        case("chunk size 0x3", rule, chunked("0x3\r\n{} \r\n0\r\n\r\n"), &[400], Closes),
        case("chunk size -1", rule, chunked("-1\r\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("chunk size +2", rule, chunked("+2\r\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("empty chunk size", rule, chunked("\r\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("chunk size of letters", rule, chunked("zz\r\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("chunk size of 17 digits", rule, chunked("00000000000000002\r\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("chunk size that overflows", rule, chunked("ffffffffffffffff2\r\n{}\r\n0\r\n\r\n"), &[400, 413], Closes),
        case("space before the chunk size", rule, chunked(" 2\r\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("no CRLF after the chunk", rule, chunked("2\r\n{}0\r\n\r\n"), &[400], Closes),
        case("more data than the size", rule, chunked("2\r\n{}xx\r\n0\r\n\r\n"), &[400], Closes),
        case("LF after the chunk size", "RFC 9112 §2.2, smuggling", chunked("2\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("LF after the chunk", "RFC 9112 §2.2, smuggling", chunked("2\r\n{}\n0\r\n\r\n"), &[400], Closes),
        case("LF after the last chunk", "RFC 9112 §2.2, smuggling", chunked("2\r\n{}\r\n0\n\n"), &[400], Closes),
        case("CR alone after the chunk size", "RFC 9112 §2.2", chunked("2\r{}\r\n0\r\n\r\n"), &[400], Closes),
        case("LF inside a chunk extension", "RFC 9112 §7.1.1, smuggling", chunked("2;a\nb\r\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("NUL in a chunk extension", "RFC 9112 §7.1.1", chunked("2;a\0b\r\n{}\r\n0\r\n\r\n"), &[400], Closes),
        case("chunk extension of 1.1 KiB", "RFC 9112 §7.1.1: limit them", chunked(&format!("2;{long}\r\n{{}}\r\n0\r\n\r\n")), &[400, 413], Closes),
        case("trailer with obs-fold", "RFC 9112 §7.1.2", chunked("2\r\n{}\r\n0\r\nA: b\r\n c\r\n\r\n"), &[400], Closes),
        case("trailer without a colon", "RFC 9112 §7.1.2", chunked("2\r\n{}\r\n0\r\nnonsense\r\n\r\n"), &[400], Closes),
        case("trailers of 40 KiB", "RFC 6585 §5", chunked(&format!("2\r\n{{}}\r\n0\r\nA: {}\r\n\r\n", "a".repeat(40 << 10))), &[400, 431], Closes),
    ]
}

/// Bodies too large, or not all there.
#[rustfmt::skip]
pub(super) fn bodies() -> Vec<Case> {
    let part = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    vec![
        case("Content-Length over the limit, nothing sent", "RFC 9110 §15.5.14", json("Content-Length: 65537\r\n", ""), &[413], Closes),
        case("Content-Length over the limit, with Expect", "RFC 9110 §10.1.1", json("Expect: 100-continue\r\nContent-Length: 65537\r\n", ""), &[413], Any),
        case("chunks over the limit", "RFC 9110 §15.5.14", chunked(&part.repeat(3)), &[413], Closes),
        case("a chunk size over the limit", "RFC 9110 §15.5.14", chunked("7fffffff\r\n"), &[413], Closes),
    ]
}

/// All of them.
pub(super) fn all() -> Vec<Case> {
    [lines(), fields(), hosts(), targets(), lengths(), chunks(), bodies()]
        .into_iter()
        .flatten()
        .collect()
}
