//! TLS of the config: in, a listener's `tls` node; out, checked settings with loaded files.

use std::sync::Arc;

use crate::base::compile::{Cx, Node};
use crate::listen::certificate;
use crate::listen::settings::{Source, TlsSettings, UnknownNames};

/// Compiles a `tls` map; what is wrong is noted in `cx`.
pub(in crate::listen) fn tls(node: &Node, cx: &mut Cx) -> Option<TlsSettings> {
    let mut fields = cx.map(node)?;
    let certificates = fields.required(cx, "certificates", |n, cx| cx.filled_list(n, pair));
    let unknown_names = fields.or(cx, "unknown_names", UnknownNames::Default, |n, cx| {
        cx.parse(n, "`default` or `refuse`", |text| match text {
            "default" => Ok(UnknownNames::Default),
            "refuse" => Ok(UnknownNames::Refuse),
            other => Err(format!("`{other}` is neither `default` nor `refuse`")),
        })
    });
    fields.finish(cx);
    let settings = TlsSettings { certificates: certificates?, unknown_names };
    if unknown_names == UnknownNames::Refuse && settings.current().all(|c| c.names.is_empty()) {
        cx.error(node, "`unknown_names: refuse` refuses everybody: no certificate has a DNS name");
    }
    Some(settings)
}

fn pair(node: &Node, cx: &mut Cx) -> Option<Arc<dyn Source>> {
    let mut fields = cx.map(node)?;
    let cert = fields.required(cx, "cert", |n, cx| cx.file(n));
    let key = fields.required(cx, "key", |n, cx| cx.file(n));
    fields.finish(cx);
    let watched = cx.watch(node, vec![cert?, key?], certificate::reader())?;
    if cx.checking
        && let Some(problem) = watched.current().problem()
    {
        cx.error(node, problem);
    }
    Some(watched)
}
