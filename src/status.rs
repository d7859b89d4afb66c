//! `stockade status`: how the daemon is, on a screen or as one object.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use stockade_protocol::client::{Count, LimitPressure, LimiterReport, StatusReport};
use stockade_supervisor::words::{duration, size};

use crate::error::CliError;
use crate::{escape, follow, json, out, place, table};

const EXAMPLES: &str = "Examples:
  stockade status
  stockade status --json | jq .running
  stockade status --json | jq -e '.unready == []'";

/// Says how the daemon is: whether it takes runs, what it did, what it holds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// One JSON object
    #[arg(long)]
    json: bool,
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(crate) fn status(arguments: &Arguments) -> Result<u8, CliError> {
    let report = place::need("status", arguments.socket.as_deref())?.status()?;
    if arguments.json {
        return out::print(&json::line(&object(&report)));
    }
    out::print(shown(&report).as_bytes())
}

/// The report, with what is counted by name as objects of these names.
fn object(report: &StatusReport) -> Value {
    let named = |counts: &[Count]| -> Map<String, Value> {
        counts.iter().map(|Count { name, count }| (name.clone(), json!(count))).collect()
    };
    let mut object = json!(report);
    object["outcomes"] = named(&report.outcomes).into();
    object["denials"] = named(&report.denials).into();
    object
}

fn shown(report: &StatusReport) -> String {
    let text = |text: &str| escape::line(text.as_bytes());
    let process = report.process;
    let warmth = report.warmth;
    let policies: Vec<_> = report.policies.iter().map(|name| text(name)).collect();
    let plan = follow::plan(report.plan);
    let mut rows = vec![
        ("state", state(report)),
        ("release", format!("{}, up {}", text(&report.version), duration(report.uptime_ms))),
        (
            "process",
            format!(
                "{}: {}, {} of processor time, {} of {} descriptors",
                report.pid,
                size(process.memory),
                duration(process.cpu_ms),
                process.descriptors,
                process.descriptor_bound
            ),
        ),
        ("launcher", launcher(report)),
        (
            "workers",
            format!("{plan}, memory by {}, Linux {}", follow::mechanism(report.memory), text(&report.kernel)),
        ),
        ("running", format!("{} of {}", report.running, report.slots)),
        ("queued", format!("{} of {}", report.queued, report.queue_bound)),
        (
            "parked",
            format!(
                "{} by {} templates; {} hits, {} misses, {} us to make one",
                warmth.parked, warmth.templates, warmth.hits, warmth.misses, warmth.refill_us
            ),
        ),
        ("known", format!("{} runs, those that are kept among them", report.known)),
        ("connections", format!("{}, {} wait in them", report.connections, size(report.connection_bytes))),
        ("accepted", report.accepted.to_string()),
        ("ended", counted(&report.outcomes)),
        ("denied", counted(&report.denials)),
        ("not reaped", report.unreaped.to_string()),
        ("metrics", if report.metrics.is_empty() { "off".to_owned() } else { text(&report.metrics) }),
        ("policies", policies.join(", ")),
        ("tools", tools(report)),
        ("limits", report.limiter.map_or_else(|| "none".to_owned(), limits)),
    ];
    if report.approvals_waiting > 0 {
        let looking = match report.reviewing {
            0 => String::new(),
            count => format!("; {count} reviewer programs look"),
        };
        let waiting = report.approvals_waiting;
        rows.push(("approvals", format!("{waiting} wait: `stockade approve`{looking}")));
    }
    for (at, often) in report.often_wrong.iter().enumerate() {
        let name = if at == 0 { "often wrong" } else { "" };
        rows.push((name, format!("{} {}: {} times", text(&often.tool), text(&often.rule), often.count)));
    }
    if report.grants + report.grant_requests > 0 {
        rows.push((
            "grants",
            format!("{}; {} requests wait for an answer", report.grants, report.grant_requests),
        ));
    }
    for (at, locked) in report.locked_out.iter().enumerate() {
        let name = if at == 0 { "locked out" } else { "" };
        let unit = locked.unit.as_deref().map_or_else(String::new, |unit| format!("+{}", text(unit)));
        rows.push((name, format!("{}{unit}, for {} yet", locked.uid, duration(locked.retry_after_ms))));
    }
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| [name.to_owned(), value]).collect();
    table::columns(&rows, |_, _, cell| cell.to_owned())
}

/// How many tools there are, and how many of them aren't called now.
fn tools(report: &StatusReport) -> String {
    let StatusReport { tools, breakers_open: open, breakers_half_open: half_open, .. } = report;
    format!("{tools}; {open} breakers open, {half_open} half-open")
}

fn limits(limiter: LimiterReport) -> String {
    let pressure = match limiter.pressure {
        LimitPressure::Calm => "the machine is calm",
        LimitPressure::Between => "the machine is neither calm nor busy",
        LimitPressure::High => "the machine is busy",
        _ => "the machine isn't known",
    };
    let percent = f64::from(limiter.share) / 10_000.0;
    format!("at {percent:.0} % of what they say, {pressure}; {} users and tools owe something", limiter.keys)
}

