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

/// Names of metrics that are read elsewhere in the edge, too: each stands once, beside its metric.
pub mod name {
    pub use super::requests::REFUSALS;
    pub use super::routes::{FIRST_BYTE, REQUESTS, SEALED, STREAMS};
    pub use super::service::{ACME_FAILED, CONFIG_FAILED, CONNECTIONS, FILE_FAILED, LOG_LOST};
    pub use super::told::AUDIT_FAILING;
}

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

    /// What every file of this folder but this one says, its tests aside.
    fn sources() -> String {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/observe/metrics");
        let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let others = files.filter(|path| !path.ends_with("mod.rs"));
        let code = others.map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            text.split("#[cfg(test)]").next().unwrap().to_owned()
        });
        code.collect()
    }

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
        let code = sources();
        let readme = include_str!("../../../README.md");
        let section = readme.split("### Metrics").nth(1).expect("a section");
        let section = section.split("\n## ").next().unwrap();
        assert_eq!(names(section), names(&code));
        let elsewhere = names(readme);
        // the library's name, in RUST_LOG, is followed by none of its letters
        assert!(elsewhere.iter().all(|name| names(&code).contains(name)), "{elsewhere:?}");
    }
}
