//! Questions to servers that a config names, such as identity providers: in, a URL; out, a bounded
//! answer, or a sentence for the log.
//!
//! All of them are asked from one thread of their own: connections outlive the request that needed them,
//! and an answer that nobody waits for any more is still worth having. No redirects, no proxies from the
//! environment, no cookies; nothing of a question (which may hold secrets) is in a sentence.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

use super::url;

/// Longest answer, in bytes.
pub const MAX_ANSWER: usize = 256 << 10;
/// For a whole question where nothing else is said.
pub const TIME: Duration = Duration::from_secs(5);
/// Servers close unused connections after 5 s and more; ours go first.
const IDLE: Duration = Duration::from_secs(4);
/// Unused connections to one server.
const MAX_IDLE: usize = 16;
/// Longest reason in a sentence, in characters.
const MAX_REASON: usize = 300;

/// What asks the servers of one trust: the system's CAs, and one more file of them.
#[derive(Debug)]
pub struct Fetch {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    time: Duration,
}

/// What a server says, whatever that is.
#[derive(Debug)]
pub struct Told {
    /// Its status.
    pub status: StatusCode,
    /// When it wants to be asked again, in seconds; absent where it gives no such number (RFC 9110 §10.2.3).
    pub retry_after: Option<u64>,
    /// The content, [`MAX_ANSWER`] bytes at most.
    pub body: Bytes,
}

/// Runs a future on the thread that asks, whatever becomes of the caller.
///
/// # Errors
/// The thread could not be started.
pub fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Result<(), String> {
    static THREAD: LazyLock<Result<Handle, String>> = LazyLock::new(start);
    let handle = THREAD.as_ref().map_err(Clone::clone)?;
    drop(handle.spawn(work));
    Ok(())
}

fn start() -> Result<Handle, String> {
    let failed = |e| format!("cannot start the thread for identity providers: {e}");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let handle = runtime.handle().clone();
    let forever = move || runtime.block_on(std::future::pending::<()>());
    std::thread::Builder::new().name("providers".into()).spawn(forever).map_err(failed)?;
    Ok(handle)
}

/// A URL that may be asked: https, or http where that is allowed; no user, no fragment.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn target(text: &str, allow_http: bool) -> Result<Uri, String> {
    let (origin, rest) = url::split(text)?;
    if !origin.https && !allow_http {
        return Err(format!("`{text}` is not https; `allow_http: true` would allow it"));
    }
    if rest.contains('#') {
        return Err(format!("`{text}` has a fragment"));
    }
    text.parse().map_err(|_| format!("`{text}` is not a URL"))
}