/// Whether it takes runs, and if not, why.
fn state(report: &StatusReport) -> String {
    if report.unready.is_empty() {
        return "ready".to_owned();
    }
    let reasons: Vec<_> = report.unready.iter().map(|reason| escape::line(reason.as_bytes())).collect();
    format!("takes no runs: {}", reasons.join("; "))
}

fn launcher(report: &StatusReport) -> String {
    let gone = report.launchers.saturating_sub(1);
    let history = if gone == 0 { String::new() } else { format!("; {gone} before it are gone") };
    if report.launcher_pid == 0 {
        format!("none{history}")
    } else {
        format!("{}{history}", report.launcher_pid)
    }
}

/// A total, and what it consists of.
fn counted(counts: &[Count]) -> String {
    let total: u64 = counts.iter().map(|count| count.count).sum();
    let parts: Vec<_> = counts
        .iter()
        .filter(|count| count.count > 0)
        .map(|Count { name, count }| format!("{} {count}", escape::line(name.as_bytes())))
        .collect();
    if parts.is_empty() { total.to_string() } else { format!("{total}: {}", parts.join(", ")) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use stockade_protocol::client::{LockedOut, OftenWrong, ProcessReport};
    use stockade_protocol::confinement::{Plan, Warmth};
    use stockade_protocol::outcome::MemoryMechanism;

    use super::*;

    fn report() -> StatusReport {
        let count = |name: &str, count| Count { name: name.into(), count };
        StatusReport {
            version: "0.1.0".into(),
            pid: 10,
            launcher_pid: 11,
            uptime_ms: 5_000,
            plan: Plan::System,
            memory: MemoryMechanism::Cgroup,
            running: 1,
            slots: 2,
            queued: 3,
            queue_bound: 4,
            connections: 5,
            accepted: 6,
            denied: 7,
            ended: 8,
            unreaped: 9,
            warmth: Warmth::default(),
            draining: false,
            policies: vec!["default".into(), "own\x1b[31m".into()],
            unready: vec![],
            known: 12,
            launchers: 3,
            outcomes: vec![count("exited", 8), count("lost", 0)],
            denials: vec![count("busy", 7)],
            process: ProcessReport { memory: 11 << 20, cpu_ms: 1_500, descriptors: 18, descriptor_bound: 64 },
            connection_bytes: 0,
            kernel: "6.18.0".into(),
            metrics: String::new(),
            tools: 13,
            limiter: None,
            breakers_open: 2,
            breakers_half_open: 1,
            often_wrong: vec![],
            locked_out: vec![],
            approvals_waiting: 0,
            grants: 0,
            grant_requests: 0,
            reviewing: 0,
        }
    }

    #[test]
    fn the_screen_has_what_is_asked_first_and_no_escape_of_a_terminal() {
        let text = shown(&report());
        for part in [
            "state        ready\n",
            "10: 11 MiB, 1.5 s of processor time, 18 of 64 descriptors",
            "launcher     11; 2 before it are gone",
            "ended        8: exited 8\n",
            "denied       7: busy 7\n",
            "metrics      off",
            "system plan, memory by cgroup, Linux 6.18.0",
            "tools        13; 2 breakers open, 1 half-open",
            "limits       none",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\x1b'));
        let mut report = report();
        report.unready = vec!["no launcher is up".into(), "the daemon is stopping".into()];
        assert!(shown(&report).contains("takes no runs: no launcher is up; the daemon is stopping"));
    }

    #[test]
    fn the_screen_says_how_the_gate_stands_a_line_a_mistake() {
        let often = |rule: &str, count| OftenWrong { tool: "search".into(), rule: rule.into(), count };
        let report = StatusReport {
            limiter: Some(LimiterReport { share: 562_500, pressure: LimitPressure::High, keys: 7 }),
            often_wrong: vec![often("/required", 9), often("/properties/a\x1b[2J/type", 5)],
            locked_out: vec![LockedOut {
                uid: 7,
                unit: Some("a\x1b.service".into()),
                retry_after_ms: 90_000,
            }],
            ..report()
        };
        let text = shown(&report);
        for part in [
            "locked out   7+a",
            "limits       at 56 % of what they say, the machine is busy; 7 users and tools owe something\n",
            "often wrong  search /required: 9 times\n             search /properties/a",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\x1b') && !shown(&self::report()).contains("often wrong"));
    }

    #[test]
    fn json_has_every_field_and_counts_by_name() {
        let object = object(&report());
        assert_eq!(object["outcomes"], json!({ "exited": 8, "lost": 0 }));
        assert_eq!(object["denials"]["busy"], 7);
        assert_eq!(object["process"]["descriptors"], 18);
        assert_eq!(object["unready"], json!([]));
        assert_eq!((&object["tools"], &object["limiter"]), (&json!(13), &Value::Null));
        assert_eq!(object.as_object().unwrap().len(), 37);
    }
}
