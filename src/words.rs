//! Why, in one line: for whatever ended a run but the command itself.
//!
//! The sentences are the supervisor's ([`stockade_supervisor::words`]), so the daemon's log says the same; here what
//! a stranger may have put into them is escaped.

use stockade_protocol::denied::Denied;
use stockade_protocol::outcome::Outcome;
use stockade_supervisor::words::duration;

use crate::escape;

/// Why we ended it, or why it never began, and what would help. `None`: the command ended by itself.
pub(crate) fn why(outcome: &Outcome) -> Option<String> {
    let sentence = stockade_supervisor::words::outcome(outcome)?;
    // A subject or a reason may hold a stranger's bytes.
    Some(escape::line(sentence.to_string().as_bytes()))
}

/// A refusal: the sentence, who decided, the remedy, when to try again.
pub(crate) fn denied(denied: &Denied) -> String {
    let mut text = format!("denied: {}", escape::line(denied.message.as_bytes()));
    if let Some(decided) = &denied.decided {
        let (stage, rule) = (escape::line(decided.stage.as_bytes()), escape::line(decided.rule.as_bytes()));
        text.push_str(&format!(" ({stage}: {rule})"));
    }
    if let Some(remedy) = &denied.remedy {
        text.push_str("; ");
        text.push_str(&escape::line(remedy.as_bytes()));
    }
    if let Some(after) = denied.retry_after_ms {
        text.push_str(&format!("; try again in {}", duration(after)));
    }
    text
}

/// An outcome in a word or two, for a column.
pub(crate) fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Exited { code } => format!("exit {code}"),
        Outcome::Signaled { signal, .. } => format!("signal {signal}"),
        Outcome::TimedOut { .. } => "timed out".into(),
        Outcome::MemoryExceeded { .. } => "over memory".into(),
        Outcome::OutputExceeded { .. } => "over output".into(),
        Outcome::ProcessesExceeded { .. } => "over processes".into(),
        Outcome::Cancelled { .. } => "cancelled".into(),
        Outcome::SetupFailed { .. } => "not started".into(),
        Outcome::Lost { .. } => "lost".into(),
        _ => "ended".into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use stockade_protocol::Bytes;
    use stockade_protocol::denied::DenyReason;
    use stockade_protocol::outcome::CancelReason;

    use super::*;

    #[test]
    fn a_command_that_ended_by_itself_needs_no_words() {
        assert_eq!(why(&Outcome::Exited { code: 3 }), None);
        assert_eq!(why(&Outcome::Signaled { signal: 11, core_dumped: false }), None);
    }

    #[test]
    fn a_refusal_says_what_would_help_and_when() {
        let refusal =
            Denied::new(DenyReason::Busy, "slots and queue are full").remedy("wait").retry_after(250);
        assert_eq!(denied(&refusal), "denied: slots and queue are full; wait; try again in 250 ms");
    }

    #[test]
    fn a_refusal_of_the_gate_says_which_stage_and_rule_decided() {
        let refusal = Denied::new(DenyReason::RateLimited, "6 a minute are allowed").retry_after(1500);
        let refusal = refusal.decided_by("rate", "limits.toml:12\n");
        let said = denied(&refusal);
        assert!(said.starts_with("denied: 6 a minute are allowed (rate: limits.toml:12"), "{said}");
        assert!(!said.contains('\n') && said.contains("try again in"), "{said}");
    }

    #[test]
    fn names_of_strangers_are_escaped() {
        let reason = CancelReason::GuardDissolved { path: Bytes::from("/w/\x1b[2J") };
        assert!(!why(&Outcome::Cancelled { reason }).unwrap().contains('\x1b'));
    }
}
