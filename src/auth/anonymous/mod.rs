//! `anonymous`: in, any request; out, a caller that is nobody. It must be spelled out in a route's `auth`.

use std::sync::Arc;

use super::Method;
use crate::base::caller::{Authenticate, Client, Verdict};
use crate::base::compile::{Cx, Node};
use crate::base::head::Head;
use crate::base::principal::Principal;

/// Its name in configs.
pub(super) const NAME: &str = "anonymous";
/// The table line.
pub(super) const METHOD: Method = Method { name: NAME, compile };

fn compile(node: Option<&Node>, cx: &mut Cx) -> Option<Arc<dyn Authenticate>> {
    if let Some(node) = node {
        cx.error(node, "`anonymous` takes no settings");
        return None;
    }
    Some(Arc::new(Anonymous { nobody: Arc::new(Principal::anonymous()) }))
}

#[derive(Debug)]
struct Anonymous {
    nobody: Arc<Principal>,
}

impl Authenticate for Anonymous {
    fn name(&self) -> &'static str {
        NAME
    }

    fn authenticate<'a>(&'a self, _: &'a Head, _: &'a Client) -> Verdict<'a> {
        Verdict::Known(self.nobody.clone())
    }
}
