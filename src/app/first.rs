//! Whether a process may be replaced by one that it starts: in, its number; out, why not.

/// The system ends everybody else with the first process of a PID namespace (pid_namespaces(7)): in a container,
/// who has just taken over.
///
/// # Errors
/// A sentence.
pub(super) fn may_be_replaced(pid: u32) -> Result<(), String> {
    match pid {
        1 => Err("it is the first process of its container, which would end with it: \
                  start a new container instead"
            .to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_process_must_stay() {
        assert!(may_be_replaced(1).unwrap_err().contains("start a new container"));
        assert_eq!((may_be_replaced(2), may_be_replaced(u32::MAX)), (Ok(()), Ok(())));
    }
}
