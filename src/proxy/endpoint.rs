//! The old HTTP+SSE transport: in, a stream that is about to announce where to POST; out, a function
//! that turns the announced address into a public one with a routing token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::balance::Replica;
use crate::balance::session::{Kind, Owner, Ticket};
use crate::base::head::Head;
use crate::route::settings::RouteSettings;
use crate::route::table::backend_path;
use crate::stream::endpoint_url::{Mapped, Site, map_endpoint, map_location, with_token};

use super::admit::Admitted;
use super::runtime::{Runtime, unix};

/// Maps the data of an `endpoint` event; `None` refuses the stream.
pub(super) type Map = Box<dyn FnMut(&str) -> Option<String> + Send + Sync>;

/// The mapping for one stream.
pub(super) fn map(
    rt: &Arc<Runtime>,
    admitted: &Admitted,
    replica: &Replica,
    head: &Head,
    listener: SocketAddr,
) -> Map {
    let rt = rt.clone();
    let authority = head.authority.clone();
    let principal = admitted.granted.principal.clone();
    let route = admitted.routed.route.clone();
    let own_path = head.path.clone();
    let request_path = admitted.routed.backend_path.clone();
    let hosts = hosts(admitted, replica, head);
    let mut ticket = Ticket {
        kind: Kind::Endpoint,
        upstream: admitted.carrier.upstream.settings.name.clone(),
        authority: replica.server.authority.clone(),
        inner: String::new(),
        issued: unix(SystemTime::now()),
    };
    Box::new(move |text| {
        let path = match map_endpoint(text, &site(&names(&hosts), &route, &request_path))? {
            // The server's own id stands in that path: where callers have names, no client needs to know
            // it, and who does not know it cannot leave the token away. And a longer route may own that
            // path: then the client is sent to this one by another way.
            Mapped::Public(path)
                if principal.is_anonymous()
                    && rt.routes.leads_to(listener, &authority, &path, &route) =>
            {
                path
            }
            Mapped::Public(path) => {
                let (path, query) = path.split_at(path.find('?').unwrap_or(path.len()));
                ticket.inner = backend_path(&route, path) + query;
                own_path.clone()
            }
            Mapped::Sealed(path) => {
                ticket.inner = path;
                own_path.clone()
            }
        };
        let owner = Owner { principal: &principal, route: &route.label };
        Some(with_token(&path, &rt.keys.keys.seal(&ticket, owner)?))
    })
}

/// A redirect's `Location` as the client may follow it; `None` where it may stay as it is.
pub(super) fn location(
    text: &str,
    admitted: &Admitted,
    replica: &Replica,
    head: &Head,
) -> Option<String> {
    let hosts = hosts(admitted, replica, head);
    let routed = &admitted.routed;
    map_location(text, &site(&names(&hosts), &routed.route, &routed.backend_path))
}

/// What a backend may call itself: its authority, and the Host that it was sent.
fn hosts(admitted: &Admitted, replica: &Replica, head: &Head) -> [String; 2] {
    let sent = admitted.carrier.upstream.settings.host.of(replica, head);
    [replica.server.authority.clone(), sent.to_ascii_lowercase()]
}

fn names(hosts: &[String; 2]) -> [&str; 2] {
    hosts.each_ref().map(String::as_str)
}

/// How a backend and its route are called, for a request at this path of the backend.
fn site<'a>(hosts: &'a [&'a str], route: &'a RouteSettings, request_path: &'a str) -> Site<'a> {
    Site {
        hosts,
        public: &route.public_url.authority,
        path: &route.path,
        rewrite: route.rewrite.as_deref(),
        request_path,
    }
}
