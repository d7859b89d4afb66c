//! `stockade stats`: what runs came to, as the daemon has counted it, or as its file says where there is no daemon.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use stockade_audit::time;
use stockade_client::{
    ClientError, Spread, StatisticsBy, StatisticsQuestion, StatisticsReport, StatisticsRow,
};
use stockade_policies::amount::{TIME_EXPECTED, Time};
use stockade_protocol::client::{BreakerState, Count};
use stockade_supervisor::paths::{Scope, Surroundings};
use stockade_supervisor::statistics;
use stockade_supervisor::words::{duration, size};

use crate::color::Paint;
use crate::error::CliError;
use crate::place::{self, Found};
use crate::{escape, json, out, sources, table};

const EXAMPLES: &str = "Examples:
  stockade stats
  stockade stats --by tool --since 7d
  stockade stats --tool search --json | jq '.rows[0].wall_us.p99'
  stockade stats --user 1000
  sudo stockade stats --system        without a daemon: reads its file";

/// Says what runs came to, by tool, policy and user.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// A row each tool, policy or principal [default: all that you may see]
    #[arg(long, value_name = "WHAT", value_parser = by_of)]
    by: Option<StatisticsBy>,
    /// This tool's row
    #[arg(long, value_name = "NAME", group = "one", conflicts_with = "by")]
    tool: Option<String>,
    /// This policy's row
    #[arg(long, value_name = "NAME", group = "one", conflicts_with = "by")]
    policy: Option<String>,
    /// The row of the user of this uid
    #[arg(long, value_name = "UID", group = "one", conflicts_with = "by")]
    user: Option<u32>,
    /// What was counted since so long ago; older figures are kept a day together
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = since_of)]
    since: Time,
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// The daemon's socket
    #[arg(long, value_name = "PATH", conflicts_with = "directory")]
    socket: Option<PathBuf>,
    /// Reads the file in this state directory, which no daemon may have open
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Without a daemon: the file of root's daemon, whoever asks
    #[arg(long)]
    system: bool,
}

fn by_of(text: &str) -> Result<StatisticsBy, String> {
    match text {
        "tool" => Ok(StatisticsBy::Tool),
        "policy" => Ok(StatisticsBy::Policy),
        "principal" => Ok(StatisticsBy::Principal),
        _ => Err("expected tool, policy or principal".to_owned()),
    }
}

fn since_of(text: &str) -> Result<Time, String> {
    Time::parse(text).map_err(|reason| format!("{reason}; expected {TIME_EXPECTED}"))
}

pub(crate) fn stats(arguments: &Arguments) -> Result<u8, CliError> {
    let question = arguments.question();
    let report = match &arguments.directory {
        Some(directory) => read(directory, question)?,
        None => match place::look(arguments.socket.as_deref())? {
            Found::Daemon(client, path) => ask(client, path, &question)?,
            Found::Nobody(_) => read(&arguments.state(), question)?,
        },
    };
    if arguments.json {
        return out::print(&json::line(&object(&report)));
    }
    out::print(shown(&report, Paint::to(&std::io::stdout())).as_bytes())
}

impl Arguments {
    fn question(&self) -> StatisticsQuestion {
        let named = |by, name: &Option<String>| name.clone().map(|name| (by, name));
        let one = named(StatisticsBy::Tool, &self.tool)
            .or_else(|| named(StatisticsBy::Policy, &self.policy))
            .or_else(|| self.user.map(|uid| (StatisticsBy::Principal, uid.to_string())));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let since_s = now.saturating_sub(self.since.milliseconds() / 1_000);
        let (by, name) = one.map_or((self.by, None), |(by, name)| (Some(by), Some(name)));
        StatisticsQuestion { by, name, since_s }
    }

    /// Where the daemon's file is, if nobody says otherwise.
    fn state(&self) -> PathBuf {
        let ours = sources::surroundings();
        let theirs = if self.system { Surroundings { scope: Scope::Machine, ..ours } } else { ours };
        theirs.state()
    }
}