impl Fetch {
    /// With these CAs besides the system's, and this much time for a whole question.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn new(ca: Option<&Path>, time: Duration) -> Result<Self, String> {
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots(ca)?)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MAX_IDLE)
            .build(builder.enable_http1().wrap_connector(tcp));
        Ok(Self { client, time })
    }

    /// The content of a 200. To be awaited on the thread of [`spawn`], or on a runtime of one's own.
    ///
    /// # Errors
    /// A sentence for the log.
    pub async fn get(&self, url: &Uri) -> Result<Bytes, String> {
        self.get_with(url, &[]).await
    }

    /// The same, with these fields in the question.
    ///
    /// # Errors
    /// A sentence for the log.
    pub async fn get_with(
        &self,
        url: &Uri,
        fields: &[(HeaderName, HeaderValue)],
    ) -> Result<Bytes, String> {
        let answer = self.ask(Method::GET, url, fields, Bytes::new()).await?;
        answer.map_err(|_| format!("{}: answered 400", named(url)))
    }

    /// Posts a form (WHATWG URL §5) with this `Authorization`; the content of a 200, or (`Err`) of a
    /// 400, which is an answer, too (RFC 6749 §5.2). To be awaited on the thread of [`spawn`].
    ///
    /// # Errors
    /// A sentence for the log.
    pub async fn post(
        &self,
        url: &Uri,
        from: &HeaderValue,
        form: String,
    ) -> Result<Result<Bytes, Bytes>, String> {
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let fields = [(AUTHORIZATION, from.clone()), (CONTENT_TYPE, kind)];
        self.ask(Method::POST, url, &fields, form.into()).await
    }

    /// Posts a message in protobuf with these fields; whatever comes back. To be awaited on the thread of
    /// [`spawn`].
    ///
    /// # Errors
    /// A sentence for the log.
    pub async fn send(
        &self,
        url: &Uri,
        fields: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Told, String> {
        let mut request = Request::post(url)
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, "mcp-edge");
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let exchange = async {
            let answer = self.client.request(request).await.map_err(|e| reason(&e))?;
            let status = answer.status();
            let seconds = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok());
            let retry_after = seconds.and_then(|text| text.trim().parse().ok());
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|e| reason(&*e))?.to_bytes();
            Ok(Told { status, retry_after, body })
        };
        let said = |why: String| format!("{}: {why}", named(url));
        match tokio::time::timeout(self.time, exchange).await {
            Ok(told) => told.map_err(said),
            Err(_) => Err(said(format!("no answer within {} ms", self.time.as_millis()))),
        }
    }

    async fn ask(
        &self,
        method: Method,
        url: &Uri,
        fields: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Result<Bytes, Bytes>, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(url)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, "mcp-edge");
        for (name, value) in fields {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        let said = |why: String| format!("{}: {why}", named(url));
        match tokio::time::timeout(self.time, self.exchange(request)).await {
            Ok(answer) => answer.map_err(said),
            Err(_) => Err(said(format!("no answer within {} ms", self.time.as_millis()))),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Result<Bytes, Bytes>, String> {
        let answer = self.client.request(request).await.map_err(|e| reason(&e))?;
        let status = answer.status();
        if status != StatusCode::OK && status != StatusCode::BAD_REQUEST {
            return Err(format!("answered {}", status.as_u16()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| reason(&*e))?.to_bytes();
        Ok(if status == StatusCode::OK { Ok(body) } else { Err(body) })
    }
}

/// A URL without its query, which may hold anything.
fn named(url: &Uri) -> String {
    let part = |part: Option<&str>| part.unwrap_or_default().to_owned();
    let authority = part(url.authority().map(http::uri::Authority::as_str));
    format!("{}://{authority}{}", part(url.scheme_str()), url.path())
}

/// An error with what it came from, in one line.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON).collect()
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, String> {
    static SYSTEM: LazyLock<RootCertStore> = LazyLock::new(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    });
    let mut roots = SYSTEM.clone();
    let Some(path) = ca else { return Ok(roots) };
    let named = |e: &dyn std::fmt::Display| format!("`{}`: {e}", path.display());
    let before = roots.len();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| named(&e))? {
        let certificate = certificate.map_err(|e| named(&e))?;
        roots.add(certificate).map_err(|e| named(&e))?;
    }
    if roots.len() == before { Err(named(&"there is no certificate in it")) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc;

    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    /// A server that answers one request with these bytes; what it was asked.
    fn serve(answer: Vec<u8>) -> (String, mpsc::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/a?secret=1", listener.local_addr().unwrap());
        let (seen, asked) = mpsc::channel();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"}") && !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0; 1];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            seen.send(String::from_utf8(head).unwrap()).unwrap();
            drop(stream.write_all(&answer));
            // until the other end closes
            drop(stream.read(&mut [0; 1]));
        });
        (url, asked)
    }

    fn get(url: &str, time: Duration) -> Result<Bytes, String> {
        asked_with(Fetch::new(None, time).unwrap(), url)
    }

    fn asked_with(fetch: Fetch, url: &str) -> Result<Bytes, String> {
        let url = target(url, true).unwrap();
        let (sender, answer) = mpsc::channel();
        spawn(async move { sender.send(fetch.get(&url).await).unwrap() }).unwrap();
        answer.recv().unwrap()
    }

    fn with_body(body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    }

    #[test]
    fn a_200_is_an_answer_and_nothing_else() {
        let (url, asked) = serve(with_body(b"{}"));
        assert_eq!(get(&url, TIME).unwrap(), "{}");
        let asked = asked.recv().unwrap();
        assert!(asked.starts_with("GET /a?secret=1 HTTP/1.1\r\n"), "{asked}");
        assert!(!asked.to_lowercase().contains("authorization"), "{asked}");
        for status in ["301 Moved\r\nLocation: http://127.0.0.1:1/", "204 No", "500 No", "201 No"] {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
            let (url, _asked) = serve(answer.into_bytes());
            let problem = get(&url, TIME).unwrap_err();
            assert!(problem.contains(&format!("/a: answered {}", &status[..3])), "{problem}");
        }
    }

    #[test]
    fn answers_are_bounded_in_size_and_time() {
        let (url, _asked) = serve(with_body(&vec![b'x'; MAX_ANSWER]));
        assert_eq!(get(&url, TIME).unwrap().len(), MAX_ANSWER);
        let (url, _asked) = serve(with_body(&vec![b'x'; MAX_ANSWER + 1]));
        assert!(get(&url, TIME).unwrap_err().contains("length limit exceeded"));
        let (url, _asked) = serve(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec());
        let problem = get(&url, Duration::from_millis(50)).unwrap_err();
        assert!(problem.ends_with("/a: no answer within 50 ms"), "{problem}");
        assert!(!problem.contains("secret"));
    }

    #[test]
    fn only_https_may_be_asked_unless_http_is_spelled_out() {
        assert!(target("https://a/x?y", false).is_ok() && target("http://a/", true).is_ok());
        for bad in ["http://a/", "ftp://a/", "https://u@a/", "https://a/#x", "https://a/ b", ""] {
            assert!(target(bad, false).is_err(), "{bad}");
        }
    }

    /// A server with this certificate that answers one request; where it is.
    fn serve_tls(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
        std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let connection = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream);
            let mut head = Vec::new();
            let mut byte = [0; 1];
            // who does not trust us goes
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            drop(stream.write_all(&with_body(b"{}")));
            drop(stream.read(&mut byte));
        });
        url
    }

    #[test]
    fn a_server_is_trusted_by_the_ca_of_the_file_too_and_by_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        assert!(Fetch::new(Some(&path), TIME).unwrap_err().contains("no certificate in it"));
        assert!(Fetch::new(Some(Path::new("gone.pem")), TIME).is_err());
        let [made, other] =
            [(); 2].map(|()| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
        let ask = |ca: Option<&Path>| asked_with(Fetch::new(ca, TIME).unwrap(), &serve_tls(&made));
        std::fs::write(&path, made.cert.pem()).unwrap();
        assert_eq!(ask(Some(&path)).unwrap(), "{}");
        let system = roots(None).unwrap().len();
        assert_eq!(roots(Some(&path)).unwrap().len(), system + 1, "besides the system's");
        std::fs::write(&path, other.cert.pem()).unwrap();
        for ca in [Some(path.as_path()), None] {
            let problem = ask(ca).unwrap_err();
            assert!(problem.to_lowercase().contains("certificate"), "{ca:?}: {problem}");
        }
    }
}
