//! TLS of the config: in, a listener's `tls` node; out, checked settings with loaded files.

use std::sync::Arc;

use super::trust::Trust;
use crate::base::compile::{Cx, Node};
use crate::listen::acme::acme;
use crate::listen::certificate::{self, Dated};
use crate::listen::settings::{ClientCertificates, MinVersion, Source, TlsSettings, UnknownNames};

/// Compiles a `tls` map; what is wrong is noted in `cx`.
pub(in crate::listen) fn tls(node: &Node, cx: &mut Cx) -> Option<TlsSettings> {
    let mut fields = cx.map(node)?;
    let certificates_node = fields.take("certificates");
    let certificates =
        certificates_node.and_then(|n| cx.in_key("certificates", |cx| cx.filled_list(n, pair)));
    let acme_node = fields.take("acme");
    let acme = acme_node.and_then(|n| cx.in_key("acme", |cx| acme(n, cx)));
    if certificates_node.is_none() && acme_node.is_none() {
        cx.error(node, "one of the keys `certificates` and `acme` is missing");
    }
    let unknown_names = fields.or(cx, "unknown_names", UnknownNames::Default, |n, cx| {
        cx.parse(n, "`default` or `refuse`", |text| match text {
            "default" => Ok(UnknownNames::Default),
            "refuse" => Ok(UnknownNames::Refuse),
            other => Err(format!("`{other}` is neither `default` nor `refuse`")),
        })
    });
    let min_version = fields.or(cx, "min_version", MinVersion::Tls12, |n, cx| {
        cx.parse(n, "`1.2` or `1.3`", |text| match text {
            "1.2" => Ok(MinVersion::Tls12),
            "1.3" => Ok(MinVersion::Tls13),
            other => Err(format!("`{other}` is neither `1.2` nor `1.3`")),
        })
    });
    let clients = fields.optional(cx, "client_certificates", clients);
    fields.finish(cx);
    let certificates = certificates.or(certificates_node.is_none().then(Vec::new))?;
    let settings = TlsSettings { certificates, acme, unknown_names, min_version, clients };
    if settings.acme.is_none()
        && unknown_names == UnknownNames::Refuse
        && settings.current().all(|c| c.names.is_empty())
    {
        cx.error(node, "`unknown_names: refuse` refuses everybody: no certificate has a DNS name");
    }
    Some(settings)
}

fn pair(node: &Node, cx: &mut Cx) -> Option<Arc<dyn Source>> {
    let mut fields = cx.map(node)?;
    let cert = fields.required(cx, "cert", |n, cx| cx.file(n));
    let key = fields.required(cx, "key", |n, cx| cx.file(n));
    fields.finish(cx);
    let read = certificate::reader(certificate::load_pair);
    let watched = cx.watch(node, vec![cert?, key?], "", read)?;
    in_days(node, &*watched.current(), cx);
    Some(watched)
}

fn clients(node: &Node, cx: &mut Cx) -> Option<ClientCertificates> {
    let mut fields = cx.map(node)?;
    let ca = fields.required(cx, "ca", |n, cx| cx.file(n));
    let crl_node = fields.take("crl");
    let crl = crl_node.and_then(|n| cx.in_key("crl", |cx| cx.file(n)));
    let required = fields.or(cx, "required", true, |n, cx| cx.boolean(n));
    fields.finish(cx);
    if crl_node.is_some() && crl.is_none() {
        return None;
    }
    let read = certificate::reader(move |paths| Trust::load(paths, required));
    let by = if required { "required" } else { "" };
    let trust = cx.watch(node, [ca?].into_iter().chain(crl).collect(), by, read)?;
    in_days(node, &*trust.current(), cx);
    Some(ClientCertificates { trust, required })
}

/// What `run` only warns of is an error for `check`.
fn in_days(node: &Node, value: &impl Dated, cx: &mut Cx) {
    if cx.checking
        && let Some(problem) = value.problem()
    {
        cx.error(node, problem);
    }
}
