//! Whether a process is one of ours, or may be a run's.

/// Whether a process is in our pid and user namespaces. A run at a level with namespaces isn't, and must neither command the
/// launcher nor pass for it, whatever it can reach and read. What can't be looked at isn't one of ours.
#[must_use]
pub fn shares_namespaces(pid: i32) -> bool {
    let of = |process: &str, kind: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
    ["pid", "user"].iter().all(|kind| {
        let ours = of("self", kind);
        ours.is_some() && of(&pid.to_string(), kind) == ours
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_one_of_ours_and_who_is_not_there_is_not() {
        assert!(shares_namespaces(std::process::id().cast_signed()));
        assert!(!shares_namespaces(i32::MAX));
    }
}
