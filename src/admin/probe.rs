//! What probes ask: in, a phase, and upstreams; out, 200 or 503, and why.

use super::Reply;
use super::status::{Upstream, is_ready};
use crate::base::life::Phase;

/// Whether the process is at work. It says no while it stops: nobody should send it more.
pub(super) fn health(phase: Phase) -> Reply {
    match phase {
        Phase::Starting | Phase::Ready => Reply::words(200, "ok\n"),
        Phase::Stopping => Reply::words(503, "stopping\n"),
    }
}

/// Whether requests should come here; with each upstream where the asker may read it.
pub(super) fn ready(phase: Phase, upstreams: &[Upstream], details: bool) -> Reply {
    let ready = is_ready(phase, upstreams);
    let mut text = match (ready, phase) {
        (true, _) => "ready\n",
        (false, Phase::Ready) => "not ready: no upstream has a replica that is up\n",
        (false, Phase::Stopping) => "not ready: stopping\n",
        (false, Phase::Starting) => "not ready: starting\n",
    }
    .to_owned();
    if details {
        for upstream in upstreams {
            let (up, all) = (upstream.available, upstream.replicas.len());
            text.push_str(&format!("upstream {}: {up} of {all} replicas up\n", upstream.name));
            for name in &upstream.names {
                let problem =
                    name.problem.as_ref().map(|problem| format!("  {}: {problem}\n", name.name));
                text.push_str(&problem.unwrap_or_default());
            }
        }
    }
    Reply::words(if ready { 200 } else { 503 }, text)
}
