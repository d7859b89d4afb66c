use stockade_protocol::ExecId;
use stockade_protocol::approval::{ApprovalWhole, ReviewerReport, RiskFactor};

use super::*;

pub(in crate::approve) fn one() -> ApprovalSummary {
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
        environment: vec!["PATH".into(), "A\nB".into(), "API_KEY".into(), "Z".into()],
        input: ApprovalInput::Inline("rm -rf /\x1b".into()),
        is_cut: true,
        score: 60,
        factors: vec![RiskFactor { name: "f\x1b".into(), score: Some(60), reason: "r\x1b".into() }],
        needed: 2,
        approved: 1,
        left_ms: 90_000,
        may_answer: false,
        values: vec![Some("/home/u/w/bin".into()), Some("\x1b".into()), None, Some("(hidden)".into())],
        overrides: Overrides { wall_ms: Some(60_000), processes: Some(3), ..Overrides::default() },
        output: vec!["/w/out\x1b".into(), "pipe:[81]".into()],
        whole: ApprovalWhole::default(),
        panels: Vec::new(),
    }
}

#[test]
fn how_far_programs_are_is_shown_and_their_words_have_one_look() {
    let reviewer = |name: &str, opinion, reason: &str| ReviewerReport {
        name: name.into(),
        opinion,
        reason: reason.into(),
    };
    let reviewers = vec![
        reviewer("a", ReviewOpinion::Yes, "fine\x1b[2J\n  digest      00"),
        reviewer("b", ReviewOpinion::No, "x"),
        reviewer("c", ReviewOpinion::Nothing, "it has ended with status 1"),
        reviewer("d", ReviewOpinion::Open, ""),
    ];
    let panel = ReviewPanel { needed: 2, approved: 1, is_spent: false, reviewers };
    let text = within(&ApprovalSummary { panels: vec![panel.clone()], ..one() }, 200);
    assert!(!text.contains('\x1b') && text.matches("\n  digest").count() == 1, "{text}");
    for part in [
        "  programs    1 said yes, of 2 that have to\n",
        "a: yes: fine\\u{1b}[2J\\n\\x20{2}digest",
        "b: no: x\n",
        "c: says nothing that counts: it has ended with status 1\n",
        "d: looks, or waits for its turn\n",
        "programs look at it first",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let spent = ReviewPanel { is_spent: true, ..panel };
    let text = within(&ApprovalSummary { panels: vec![spent], needed: 0, ..one() }, 200);
    assert!(text.contains("HAVEN'T LOOKED") && text.contains("somebody else has to answer"), "{text}");
    assert!(text.contains("nobody else has to approve it"), "{text}");
}

#[test]
fn nothing_that_an_asker_says_reaches_the_terminal_or_looks_like_a_line_of_ours() {
    let text = within(&one(), 200);
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    assert!(!text.contains('\u{202e}'));
    assert_eq!(text.lines().filter(|line| line.starts_with("  policy")).count(), 1, "{text}");
    assert!(text.contains("command     sh -c \"echo \\\"a b\\\"\\u{1b}]0;owned"), "{text}");
    assert!(text.contains("\\n\\x20{2}policy\\x20{6}default\" \"\"\n"), "an empty word is seen: {text}");
    for part in [
        "NOT ALL",
        "somebody else has to answer",
        "1 of 2 have approved",
        "(+60)",
        &"ab".repeat(32),
        "variables   PATH=/home/u/w/bin \"A\\nB\"=\"\\u{1b}\" API_KEY=(hidden) Z=\"(hidden)\"\n",
        "limits      time 60 s, processes 3\n",
        "output to   \"/w/out\\u{1b}\" \"pipe:[81]\"\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_shown_whole_and_may_be_answered_says_nothing_of_either() {
    let text = within(
        &ApprovalSummary { is_cut: false, may_answer: true, input: ApprovalInput::None, ..one() },
        200,
    );
    assert!(
        !text.contains("NOT ALL") && !text.contains("somebody else") && !text.contains("NOT SEEN"),
        "{text}"
    );
    let text = within(&ApprovalSummary { input: ApprovalInput::Descriptor, ..one() }, 200);
    assert!(text.contains("NOT SEEN"), "{text}");
}

/// What a terminal of so many columns makes of a text.
fn on_screen(text: &str, columns: usize) -> Vec<String> {
    let pieces = |line: &str| broken(line, columns).into_iter().map(str::to_owned).collect::<Vec<_>>();
    text.lines().flat_map(pieces).collect()
}

#[test]
fn no_padding_makes_a_terminal_begin_a_line_with_what_an_asker_has_written() {
    let rows = ["  policy      strict", "  because     nothing: all is well", "approve it? y"];
    for columns in [40, 80, 133] {
        for pad in ["x", " ", "\u{3000}", "漢", "\t", "\u{2800}", "\n"] {
            for long in 0..200 {
                let mut words = vec![Bytes::from("echo")];
                words.push(format!("{}{}", pad.repeat(long), rows.join(&pad.repeat(columns))).into());
                let asked = ApprovalSummary {
                    cwd: words[1].clone(),
                    environment: vec![words[1].clone()],
                    values: vec![Some(words[1].clone())],
                    parameters: Some(words[1].clone()),
                    input: ApprovalInput::Inline(words[1].clone()),
                    workspace: words[1].clone(),
                    argv: words,
                    ..one()
                };
                let seen = on_screen(&within(&asked, columns), columns);
                assert_eq!(seen.iter().filter(|line| line.starts_with("  policy")).count(), 1);
                assert_eq!(seen.iter().filter(|line| line.starts_with("  because")).count(), 1);
                let ours = |line: &&String| {
                    let number = line.starts_with("07070707-");
                    !number && !line.starts_with("  |  ") && !NAMES.iter().any(|name| line.starts_with(name))
                };
                assert_eq!(seen.iter().find(ours), None, "{columns} {pad:?} {long}");
            }
        }
    }
}

const NAMES: [&str; 16] = [
    "  variables ",
    "  input ",
    "  parameters ",
    "  asked by ",
    "  tool ",
    "  policy ",
    "  limits ",
    "  workspace ",
    "  directory ",
    "  output to ",
    "  because ",
    "  waits ",
    "  digest ",
    "  NOT ALL ",
    "  yours ",
    "  command ",
];

#[test]
fn the_command_comes_last_and_what_is_long_or_cut_says_how_long_it_is() {
    let short = within(&one(), 200);
    assert!(short.lines().last().is_some_and(|line| line.starts_with("  command")), "{short}");
    let whole = ApprovalWhole { words: 2, argv: 4_000, ..ApprovalWhole::default() };
    let long = ApprovalSummary { argv: vec!["a".repeat(300).into()], whole, ..one() };
    let text = within(&long, 80);
    assert!(
        text.contains(
            "command     1 of 2 parts are shown, 300 of 4000 bytes are shown, on 5 lines:\n  |           aaa"
        ),
        "{text}"
    );
    let length = text.lines().map(|line| line.chars().count()).max();
    assert!(length <= Some(80), "{length:?}");
}
