//! The admin listener of the config: in, the `admin` node; out, a listener with who may read there, or none.

use crate::auth;
use crate::base::caller::Chain;
use crate::base::compile::{Cx, Node, NodeKind};
use crate::base::defaults;
use crate::base::url;
use crate::listen::compile as listen;
use crate::listen::settings::ListenerSettings;

/// The admin listener.
#[derive(Debug, Clone)]
pub struct AdminSettings {
    /// Where it listens, and how.
    pub listener: ListenerSettings,
    /// Who may read; absent, everybody on this machine: then the address is a loopback one.
    pub auth: Option<Chain>,
    /// Names by which it may be asked for besides those of this machine, lower case, IPv6 in brackets.
    pub hosts: Vec<String>,
}

impl AdminSettings {
    /// The one that runs where nothing is said.
    pub fn usual() -> Self {
        Self { listener: listen::bare(defaults::ADMIN), auth: None, hosts: Vec::new() }
    }

    /// Whether it is for everybody on this machine, in plain HTTP.
    pub fn is_local(&self) -> bool {
        let ListenerSettings { address, tls, door, .. } = &self.listener;
        let plain = tls.is_none() && self.auth.is_none() && !door.access.asks();
        plain && address.ip().to_canonical().is_loopback()
    }

    /// `http://address` or `https://address`.
    pub fn url(&self) -> String {
        let scheme = if self.listener.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.listener.address)
    }
}

/// Compiles the node; what is wrong is noted in `cx`.
pub(super) fn admin(node: Option<&Node>, cx: &mut Cx) -> Option<AdminSettings> {
    let Some(node) = node else { return Some(AdminSettings::usual()) };
    cx.in_key("admin", |cx| match node.kind {
        NodeKind::Map(_) => mapping(node, cx),
        _ => {
            let what = "`off` or `{ address: 127.0.0.1:9900 }`";
            cx.parse(node, what, |text| match text {
                "off" => Ok(None),
                _ => Err(format!("expected {what}, found `{text}`")),
            })?
        }
    })
}

fn mapping(node: &Node, cx: &mut Cx) -> Option<AdminSettings> {
    let mut fields = cx.map(node)?;
    let address = fields.or(cx, "address", defaults::ADMIN, |n, cx| cx.address(n));
    let auth_node = fields.take("auth");
    let auth = auth_node.and_then(|n| cx.in_key("auth", |cx| methods(n, cx)));
    let host = |text: &str| url::host(text).map(|host| url::bracketed(&host));
    let hosts = fields.or(cx, "hosts", Vec::new(), |n, cx| {
        cx.filled_list(n, |n, cx| cx.parse(n, "a host name", host))
    });
    let listener = listen::reading(node, &mut fields, address, cx);
    fields.finish(cx);
    if auth_node.is_none() && !address.ip().to_canonical().is_loopback() {
        let problem = format!(
            "`{address}` can be reached from elsewhere: say in `auth` who may read there, \
             or take a loopback address"
        );
        cx.error(node, problem);
    }
    let asks = listener.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
    if let (Some(node), Some(chain)) = (auth_node, &auth)
        && !asks
        && chain.methods.iter().all(|method| method.needs_certificate())
    {
        let problem = "nobody could come in: `tls` here asks for no `client_certificates`";
        cx.in_key("auth", |cx| cx.error(node, problem));
    }
    Some(AdminSettings { listener, auth, hosts })
}

fn methods(node: &Node, cx: &mut Cx) -> Option<Chain> {
    // without it, `oauth` would blame the place for having no public URL
    cx.public_url = Some("https://localhost".to_owned());
    let chain = auth::compile::chain(node, cx);
    cx.public_url = None;
    let chain = chain?;
    if chain.resource.is_some() {
        cx.error(node, "`oauth` protects MCP servers: take `basic`, `api_key` or certificates");
    }
    if chain.methods.iter().any(|method| method.name() == "anonymous") {
        cx.error(node, "`anonymous` is nobody to rely on: name who may read, or leave `auth` out");
    }
    Some(chain)
}
