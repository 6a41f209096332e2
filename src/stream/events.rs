//! An event stream under way: in, pieces as a backend sends them; out, pieces as the client gets them.

use std::time::Duration;

use bytes::Bytes;

use super::endpoint::EndpointRewriter;
use super::passed::Passed;
use super::pump::End;
use super::sse::{LeadingBom, Scanner};
use super::tool_events::ListFilter;
use super::tools::Refused;
use crate::inspect::error::code_in_events;

/// An event stream under way.
pub struct Events {
    pub(super) scanner: Scanner,
    /// Set once a comment has gone out before the backend's first byte.
    pub(super) bom: Option<LeadingBom>,
    /// How long it may be silent before a comment is sent; never where absent.
    pub(super) keepalive: Option<Duration>,
    /// Rewrites the `endpoint` event of the old transport.
    endpoint: Option<Endpoint>,
    /// Cuts lists of tools.
    lists: Option<Box<ListFilter>>,
    /// Whether it may end between two events when the edge stops: true for streams that no request waits for.
    pub(super) cut: bool,
    /// Of a stream that a request waits for: the code of the JSON-RPC error that the last answer in it is,
    /// as far as its event came in one piece.
    pub(super) error: Option<i32>,
}

/// A rewriter and what it writes.
pub struct Endpoint {
    rewriter: EndpointRewriter,
    map: Map,
}

/// Maps the data of an `endpoint` event; `None` refuses the stream.
pub type Map = Box<dyn FnMut(&str) -> Option<String> + Send + Sync>;

impl Events {
    /// Whether it rewrites anything.
    pub fn rewrites(&self) -> bool {
        self.endpoint.is_some()
    }

    /// An event stream at its start.
    pub fn new(keepalive: Option<Duration>, endpoint: Option<Map>, cut: bool) -> Self {
        let endpoint = endpoint.map(|map| Endpoint { rewriter: EndpointRewriter::new(), map });
        Self {
            scanner: Scanner::new(),
            bom: None,
            keepalive,
            endpoint,
            lists: None,
            cut,
            error: None,
        }
    }

    /// Lists of tools in it are cut from now on: its start.
    pub fn cut_lists(&mut self, lists: ListFilter) {
        self.lists = Some(Box::new(lists));
    }

    /// A stream that is here from its start to its end, and of which nothing has to be rewritten but lists.
    ///
    /// # Errors
    /// A list cannot go on.
    pub fn whole(&mut self, all: Bytes) -> Result<Bytes, Refused> {
        let Some(lists) = &mut self.lists else { return Ok(all) };
        let mut out = Vec::with_capacity(all.len());
        lists.push(&all, &mut out)?;
        lists.finish(&mut out)?;
        Ok(out.into())
    }
}

impl Events {
    /// What goes on of a piece. The scanner sees what the client sees.
    pub(super) fn pass(&mut self, piece: Bytes, passed: &Passed) -> Result<Bytes, End> {
        let piece = match &mut self.bom {
            None => piece,
            Some(bom) => match bom.strip(&piece) {
                ([], rest) => piece.slice_ref(rest),
                (held, rest) => [held, rest].concat().into(),
            },
        };
        let piece = match &mut self.endpoint {
            None => piece,
            Some(endpoint) => {
                let mut out = Vec::with_capacity(piece.len() + 256);
                let pushed = endpoint.rewriter.push(&piece, &mut out, &mut *endpoint.map);
                pushed.map_err(|_| End::BadEndpoint)?;
                if endpoint.rewriter.done() {
                    self.endpoint = None;
                }
                out.into()
            }
        };
        let piece = match &mut self.lists {
            None => piece,
            Some(lists) => {
                let mut out = Vec::with_capacity(piece.len());
                lists.push(&piece, &mut out).map_err(End::BadList)?;
                out.into()
            }
        };
        let before = self.scanner.events();
        self.scanner.push(&piece);
        passed.saw(self.scanner.events() - before);
        if !self.cut
            && let Some(code) = code_in_events(&piece)
        {
            self.error = i32::try_from(code).ok();
        }
        Ok(piece)
    }

    /// What goes on at the end: what has passed already, and what was held back.
    pub(super) fn finish(&mut self, passed: Bytes) -> Result<Bytes, Refused> {
        let held = self.bom.as_mut().map_or(&b""[..], |bom| bom.finish());
        if self.endpoint.is_none() && self.lists.is_none() && held.is_empty() {
            return Ok(passed);
        }
        let mut rest = held.to_vec();
        if let Some(endpoint) = &mut self.endpoint {
            endpoint.rewriter.finish(&mut rest);
        }
        let mut out = passed.to_vec();
        match &mut self.lists {
            None => out.append(&mut rest),
            Some(lists) => {
                lists.push(&rest, &mut out)?;
                lists.finish(&mut out)?;
            }
        }
        Ok(out.into())
    }
}
