//! TLS towards clients: in, files and hellos; out, which certificate is shown, and who is let in.

mod certificates;
mod clients;
mod redirect;
mod shake;
mod swap;