fn ask(
    client: stockade_client::Client,
    path: PathBuf,
    question: &StatisticsQuestion,
) -> Result<StatisticsReport, CliError> {
    place::greeted(client, path)?.statistics(question).map_err(|error| match error {
        ClientError::Denied(denied) => CliError::Denied(denied),
        other => other.into(),
    })
}

fn read(directory: &Path, question: StatisticsQuestion) -> Result<StatisticsReport, CliError> {
    Ok(statistics::read(directory, question)?)
}

/// The report, with what is counted by name as objects of these names.
fn object(report: &StatisticsReport) -> Value {
    let named = |counts: &[Count]| -> Map<String, Value> {
        counts.iter().map(|Count { name, count }| (name.clone(), json!(count))).collect()
    };
    let row = |row: &StatisticsRow| {
        let mut object = json!(row);
        object["outcomes"] = named(&row.outcomes).into();
        object["denials"] = named(&row.denials).into();
        object
    };
    let mut object = json!(report);
    object["rows"] = report.rows.iter().map(row).collect();
    object
}

fn shown(report: &StatisticsReport, paint: Paint) -> String {
    let mut text = String::new();
    for (by, head) in
        [(StatisticsBy::Tool, "TOOL"), (StatisticsBy::Policy, "POLICY"), (StatisticsBy::Principal, "USER")]
    {
        let rows: Vec<_> = report.rows.iter().filter(|row| row.by == by).map(cells).collect();
        if rows.is_empty() {
            continue;
        }
        let heads = [
            head,
            "RUNS",
            "OK",
            "FAILED",
            "OTHERWISE",
            "DENIED",
            "TIME",
            "P50",
            "P99",
            "MOST",
            "MEMORY",
            "P50",
            "P99",
            "NOW",
        ];
        let rows: Vec<_> = std::iter::once(heads.map(str::to_owned)).chain(rows).collect();
        let bold = |row, _, cell: &str| if row == 0 { paint.bold(cell) } else { cell.to_owned() };
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&table::columns(&rows, bold));
    }
    text.push_str(&footer(report));
    text
}

/// In whole seconds.
fn moment_of(seconds: u64) -> String {
    let text = time::rfc3339(seconds.saturating_mul(1_000_000_000));
    text.split_once('.').map_or(text.clone(), |(whole, _)| format!("{whole}Z"))
}

/// Since when that is, and what is missing in it.
fn footer(report: &StatisticsReport) -> String {
    let mut text = match report.from_s {
        Some(from) => format!("since {}\n", moment_of(from)),
        None => "nothing was counted in that time\n".to_owned(),
    };
    if report.left_out > 0 {
        text.push_str(&format!("{} more with fewer runs: ask for one, or by one kind\n", report.left_out));
    }
    if let Some(why) = &report.unwritten {
        let why = escape::line(why.as_bytes());
        text.push_str(&format!("not on disk, and gone with the daemon: {why}\n"));
    }
    text
}

fn cells(row: &StatisticsRow) -> [String; 14] {
    let of = |name: &str| row.outcomes.iter().find(|count| count.name == name).map_or(0, |count| count.count);
    let others: Vec<&Count> =
        row.outcomes.iter().filter(|count| !["ok", "failed"].contains(&count.name.as_str())).collect();
    let denials: Vec<&Count> = row.denials.iter().collect();
    let spread = |of: Option<Spread>, word: fn(u64) -> String| {
        of.map_or_else(Default::default, |of| [of.mean, of.p50, of.p99, of.max].map(word))
    };
    let [mean, p50, p99, most] = spread(row.wall_us, time_of);
    let [memory, memory_p50, memory_p99, _] = spread(row.memory, size);
    [
        escape::line(row.name.as_bytes()),
        row.runs.to_string(),
        of("ok").to_string(),
        of("failed").to_string(),
        counted(&others),
        counted(&denials),
        mean,
        p50,
        p99,
        most,
        memory,
        memory_p50,
        memory_p99,
        now(row),
    ]
}

fn counted(counts: &[&Count]) -> String {
    let parts: Vec<_> = counts
        .iter()
        .map(|count| format!("{} {}", escape::line(count.name.as_bytes()), count.count))
        .collect();
    if parts.is_empty() { "0".to_owned() } else { parts.join(", ") }
}

