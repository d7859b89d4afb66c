//! A request that waits, on a terminal.

use std::fmt::Write as _;

use stockade_protocol::Bytes;
use stockade_protocol::approval::{ApprovalEnd, ApprovalInput, ApprovalSummary};
use stockade_protocol::bounds::MAX_APPROVAL_SHOWN;
use stockade_supervisor::words::duration;

use crate::escape;

/// All that is told of it, a line each.
pub(super) fn whole(one: &ApprovalSummary) -> String {
    let mut text = format!("{}\n", one.exec_id);
    let mut row = |name: &str, value: String| {
        let _infallible = writeln!(text, "  {name:<11} {value}");
    };
    let unit = one.unit.as_deref().map(|unit| format!(", unit {}", escape::line(unit.as_bytes())));
    row("asked by", format!("user {}{}", one.owner_uid, unit.unwrap_or_default()));
    if let Some(tool) = &one.tool {
        row("tool", escape::line(tool.as_bytes()));
    }
    row("policy", escape::line(one.policy.as_bytes()));
    row("command", words(&one.argv));
    if let Some(parameters) = &one.parameters {
        row("parameters", escape::line(parameters));
    }
    row("workspace", quoted(&one.workspace));
    if !one.cwd.is_empty() {
        row("directory", quoted(&one.cwd));
    }
    row("input", input(&one.input));
    row("variables", words(&one.environment));
    for factor in &one.factors {
        let score = factor.score.map(|score| format!(" (+{score})")).unwrap_or_default();
        let (name, reason) = (escape::line(factor.name.as_bytes()), escape::line(factor.reason.as_bytes()));
        row("because", format!("{name}{score}: {reason}"));
    }
    row(
        "waits",
        format!("{} more; {} of {} have approved it", duration(one.left_ms), one.approved, one.needed),
    );
    row("digest", hex(&one.digest));
    if one.is_cut {
        row("NOT ALL", format!("of it is shown: more than {MAX_APPROVAL_SHOWN} bytes of a part are cut"));
    }
    if !one.may_answer {
        row("yours", "somebody else has to answer".to_owned());
    }
    text
}

/// Words that keep their ends: each that isn't plain stands in quotes.
fn words(words: &[Bytes]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=:@%+,".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return escape::line(word);
    }
    format!("\"{}\"", escape::line(word).replace('"', "\\\""))
}

fn input(input: &ApprovalInput) -> String {
    match input {
        ApprovalInput::None => "none".to_owned(),
        ApprovalInput::Inline(bytes) => quoted(bytes),
        ApprovalInput::Stream => "NOT SEEN: its client sends it while it runs".to_owned(),
        ApprovalInput::Descriptor => "NOT SEEN: a file, pipe or terminal of its client's".to_owned(),
        _ => "NOT SEEN".to_owned(),
    }
}

/// What came of an answer.
pub(super) fn answered(missing: u32, how: Option<ApprovalEnd>) -> String {
    match how {
        Some(how) => end(how).to_owned(),
        None => format!("your answer counts; {missing} more have to approve it"),
    }
}

/// What became of one.
pub(super) fn end(how: ApprovalEnd) -> &'static str {
    match how {
        ApprovalEnd::Approved => "approved",
        ApprovalEnd::Refused => "refused",
        ApprovalEnd::Late => "nobody has answered in time",
        ApprovalEnd::Withdrawn => "its client has given it up",
        ApprovalEnd::Changed => "approved, but it isn't any more what was asked about, and doesn't run",
        ApprovalEnd::Draining => "the daemon ends",
        _ => "over",
    }
}

pub(super) fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use stockade_protocol::ExecId;
    use stockade_protocol::approval::RiskFactor;

    use super::*;

    fn one() -> ApprovalSummary {
        ApprovalSummary {
            exec_id: ExecId::from_bytes([7; 16]),
            digest: [0xab; 32],
            owner_uid: 1_000,
            unit: Some("x\x1b[2J".into()),
            policy: "build\n".into(),
            tool: Some("t\x07".into()),
            argv: vec![
                "sh".into(),
                "-c".into(),
                "echo \"a b\"\x1b]0;owned\x07\n  policy      default".into(),
                Bytes::default(),
            ],
            parameters: Some("{\"a\":\"\u{202e}\"}".into()),
            workspace: "/w/\x1b".into(),
            cwd: "/w/a b".into(),
            environment: vec!["PATH".into(), "A\nB".into()],
            input: ApprovalInput::Inline("rm -rf /\x1b".into()),
            is_cut: true,
            score: 60,
            factors: vec![RiskFactor { name: "f\x1b".into(), score: Some(60), reason: "r\x1b".into() }],
            needed: 2,
            approved: 1,
            left_ms: 90_000,
            may_answer: false,
        }
    }

    #[test]
    fn nothing_that_an_asker_says_reaches_the_terminal_or_looks_like_a_line_of_ours() {
        let text = whole(&one());
        assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
        assert!(!text.contains('\u{202e}'));
        assert_eq!(text.lines().filter(|line| line.starts_with("  policy")).count(), 1, "{text}");
        assert!(text.contains("command     sh -c \"echo \\\"a b\\\"\\u{1b}]0;owned"), "{text}");
        assert!(text.contains("default\" \"\"\n"), "an empty word is seen: {text}");
        for part in
            ["NOT ALL", "somebody else has to answer", "1 of 2 have approved", "(+60)", &"ab".repeat(32)]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_is_shown_whole_and_may_be_answered_says_nothing_of_either() {
        let text =
            whole(&ApprovalSummary { is_cut: false, may_answer: true, input: ApprovalInput::None, ..one() });
        assert!(
            !text.contains("NOT ALL") && !text.contains("somebody else") && !text.contains("NOT SEEN"),
            "{text}"
        );
        let text = whole(&ApprovalSummary { input: ApprovalInput::Descriptor, ..one() });
        assert!(text.contains("NOT SEEN"), "{text}");
    }
}
