//! Which process goes on after an upgrade: in, the word of a new one that it is at work, and the end of the patience
//! with it; out, which of the two came first.
//!
//! Both are settled in one step. Or the new process could be killed for its slowness in the moment in which the old one
//! retires in its favour, and nobody would serve.

use tokio::sync::watch;

/// Who is to take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heir {
    /// Nobody has said so.
    Nobody,
    /// This process was not ready in time, and is killed: its word comes too late.
    GivenUp(u32),
    /// This one has said that it is at work, and the old one goes: there is no way back.
    Promised(u32),
    /// The same, and it is alone now.
    Alone(u32),
}

/// Takes a process's word; whether that was still possible.
#[must_use]
pub(super) fn promise(to: &watch::Sender<Heir>, pid: u32) -> bool {
    to.send_if_modified(|heir| {
        let in_time = *heir != Heir::GivenUp(pid);
        if in_time {
            *heir = Heir::Promised(pid);
        }
        in_time
    })
}

/// Waits no longer for a process; whether that was still possible.
#[must_use]
pub(super) fn give_up(on: &watch::Sender<Heir>, pid: u32) -> bool {
    on.send_if_modified(|heir| {
        let free = ![Heir::Promised(pid), Heir::Alone(pid)].contains(heir);
        if free {
            *heir = Heir::GivenUp(pid);
        }
        free
    })
}

/// Forgets whom nobody waits for any longer: another process may get its number.
pub(super) fn forget(heir: &watch::Sender<Heir>) {
    heir.send_if_modified(|heir| {
        let given_up = matches!(heir, Heir::GivenUp(_));
        if given_up {
            *heir = Heir::Nobody;
        }
        given_up
    });
}
