//! All routes' counters: in, a route; out, its counters, and all of them as Prometheus reads them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

use super::route::{Answers, LATENCY, LIFE, RouteCounts, get};
use super::sample::{self, counter, gauge, histogram, pair};
use super::times::Times;
use crate::observe::record::Record;
use crate::route::settings::RouteSettings;

/// The counters of all routes that were asked for. Cheap to clone.
#[derive(Clone)]
pub(super) struct Routes(Arc<Table>);

struct Table {
    /// What no route was found for.
    nowhere: Arc<RouteCounts>,
    /// By label and upstream: a reload makes new routes of the same names.
    routes: Mutex<BTreeMap<(String, String), Arc<RouteCounts>>>,
    /// Of each of [`FAMILIES`].
    described: Vec<Desc>,
}

/// Requests by `route`, `upstream` and `status`.
pub const REQUESTS: &str = "mcp_edge_requests_total";
/// Times from head to head.
pub const FIRST_BYTE: &str = "mcp_edge_first_byte_seconds";
/// Session ids sealed.
pub const SEALED: &str = "mcp_edge_sessions_sealed_total";
/// Streams that are open.
pub const STREAMS: &str = "mcp_edge_streams";

/// A metric that every route has.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    /// Appends a route's samples.
    samples: fn(&RouteCounts, &mut Vec<Metric>),
}

const FAMILIES: &[Family] = &[
    Family {
        name: REQUESTS,
        help: "Requests answered.",
        kind: MetricType::COUNTER,
        samples: requests,
    },
    Family {
        name: "mcp_edge_request_duration_seconds",
        help: "Time from a request's head to the end of its answer; open-ended streams are not in it.",
        kind: MetricType::HISTOGRAM,
        samples: |route, out| histograms(route, out, |a| &a.duration),
    },
    Family {
        name: FIRST_BYTE,
        help: "Time from a request's head to the answer's.",
        kind: MetricType::HISTOGRAM,
        samples: |route, out| histograms(route, out, |a| &a.first_byte),
    },
    Family {
        name: "mcp_edge_received_bytes_total",
        help: "Bytes of request bodies; those of a stream at its end.",
        kind: MetricType::COUNTER,
        samples: |route, out| out.push(counter(get(&route.received), by_route(route))),
    },
    Family {
        name: "mcp_edge_sent_bytes_total",
        help: "Bytes of answer bodies; those of a stream at its end.",
        kind: MetricType::COUNTER,
        samples: |route, out| out.push(counter(get(&route.sent), by_route(route))),
    },
    Family {
        name: SEALED,
        help: "Session ids sealed.",
        kind: MetricType::COUNTER,
        samples: |route, out| out.push(counter(get(&route.sealed), by_route(route))),
    },
    Family {
        name: "mcp_edge_sessions_opened_total",
        help: "Requests whose session id was opened.",
        kind: MetricType::COUNTER,
        samples: |route, out| out.push(counter(get(&route.opened), by_route(route))),
    },
    Family {
        name: STREAMS,
        help: "Event streams and WebSockets open.",
        kind: MetricType::GAUGE,
        samples: |route, out| {
            let open = route.streams.load(Ordering::Relaxed);
            out.push(gauge(open as f64, by_route(route)));
        },
    },
    Family {
        name: "mcp_edge_streams_ended_total",
        help: "Event streams and WebSockets that have ended, by how.",
        kind: MetricType::COUNTER,
        samples: ended,
    },
    Family {
        name: "mcp_edge_stream_duration_seconds",
        help: "How long event streams and WebSockets were open that have ended.",
        kind: MetricType::HISTOGRAM,
        samples: |route, out| out.push(histogram(&route.lives, &LIFE, by_route(route))),
    },
    Family {
        name: "mcp_edge_stream_events_total",
        help: "Events that have passed in streams.",
        kind: MetricType::COUNTER,
        samples: |route, out| out.push(counter(route.passed.events(), by_route(route))),
    },
    Family {
        name: "mcp_edge_stream_comments_total",
        help: "Comments that the edge has put into streams.",
        kind: MetricType::COUNTER,
        samples: |route, out| out.push(counter(route.passed.comments(), by_route(route))),
    },
];

impl Routes {
    /// No route yet.
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        let described = FAMILIES.iter().map(|family| sample::described(family.name, family.help));
        let described = described.collect::<Result<_, _>>()?;
        let nowhere = Arc::new(RouteCounts::new("", ""));
        Ok(Self(Arc::new(Table { nowhere, routes: Mutex::default(), described })))
    }

    /// The counters of a record's route: searched for once, then kept beside the route's settings.
    pub(super) fn of<'r>(&'r self, record: &'r Record) -> &'r RouteCounts {
        let Some(route) = &record.route else { return &self.0.nowhere };
        let found = route.counts.get_or(|| self.find(&route.label, &route.upstream));
        found.unwrap_or(&self.0.nowhere)
    }

    /// The same, to keep.
    pub(super) fn shared(&self, record: &Record) -> Arc<RouteCounts> {
        let find = |route: &Arc<RouteSettings>| {
            route.counts.share_or(|| self.find(&route.label, &route.upstream))
        };
        record.route.as_ref().and_then(find).unwrap_or_else(|| self.0.nowhere.clone())
    }

    fn find(&self, route: &str, upstream: &str) -> Arc<RouteCounts> {
        let mut routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(RouteCounts::new(route, upstream));
        routes.entry((route.to_owned(), upstream.to_owned())).or_insert_with(made).clone()
    }
}

impl Collector for Routes {
    fn desc(&self) -> Vec<&Desc> {
        self.0.described.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let routes: Vec<Arc<RouteCounts>> = {
            let routes = self.0.routes.lock().unwrap_or_else(PoisonError::into_inner);
            routes.values().cloned().collect()
        };
        let all = || routes.iter().map(|route| &**route).chain([&*self.0.nowhere]);
        FAMILIES.iter().map(|family| family.read(all())).collect()
    }
}

impl Family {
    fn read<'r>(&self, routes: impl Iterator<Item = &'r RouteCounts>) -> MetricFamily {
        let mut samples = Vec::new();
        routes.for_each(|route| (self.samples)(route, &mut samples));
        sample::family(self.name, self.help, self.kind, samples)
    }
}

fn requests(route: &RouteCounts, out: &mut Vec<Metric>) {
    for (class, method, answers) in route.all() {
        out.extend(answers.eras().map(|(era, count)| {
            let mut labels = vec![pair("era", era)];
            labels.append(&mut by_answer(route, class, method));
            counter(count, labels)
        }));
    }
}

fn histograms(
    route: &RouteCounts,
    out: &mut Vec<Metric>,
    times: fn(&Answers) -> &Times<{ LATENCY.len() }>,
) {
    out.extend(route.all().map(|(class, method, answers)| {
        histogram(times(answers), &LATENCY, by_answer(route, class, method))
    }));
}

fn ended(route: &RouteCounts, out: &mut Vec<Metric>) {
    out.extend(route.ends().map(|(end, count)| {
        let mut labels = vec![pair("end", end)];
        labels.append(&mut by_route(route));
        counter(count, labels)
    }));
}

fn by_route(route: &RouteCounts) -> Vec<LabelPair> {
    vec![pair("route", &route.route)]
}

/// Sorted by name, as the library does.
fn by_answer(route: &RouteCounts, class: &str, method: &str) -> Vec<LabelPair> {
    vec![
        pair("route", &route.route),
        pair("rpc_method", method),
        pair("status", class),
        pair("upstream", &route.upstream),
    ]
}