/// Microseconds, as finely as it makes sense.
fn time_of(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} us"),
        1_000..100_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        _ => duration(us / 1_000),
    }
}

/// What holds a tool or a user now.
fn now(row: &StatisticsRow) -> String {
    let breaker = match row.breaker {
        Some(BreakerState::Open) => Some("breaker open".to_owned()),
        Some(BreakerState::HalfOpen) => Some("breaker half-open".to_owned()),
        _ => None,
    };
    let limited = row.limited_ms.map(|after| match after {
        u64::MAX => "limited to nothing".to_owned(),
        after => format!("limited for {}", duration(after)),
    });
    breaker.or(limited).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn count(name: &str, count: u64) -> Count {
        Count { name: name.into(), count }
    }

    fn row(by: StatisticsBy, name: &str) -> StatisticsRow {
        StatisticsRow {
            by,
            name: name.into(),
            runs: 12,
            outcomes: vec![count("ok", 9), count("failed", 2), count("timed-out", 1)],
            denials: vec![count("rate", 5), count("queue", 2)],
            wall_us: Some(Spread { count: 12, mean: 1_250, p50: 900, p99: 150_000, max: 60_000_000 }),
            memory: Some(Spread { count: 12, mean: 3 << 20, p50: 2 << 20, p99: 9 << 20, max: 9 << 20 }),
            breaker: None,
            limited_ms: None,
        }
    }

    fn report() -> StatisticsReport {
        let tool = StatisticsRow { breaker: Some(BreakerState::Open), ..row(StatisticsBy::Tool, "a\x1b[2J") };
        let user = StatisticsRow { limited_ms: Some(1_500), ..row(StatisticsBy::Principal, "1000") };
        let quiet = StatisticsRow {
            runs: 0,
            outcomes: vec![],
            denials: vec![],
            wall_us: None,
            memory: None,
            ..row(StatisticsBy::Principal, "(other)")
        };
        StatisticsReport {
            from_s: Some(1_789_992_000),
            to_s: 1_790_078_400,
            rows: vec![tool, user, quiet],
            left_out: 3,
            unwritten: Some("no\nroom".into()),
        }
    }

    #[test]
    fn the_screen_has_a_table_a_kind_and_says_what_holds_now_and_what_is_missing() {
        let text = shown(&report(), Paint::to(&std::fs::File::open("/dev/null").unwrap()));
        let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0][..2], ["TOOL", "RUNS"], "{text}");
        assert_eq!(words[1][1..6], ["12", "9", "2", "timed-out", "1"], "{text}");
        assert_eq!(words[1][6..14], ["rate", "5,", "queue", "2", "1.2", "ms", "900", "us"], "{text}");
        assert!(text.lines().nth(1).unwrap().ends_with("breaker open"), "{text}");
        let figures = ["150", "ms", "60", "s", "3", "MiB", "2", "MiB", "9", "MiB", "breaker", "open"];
        assert_eq!(words[1][14..], figures, "{text}");
        assert!(text.contains("\n\nUSER") && text.contains("limited for 1.5 s"), "{text}");
        assert!(text.contains("\n(other)  0 ") && !text.contains('\x1b'), "{text}");
        assert!(
            text.contains("3 more with fewer runs") && text.contains("gone with the daemon: no"),
            "{text}"
        );
        assert!(!text.contains("POLICY"), "{text}");
        let nothing =
            StatisticsReport { from_s: None, rows: vec![], left_out: 0, unwritten: None, ..report() };
        let text = shown(&nothing, Paint::to(&std::fs::File::open("/dev/null").unwrap()));
        assert_eq!(text, "nothing was counted in that time\n");
    }

    #[test]
    fn json_has_counts_by_name() {
        let object = object(&report());
        assert_eq!(object["rows"][0]["outcomes"], json!({ "ok": 9, "failed": 2, "timed-out": 1 }));
        assert_eq!(object["rows"][0]["by"], "tool");
        assert_eq!(object["rows"][0]["breaker"], "open");
        assert_eq!(object["rows"][1]["limited_ms"], 1_500);
        assert_eq!(object["rows"][2]["wall_us"], Value::Null);
    }
}
