//! What an answer carries besides the backend's word: in, its fields, the listener and the route;
//! out, the fields that the client gets.
//!
//! Refusals of a route are dressed as its answers are: a page has to read why it was refused.

use http::{HeaderName, HeaderValue};

use super::cors;
use super::settings::RouteSettings;
use crate::base::head::Head;
use crate::listen::settings::ListenerSettings;

/// Applies CORS, then the route's `response_headers`, then what the listener adds to every answer
/// that does not say otherwise.
pub fn dress(
    fields: &mut Vec<(HeaderName, HeaderValue)>,
    listener: &ListenerSettings,
    route: Option<&RouteSettings>,
    head: &Head,
) {
    if let Some(route) = route {
        cors::open(route, head, fields);
        route.answer_edits.apply(fields);
    }
    for (name, value) in &listener.headers {
        let removed = route.is_some_and(|route| route.answer_edits.remove.contains(name));
        if !removed && !fields.iter().any(|(theirs, _)| theirs == name) {
            fields.push((name.clone(), value.clone()));
        }
    }
}
