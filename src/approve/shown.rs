//! A request that waits, on a terminal.
//!
//! Whoever asks writes most of what stands here, and the terminal is his to paint if it is let: so a text has one look only
//! ([`escape::exact`]), and the ends of lines are ours. What doesn't fit one goes on in others, each with a mark before it, so
//! nothing of his begins a line, and the terminal has none to break. The command comes last: it's what the question below is about.

use std::fmt::Write as _;

use stockade_gate::tools::hex;
use stockade_protocol::Bytes;
use stockade_protocol::approval::{ApprovalEnd, ApprovalInput, ApprovalSummary, ReviewOpinion, ReviewPanel};
use stockade_protocol::client::Overrides;
use stockade_supervisor::words::{self, duration};

use crate::escape;

/// Columns of a name and of what stands before a value.
const BEFORE: usize = 14;
/// Columns of a terminal that doesn't say, and of one that is narrower than anybody reads.
const COLUMNS: usize = 80;
const FEWEST: usize = 40;
/// Digits of a digest by which a person knows it again.
pub(super) const FIRST_DIGITS: usize = 8;

/// All that is told of it, a line each.
pub(super) fn whole(one: &ApprovalSummary) -> String {
    within(one, columns())
}

fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let said = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    said.unwrap_or(COLUMNS).clamp(FEWEST, 4 * COLUMNS)
}

/// In lines of so many columns at most.
fn within(one: &ApprovalSummary, columns: usize) -> String {
    let mut rows = Rows { text: format!("{}\n", one.exec_id), columns };
    let whole = &one.whole;
    let shown = |all: &[Bytes]| all.iter().map(|word| word.len() as u64).sum::<u64>();
    let values = one.values.iter().flatten().map(|value| value.len() as u64).sum::<u64>();
    let hidden = one.values.contains(&None);
    let variables = (shown(&one.environment) + values, if hidden { 0 } else { whole.environment });
    rows.long("variables", (one.environment.len() as u64, whole.variables), variables, &environment(one));
    let inline = if let ApprovalInput::Inline(bytes) = &one.input { bytes.len() as u64 } else { 0 };
    rows.long("input", (0, 0), (inline, whole.input), &input(&one.input));
    if let Some(parameters) = &one.parameters {
        let length = (parameters.len() as u64, whole.parameters);
        rows.long("parameters", (0, 0), length, &escape::exact(parameters));
    }
    let unit = one.unit.as_deref().map(|unit| format!(", unit {}", escape::exact(unit.as_bytes())));
    rows.row("asked by", &format!("user {}{}", one.owner_uid, unit.unwrap_or_default()));
    if let Some(tool) = &one.tool {
        rows.row("tool", &escape::exact(tool.as_bytes()));
    }
    rows.row("policy", &escape::exact(one.policy.as_bytes()));
    if let Some(limits) = limits(&one.overrides) {
        rows.row("limits", &limits);
    }
    rows.row("workspace", &quoted(&one.workspace));
    if !one.cwd.is_empty() {
        rows.row("directory", &quoted(&one.cwd));
    }
    if !one.output.is_empty() {
        rows.row("output to", &quoted_all(&one.output));
    }
    for factor in &one.factors {
        let score = factor.score.map(|score| format!(" (+{score})")).unwrap_or_default();
        let (name, reason) = (escape::exact(factor.name.as_bytes()), escape::exact(factor.reason.as_bytes()));
        rows.row("because", &format!("{name}{score}: {reason}"));
    }
    one.panels.iter().for_each(|panel| programs(&mut rows, panel));
    let people = match one.needed {
        0 => "nobody else has to approve it".to_owned(),
        needed => format!("{} of {needed} have approved it", one.approved),
    };
    rows.row("waits", &format!("{} more; {people}", duration(one.left_ms)));
    rows.row("digest", &hex(&one.digest));
    if one.is_cut {
        rows.row("NOT ALL", "of it is shown: parts are cut, or left out");
    }
    if !one.may_answer {
        rows.row("yours", not_yours(one));
    }
    let words = (one.argv.len() as u64, whole.words);
    rows.long("command", words, (shown(&one.argv), whole.argv), &quoted_all(&one.argv));
    rows.text
}

/// Why who is told of it can't approve it.
pub(super) fn not_yours(one: &ApprovalSummary) -> &'static str {
    if one.panels.iter().any(|panel| !panel.is_spent && panel.approved < panel.needed) {
        "programs look at it first; it can be refused by now"
    } else {
        "somebody else has to answer"
    }
}

