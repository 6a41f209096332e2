//! A health check from outside the process: in, a URL of an edge at work; out, what it says of itself, or what is wrong.
//!
//! For containers without a shell, whose health is what a command's exit code says.

use crate::base::fetch::{self, Fetch};

/// Asks for this page; what it says when it is answered 200 within 5 s.
///
/// # Errors
/// A sentence for whoever looks at the check.
pub fn ask(url: &str) -> Result<String, String> {
    let url = fetch::target(url, true)?;
    let fetch = Fetch::new(None, fetch::TIME)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let page = runtime.map_err(|e| e.to_string())?.block_on(fetch.get(&url))?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
