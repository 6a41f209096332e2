//! The admin listener: in, the parts of a running edge; out, where it finds what it shows, and who serves it.

use std::collections::HashSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use pingora::server::Server;
use tokio::sync::watch;

use super::files::Files;
use super::sockets::Socket;
use crate::admin::status::{self, UpstreamView, View};
use crate::admin::{Admin, Sources};
use crate::base::life::Life;
use crate::config::Settings;
use crate::config::admin::AdminSettings;
use crate::forward::carrier::Carrier;
use crate::forward::names;
use crate::listen::Serve;
use crate::listen::accept::Front;
use crate::listen::local::Local;
use crate::listen::service::Steady;
use crate::listen::settings::{Certificate, TlsSettings};
use crate::observe::Observer;
use crate::observe::metrics::Metrics;
use crate::proxy::Edge;
use crate::proxy::runtime::{self, Runtime};

/// Has the admin listener served: by `pingora-proxy` where it is plain and for this machine alone.
///
/// # Errors
/// A sentence, where its TLS files are not good.
pub(super) fn serve(
    server: &mut Server,
    admin: &AdminSettings,
    (socket, at): Socket,
    pages: &Arc<Admin>,
    closing: watch::Receiver<bool>,
) -> Result<(), String> {
    let looks = pages.clone().watch();
    if admin.is_local() {
        server.add_service(Local::new((socket, at), pages.clone(), looks, closing));
        return Ok(());
    }
    let front = Front::new(at, Arc::new(admin.listener.clone()), pages.clone());
    let front = front.map_err(|e| format!("admin: TLS: {e}"))?;
    server.add_service(Steady::new(socket, front, looks, closing));
    Ok(())
}

/// Everything; what a reload replaces is asked for anew each time.
pub(super) fn sources(
    edge: &Arc<Edge>,
    observer: &Observer,
    life: &Arc<Life>,
    files: &Arc<ArcSwap<Files>>,
) -> Sources {
    let (now, at_work) = (edge.clone(), edge.clone());
    let (files, served) = (files.clone(), files.clone());
    let looked = edge.clone();
    let born = life.clone();
    Sources {
        metrics: observer.metrics.clone(),
        recent: observer.recent.clone(),
        life: life.clone(),
        refresh: Box::new(move |metrics| {
            metrics.service.set_generation(born.generation());
            refresh(metrics, &now.runtime(), &files.load());
        }),
        epoch: Box::new(move || looked.epoch()),
        view: Box::new(move || view(&at_work.runtime(), &served.load().tls)),
    }
}

/// TLS of every listener, the admin's too.
pub(super) fn all_tls(settings: &Settings) -> Vec<TlsSettings> {
    let admin = settings.admin.as_ref().map(|admin| &admin.listener);
    settings.listeners.iter().chain(admin).filter_map(|l| l.tls.clone()).collect()
}

/// How busy the replicas are, and when certificates expire.
fn refresh(metrics: &Metrics, runtime: &Runtime, files: &Files) {
    metrics.service.set_generations_alive(runtime::alive());
    for certificate in files.tls.iter().flat_map(TlsSettings::current) {
        metrics.service.set_expiry(&certificate.source, certificate.expires);
    }
    for (file, expires) in files.lists.expiries() {
        metrics.service.set_crl_expiry(&file, expires);
    }
    let mut there = HashSet::new();
    for (name, carrier) in &runtime.carriers {
        metrics.backends.set_carried(name, &carrier.counts.totals(), carrier.waiting());
        let members = carrier.upstream.members().clone();
        metrics.backends.set_replicas(name, members.replicas.len());
        for view in carrier.names.views() {
            let counts = names::RESULTS.into_iter().zip(view.counts);
            metrics.backends.set_name(name, &view.name, view.problem.is_some(), counts);
        }
        for replica in &members.replicas {
            let (backends, authority) = (&metrics.backends, &replica.server.authority);
            backends.set_in_flight(name, authority, replica.load(), replica.listening());
            let (up, failing) = (replica.state().is_well(), replica.health.is_failing());
            backends.set_health(name, authority, (up, failing), &replica.health.totals());
            there.insert((name.clone(), authority.clone()));
        }
    }
    metrics.backends.keep_only(there);
}

/// What pages show of it.
fn view(runtime: &Runtime, tls: &[TlsSettings]) -> View {
    let upstream = |(name, carrier): (&String, &Arc<Carrier>)| UpstreamView {
        name: name.clone(),
        replicas: carrier.upstream.views(),
        names: carrier.names.views(),
    };
    let mut upstreams: Vec<UpstreamView> = runtime.carriers.iter().map(upstream).collect();
    upstreams.sort_by(|a, b| a.name.cmp(&b.name));
    let certificate = |certificate: Arc<Certificate>| status::Certificate {
        file: certificate.source.clone(),
        names: certificate.all_names(),
        expires: certificate.expires,
    };
    let certificates = tls.iter().flat_map(TlsSettings::current).map(certificate).collect();
    View { upstreams, certificates }
}
