//! Prometheus metrics: in, records and what is going on; out, the exposition text. All label sets are closed.
//!
//! One file per subject: a new metric is a field, a line in `new`, and a row in the README's table.

mod backends;
mod make;
mod process;
mod requests;
mod route;
mod routes;
mod sample;
mod service;
mod times;
mod told;

use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};

use make::Make;

pub use backends::Backends;
pub use requests::{Open, Requests};
pub use service::Service;
pub use told::Told;

/// Every metric of the edge.
pub struct Metrics {
    registry: Registry,
    /// What clients ask, and what they get.
    pub requests: Requests,
    /// Replicas.
    pub backends: Backends,
    /// The process: connections, files, certificates, the config.
    pub service: Service,
    /// The audit log and traces.
    pub told: Told,
}

impl Metrics {
    /// All metrics at zero.
    ///
    /// # Errors
    /// Two metrics of one name: a mistake in these files.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let make = Make(&registry);
        registry.register(Box::new(process::Process::new()?))?;
        Ok(Self {
            requests: Requests::new(&make)?,
            backends: Backends::new(&make)?,
            service: Service::new(&make)?,
            told: Told::new(&make)?,
            registry,
        })
    }

    /// All that is registered, as it is now.
    pub fn families(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    /// The text that Prometheus reads.
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        if let Err(e) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            log::error!("cannot write metrics: {e}");
        }
        String::from_utf8(out).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every file with metrics; a new one must be added here.
    const SOURCES: &[&str] = &[
        include_str!("backends.rs"),
        include_str!("requests.rs"),
        include_str!("routes.rs"),
        include_str!("service.rs"),
        include_str!("told.rs"),
    ];

    #[test]
    fn metrics_register_and_print() {
        let metrics = Metrics::new().unwrap();
        metrics.service.connection(true);
        let text = metrics.text();
        assert!(
            text.contains("mcp_edge_connections 1") && text.contains("mcp_edge_streams{"),
            "{text}"
        );
    }

    #[test]
    fn the_readme_names_every_metric_and_no_other() {
        let names = |text: &str| {
            let word = |c: char| c.is_ascii_lowercase() || c == '_';
            let mut all: Vec<String> = text
                .match_indices("mcp_edge_")
                .map(|(at, _)| text[at..].chars().take_while(|c| word(*c)).collect())
                .filter(|name: &String| name != "mcp_edge_")
                .collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let code: String =
            SOURCES.iter().map(|file| file.split("#[cfg(test)]").next().unwrap()).collect();
        let readme = include_str!("../../../README.md");
        let section = readme.split("### Metrics").nth(1).expect("a section");
        let section = section.split("\n## ").next().unwrap();
        assert_eq!(names(section), names(&code));
        let elsewhere = names(readme);
        // the library's name, in RUST_LOG, is followed by none of its letters
        assert!(elsewhere.iter().all(|name| names(&code).contains(name)), "{elsewhere:?}");
    }
}
