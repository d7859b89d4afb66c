//! Statistics as clients are told them: what was denied beside how it stands now, once for each run, and who is kept waiting.

use std::path::Path;

use stockade_protocol::client::{BreakerState, ClientMessage, ServerMessage};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::outcome::Outcome;
use stockade_protocol::statistics::{StatisticsBy, StatisticsQuestion, StatisticsReport, StatisticsRow};

use crate::config::DROP_INS;

use super::breakers::{PARAMETERS, fail, stage};
use super::gate::{breaking, called, put_limits};
use super::stage::{Changes, Client, Stage};

const ALL: StatisticsQuestion = StatisticsQuestion { by: None, name: None, since_s: 0 };

fn ask(client: &mut Client) -> StatisticsReport {
    client.say(&ClientMessage::Statistics(ALL));
    match client.next() {
        ServerMessage::Statistics(report) => *report,
        other => panic!("{other:?} instead of statistics"),
    }
}

fn row(report: &StatisticsReport, by: StatisticsBy) -> &StatisticsRow {
    report.rows.iter().find(|row| row.by == by).unwrap_or_else(|| panic!("{report:?}"))
}

fn count(counts: &[stockade_protocol::client::Count], name: &str) -> u64 {
    counts.iter().find(|count| count.name == name).map_or(0, |count| count.count)
}

#[test]
fn a_breaker_and_a_limit_stand_beside_what_they_have_denied() {
    let stage = stage(|directory| {
        breaking(directory);
        put_limits(directory, "[rate]\ntotal = \"1/d\"\ntotal-burst = 3\n");
    });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    assert_eq!(ask(&mut client).rows, []);
    fail(&stage, &mut launcher, &mut client);
    let report = ask(&mut client);
    let tool = row(&report, StatisticsBy::Tool);
    assert_eq!((tool.name.as_str(), tool.runs, count(&tool.outcomes, "failed")), ("count", 2, 2));
    assert_eq!(row(&report, StatisticsBy::Principal).limited_ms, None);
    assert_eq!(row(&report, StatisticsBy::Policy).name, "strict");
    // By the breaker, and then, that being charged too, by the limit.
    let denied: Vec<_> =
        (0..3).map(|_| client.denied(called(&stage, "count", PARAMETERS), &[]).reason).collect();
    let report = ask(&mut client);
    let (tool, user) = (row(&report, StatisticsBy::Tool), row(&report, StatisticsBy::Principal));
    assert_eq!(tool.breaker, Some(BreakerState::Open));
    let times = |reason: DenyReason| denied.iter().filter(|denied| **denied == reason).count() as u64;
    for (stage, reason) in [("breaker", DenyReason::BreakerOpen), ("rate", DenyReason::RateLimited)] {
        assert_eq!(count(&tool.denials, stage), times(reason), "{report:?}");
        assert_eq!(count(&user.denials, stage), times(reason), "{report:?}");
    }
    assert_eq!(user.limited_ms.is_some(), times(DenyReason::RateLimited) > 0, "{report:?}");
    assert_eq!(report.unwritten, None);
}

#[test]
fn a_run_that_finds_no_room_and_one_that_no_policy_fits_are_denied_by_the_queue_and_by_admission() {
    let stage = Stage::new(Changes { slots: 1, queue: 0, ..Changes::default() });
    let (mut launcher, mut client) = (stage.launcher(), stage.client());
    let mut unknown = stage.request();
    unknown.policy = "nosuch".into();
    client.denied(unknown, &[]);
    let run = client.exec(stage.request());
    assert_eq!(client.denied(stage.request(), &[]).reason, DenyReason::Busy);
    let (launch, _) = launcher.launch();
    launcher.started_with(&launch, &[]);
    launcher.ended(run, Outcome::Exited { code: 0 });
    client.read_to_end(run, 2);
    let report = ask(&mut client);
    let user = row(&report, StatisticsBy::Principal);
    assert_eq!((user.runs, count(&user.outcomes, "ok")), (1, 1));
    assert_eq!((count(&user.denials, "admission"), count(&user.denials, "queue")), (1, 1));
    assert_eq!(user.wall_us.unwrap().count, 1);
    let known = report.rows.iter().filter(|row| row.by == StatisticsBy::Policy);
    let mut names: Vec<_> = known.map(|row| row.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0], "(unknown)");
}

#[test]
fn a_daemon_that_is_to_count_nothing_has_no_file_and_says_so() {
    let quiet = |directory: &Path| {
        let more = directory.join("configuration").join(DROP_INS);
        std::fs::create_dir_all(&more).unwrap();
        std::fs::write(more.join("quiet.toml"), "[statistics]\nenabled = false\n").unwrap();
    };
    let stage = Stage::new(Changes { before: Some(Box::new(quiet)), ..Changes::default() });
    let mut client = stage.client();
    client.say(&ClientMessage::Statistics(ALL));
    let ServerMessage::Denied { denied, request_id: 0, exec_id: None } = client.next() else {
        panic!("it was answered")
    };
    assert_eq!(denied.reason, DenyReason::Unsupported);
    assert!(!stage.directory.path().join("state/statistics.db").exists());
}
