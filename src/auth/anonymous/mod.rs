//! `anonymous`: everybody is let in, as nobody. It must be spelled out in a route's `auth`.

use std::sync::Arc;

use async_trait::async_trait;

use super::Method;
use crate::base::caller::{Authenticate, Client};
use crate::base::compile::{Cx, Node};
use crate::base::denial::Denial;
use crate::base::head::Head;
use crate::base::principal::Principal;

/// The table line.
pub(super) const METHOD: Method = Method { name: "anonymous", compile };

fn compile(node: Option<&Node>, cx: &mut Cx) -> Option<Arc<dyn Authenticate>> {
    if let Some(node) = node {
        cx.error(node, "`anonymous` takes no settings");
        return None;
    }
    Some(Arc::new(Anonymous))
}

#[derive(Debug)]
struct Anonymous;

#[async_trait]
impl Authenticate for Anonymous {
    fn name(&self) -> &'static str {
        "anonymous"
    }

    async fn authenticate(&self, _: &Head, _: &Client) -> Result<Option<Principal>, Denial> {
        Ok(Some(Principal::anonymous()))
    }
}
