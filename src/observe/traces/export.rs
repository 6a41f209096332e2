//! The way to the collector: in, ended requests; out, batches of them in OTLP, sent again where it asks for
//! that (OTLP 1.x, "OTLP/HTTP").

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use tokio::time::{sleep, timeout};

use super::span::{self, attribute};
use super::{Ended, Shared};
use crate::base::fetch::Told;

/// Spans in one request.
pub(super) const BATCH: usize = 512;
/// How long spans gather before they are sent.
const GATHER: Duration = Duration::from_secs(1);
/// How often a batch is sent at most.
const TRIES: u32 = 4;
/// Before the second try; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(500);
/// The longest time that a collector may ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What is told of a collector's own words, in characters.
const MAX_WORDS: usize = 200;

/// Sends batches for ever.
pub(super) async fn run(shared: Arc<Shared>) {
    let instance = format!("{:016x}", span::instance());
    let mut failing: Option<u64> = None;
    loop {
        gather(&shared).await;
        loop {
            let batch = take(&shared);
            if batch.is_empty() {
                break;
            }
            let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
            let body = request(&shared, &instance, &batch).encode_to_vec();
            drop(batch);
            let sent = send(&shared, body, count).await;
            note(&shared, &mut failing, count, sent);
        }
        let mut queue = shared.lock();
        if queue.ended.is_empty() {
            // whoever waits hears of it by the end of its channel
            queue.flushing.clear();
        }
    }
}

/// Waits for a span, and then until many are here, or a moment has passed, or somebody waits.
async fn gather(shared: &Shared) {
    let ready = || {
        let queue = shared.lock();
        (!queue.ended.is_empty(), queue.ended.len() >= BATCH || !queue.flushing.is_empty())
    };
    while !ready().0 && !ready().1 {
        shared.wake.notified().await;
    }
    let enough = async {
        while !ready().1 {
            shared.wake.notified().await;
        }
    };
    // too few in time is as good
    drop(timeout(GATHER, enough).await);
}

fn take(shared: &Shared) -> Vec<Ended> {
    let mut queue = shared.lock();
    let rest = queue.ended.len().min(BATCH);
    let rest = queue.ended.split_off(rest);
    let batch = std::mem::replace(&mut queue.ended, rest);
    queue.under_way = batch.len();
    batch
}

fn request(shared: &Shared, instance: &str, batch: &[Ended]) -> ExportTraceServiceRequest {
    let resource = Resource {
        attributes: vec![
            attribute("service.name", shared.settings.service.as_str()),
            attribute("service.version", env!("CARGO_PKG_VERSION")),
            attribute("service.instance.id", instance),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "mcp-edge".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let spans = batch.iter().filter_map(|ended| span::span(&ended.record, ended.at)).collect();
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() }];
    let resource = Some(resource);
    let resource_spans = vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }];
    ExportTraceServiceRequest { resource_spans }
}

/// Sends a batch; how many of its spans the collector refused.
///
/// # Errors
/// A sentence for the log.
async fn send(shared: &Shared, body: Vec<u8>, count: u64) -> Result<u64, String> {
    let body = bytes::Bytes::from(body);
    let settings = &shared.settings;
    let mut pause = PAUSE;
    for attempt in 1.. {
        let told = shared.fetch.send(&settings.endpoint, &settings.headers, body.clone()).await;
        let (problem, wait) = match told {
            Ok(told) if told.status.is_success() => return Ok(rejected(&told, count)),
            Ok(told) => (format!("answered {}", told.status.as_u16()), again(&told, pause)),
            Err(problem) => (problem, Some(pause)),
        };
        let hurried = !shared.lock().flushing.is_empty();
        match wait {
            Some(wait) if attempt < TRIES && !hurried => sleep(wait).await,
            _ => return Err(problem),
        }
        pause *= 2;
    }
    Ok(0)
}

/// How long to wait where another try makes sense.
fn again(told: &Told, pause: Duration) -> Option<Duration> {
    let retryable = matches!(
        told.status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    );
    let asked = told.retry_after.map(Duration::from_secs);
    retryable.then(|| asked.unwrap_or(pause).clamp(PAUSE, LONGEST_PAUSE))
}

/// Spans that a collector did not take although it answered well.
fn rejected(told: &Told, count: u64) -> u64 {
    let Ok(answer) = ExportTraceServiceResponse::decode(told.body.clone()) else { return 0 };
    let Some(partial) = answer.partial_success else { return 0 };
    let rejected = u64::try_from(partial.rejected_spans).unwrap_or(0).min(count);
    if rejected > 0 {
        let words: String = partial.error_message.chars().take(MAX_WORDS).collect();
        log::warn!("the collector refused {rejected} of {count} spans: {}", words.escape_debug());
    }
    rejected
}

/// Counts, and says once that it fails and once that it does not any more.
fn note(shared: &Shared, failing: &mut Option<u64>, count: u64, sent: Result<u64, String>) {
    shared.lock().under_way = 0;
    match sent {
        Ok(rejected) => {
            shared.counters.exported.inc_by(count - rejected);
            shared.counters.lost.inc_by(rejected);
            if let Some(lost) = failing.take() {
                log::warn!("the collector takes spans again; {lost} were lost");
            }
        }
        Err(problem) => {
            shared.counters.lost.inc_by(count);
            if failing.is_none() {
                log::error!("spans are lost: {problem}");
            }
            *failing = Some(failing.unwrap_or(0).saturating_add(count));
        }
    }
}