/// How far reviewer programs are.
fn programs(rows: &mut Rows, panel: &ReviewPanel) {
    if panel.is_spent {
        return rows.row("programs", "HAVEN'T LOOKED: the asker's budget for them is spent");
    }
    rows.row("programs", &format!("{} said yes, of {} that have to", panel.approved, panel.needed));
    for one in &panel.reviewers {
        let said = match one.opinion {
            ReviewOpinion::Open => "looks, or waits for its turn",
            ReviewOpinion::Yes => "yes: ",
            ReviewOpinion::No => "no: ",
            _ => "says nothing that counts: ",
        };
        let (name, reason) = (escape::exact(one.name.as_bytes()), escape::exact(one.reason.as_bytes()));
        rows.row("", &format!("{name}: {said}{reason}"));
    }
}

/// Lines that nobody but we begin and end.
struct Rows {
    text: String,
    columns: usize,
}

impl Rows {
    fn row(&mut self, name: &str, value: &str) {
        let mut pieces = broken(value, self.columns - BEFORE).into_iter();
        let first = pieces.next().unwrap_or_default();
        let _infallible = writeln!(self.text, "  {name:<11} {first}");
        for piece in pieces {
            let _infallible = writeln!(self.text, "  |           {piece}");
        }
    }

    /// As [`Rows::row`]; of what takes several lines, or isn't shown whole, how long it is stands first: `count` of things, `bytes` of
    /// all of them, both as (shown, there).
    fn long(&mut self, name: &str, count: (u64, u64), bytes: (u64, u64), value: &str) {
        let is_whole = count.0 >= count.1 && bytes.0 >= bytes.1;
        let pieces = broken(value, self.columns - BEFORE);
        if is_whole && pieces.len() == 1 {
            return self.row(name, value);
        }
        let of = |(shown, there): (u64, u64), what: &str| match there {
            there if there > shown => format!("{shown} of {there} {what} are shown"),
            _ => format!("{shown} {what}"),
        };
        let lines = pieces.len();
        let things = if count.0 > 0 { format!("{}, ", of(count, "parts")) } else { String::new() };
        self.row(name, &format!("{things}{}, on {lines} lines:", of(bytes, "bytes")));
        for piece in pieces {
            let _infallible = writeln!(self.text, "  |           {piece}");
        }
    }
}

/// In pieces of so many columns; what isn't ASCII may take two.
fn broken(text: &str, columns: usize) -> Vec<&str> {
    let (mut pieces, mut from, mut taken) = (Vec::new(), 0, 0);
    for (at, letter) in text.char_indices() {
        let takes = if letter.is_ascii() { 1 } else { 2 };
        if taken + takes > columns {
            pieces.push(&text[from..at]);
            (from, taken) = (at, 0);
        }
        taken += takes;
    }
    pieces.push(&text[from..]);
    pieces
}

/// Words that keep their ends: each that isn't plain stands in quotes.
fn quoted_all(words: &[Bytes]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=:@%+,".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return escape::exact(word);
    }
    format!("\"{}\"", escape::exact(word).replace('"', "\\\""))
}

/// Names and values: one in brackets isn't a value, which would stand in quotes.
fn environment(one: &ApprovalSummary) -> String {
    let hidden = || core::iter::repeat(&None);
    let value = |value: &Option<Bytes>| value.as_ref().map_or("(hidden)".to_owned(), |value| quoted(value));
    let pairs = one.environment.iter().zip(one.values.iter().chain(hidden()));
    let pairs = pairs.map(|(name, of)| format!("{}={}", quoted(name), value(of)));
    let text = pairs.collect::<Vec<_>>().join(" ");
    if text.is_empty() { "none".to_owned() } else { text }
}

/// What whoever asks has tightened.
fn limits(overrides: &Overrides) -> Option<String> {
    let Overrides { wall_ms, cpu_ms, idle_ms, memory, processes, output } = overrides;
    let time = |what: &str, time: &Option<u64>| time.map(|time| format!("{what} {}", duration(time)));
    let size = |what: &str, size: &Option<u64>| size.map(|size| format!("{what} {}", words::size(size)));
    let told = [
        time("time", wall_ms),
        time("processor time", cpu_ms),
        time("time without output", idle_ms),
        size("memory", memory),
        processes.map(|count| format!("processes {count}")),
        size("output", output),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join(", "))
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
        ApprovalEnd::Changed => {
            "approved, but it isn't any more what was asked about, or can't run now: it doesn't"
        }
        ApprovalEnd::Draining => "the daemon ends",
        _ => "over",
    }
}

/// So much of a digest as a question names.
pub(super) fn first_digits(digest: &[u8; 32]) -> String {
    hex(digest).chars().take(FIRST_DIGITS).collect()
}

#[cfg(test)]
#[path = "shown_tests.rs"]
mod tests;
