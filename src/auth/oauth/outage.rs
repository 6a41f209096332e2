//! One line in the log when a provider goes, and one when it is back: in, how questions went; out, lines.

use std::sync::{Mutex, PoisonError};

/// Whether a provider answers.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<String>>);

impl Outage {
    /// A question was answered, or why not. `what` names the provider, `then` what follows from it.
    pub(super) fn note(&self, what: &str, went: Result<(), &str>, then: &str) {
        let mut problem = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (went, problem.is_some()) {
            (Ok(()), true) => log::warn!("{what}: answers again"),
            (Err(why), false) => log::warn!("{what}: {why}; {then}"),
            _ => {}
        }
        *problem = went.err().map(str::to_owned);
    }

    /// Why it does not answer, while it does not.
    pub(super) fn problem(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_counts() {
        let outage = Outage::default();
        assert_eq!(outage.problem(), None);
        outage.note("a", Err("gone"), "so what");
        outage.note("a", Err("still gone"), "so what");
        assert_eq!(outage.problem().as_deref(), Some("still gone"));
        outage.note("a", Ok(()), "");
        assert_eq!(outage.problem(), None);
    }
}
