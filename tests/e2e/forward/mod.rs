//! In: requests that are admitted; out: the same at a backend, and its answer at the client, whatever goes wrong between.

mod bodies;
mod choice;
mod faults;
mod flow;
mod headers;
mod health;
mod http2;
mod members;
mod names;
mod upgrade;
mod upstream_tls;
