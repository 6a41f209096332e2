//! The one writer of refusals: in, a `Denial`; out, an answer that MCP clients can use.
//!
//! The body is a JSON-RPC error with the request's id, the status says who is at fault, and nothing
//! internal is told.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};

use super::exchange::Failure;
use super::{whole, without_body};
use crate::base::denial::Denial;
use crate::base::head::Head;
use crate::base::life::Phase;
use crate::forward::headers::REQUEST_ID;
use crate::listen::ConnCx;
use crate::listen::wire::{Answer, Payload, Wire};
use crate::observe::record::Record;
use crate::route::dress::dress;

/// Answers a request that no backend has answered, and notes it.
pub(super) async fn fail<W: Wire>(
    wire: &mut W,
    head: &Head,
    failure: Failure,
    cx: &ConnCx,
    record: &mut Record,
) {
    // its answer may have been one, but was not sent
    record.stream = false;
    match failure {
        Failure::ClientGone => {
            record.end = Some("client.gone");
            wire.abort().await;
        }
        Failure::Settled(answer) => settle(wire, head, *answer, cx, record).await,
        Failure::Denied(denial, rpc_id) => {
            refuse(wire, head, &denial, rpc_id.as_deref(), cx, record).await;
        }
    }
}

/// Refuses a request, and notes it.
pub async fn refuse<W: Wire>(
    wire: &mut W,
    head: &Head,
    denial: &Denial,
    rpc_id: Option<&str>,
    cx: &ConnCx,
    record: &mut Record,
) {
    if denial.close {
        wire.close_after();
    }
    let (mut answer, text) = refusal(denial, rpc_id, &record.request_id);
    dress(&mut answer.fields, &cx.listener, record.route.as_deref(), head);
    note(record, denial);
    let sent = wire.answer(answer, without_body(head, whole(text))).await;
    if sent.is_err() {
        wire.abort().await;
    }
}

/// A refusal in parts, for what does not speak through a [`Wire`].
pub fn refusal(denial: &Denial, rpc_id: Option<&str>, request_id: &str) -> (Answer, String) {
    let mut fields = vec![
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    if let Some(seconds) = denial.retry_after {
        fields.push((RETRY_AFTER, HeaderValue::from(seconds)));
    }
    fields.extend(denial.fields.iter().cloned());
    fields.extend(request_id_field(request_id));
    let message = serde_json::Value::from(&*denial.message);
    let id = rpc_id.unwrap_or("null");
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{},"message":{message}}}}}"#,
        denial.rpc_code
    );
    (Answer { status: denial.reason.status(), fields }, text)
}

/// Writes a refusal into a record.
pub fn note(record: &mut Record, denial: &Denial) {
    record.status = denial.reason.status();
    record.code = Some(denial.code);
    record.rpc_error = Some(denial.rpc_code);
    record.detail = denial.detail.to_string();
    if let Some(audited) = &mut record.audit {
        audited.rule = denial.rule;
    }
    record.first_byte = Some(std::time::Instant::now());
}

/// Sends an answer of the edge's own that has no body.
pub async fn settle<W: Wire>(
    wire: &mut W,
    head: &Head,
    mut answer: Answer,
    cx: &ConnCx,
    record: &mut Record,
) {
    answer.fields.extend(request_id_field(&record.request_id));
    if let Some(route) = &record.route {
        route.answer_edits.apply(&mut answer.fields);
    }
    dress(&mut answer.fields, &cx.listener, None, head);
    record.status = answer.status;
    record.first_byte = Some(std::time::Instant::now());
    let length = if answer.status == 204 { None } else { Some(0) };
    if wire.answer(answer, Payload::Nothing(length)).await.is_err() {
        wire.abort().await;
    }
}

/// Sends a small answer of the edge's own with its body.
pub async fn show<W: Wire>(
    wire: &mut W,
    head: &Head,
    (mut answer, body): (Answer, Bytes),
    cx: &ConnCx,
    record: &mut Record,
) {
    answer.fields.extend(request_id_field(&record.request_id));
    dress(&mut answer.fields, &cx.listener, None, head);
    record.status = answer.status;
    record.first_byte = Some(std::time::Instant::now());
    let payload = without_body(head, Payload::Whole(body));
    if wire.answer(answer, payload).await.is_err() {
        wire.abort().await;
    }
}

/// Answers a listener's health path: 200, or 503 as soon as the edge is to stop. Where another process has taken
/// over its listeners, the service goes on, and only this connection ends.
pub async fn health<W: Wire>(
    wire: &mut W,
    head: &Head,
    phase: Phase,
    cx: &ConnCx,
    record: &mut Record,
) {
    let stopping = phase == Phase::Stopping;
    let (status, text) = if stopping { (503, "draining\n") } else { (200, "ok\n") };
    if cx.is_draining() {
        wire.close_after();
    }
    let mut fields = vec![
        (CONTENT_TYPE, HeaderValue::from_static("text/plain")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    fields.extend(request_id_field(&record.request_id));
    dress(&mut fields, &cx.listener, None, head);
    record.status = status;
    record.first_byte = Some(std::time::Instant::now());
    let payload = without_body(head, whole(text.to_owned()));
    if wire.answer(Answer { status, fields }, payload).await.is_err() {
        wire.abort().await;
    }
}

/// The field that names a request to its client.
pub(super) fn request_id_field(id: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((REQUEST_ID, HeaderValue::from_str(id).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::denial::Reason;

    #[test]
    fn refusals_are_json_rpc_with_the_id() {
        let denial =
            Denial::new(Reason::SessionGone, "session.unknown", "Session not found").retry_after(3);
        let (answer, text) = refusal(&denial.detail("secret"), Some("\"a\""), "rid");
        let body: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(body["id"], "a");
        assert_eq!(body["error"]["code"], -32001);
        assert_eq!(answer.status, 404);
        assert!(!text.contains("secret") && !text.contains("session.unknown"));
        assert!(answer.fields.iter().any(|(n, v)| n == RETRY_AFTER && v == "3"));
    }
}
