//! Requests and the gate's row.

use std::cell::RefCell;

use stockade_gate::{Asked, Ending, Given, Moment, Reason, Refusal, Row, Stage as GateStage, StageName};
use stockade_protocol::client::ExecRequest;
use stockade_protocol::denied::DenyReason;
use stockade_protocol::outcome::Outcome;

use super::stage::{Changes, Stage};

/// Refuses a command that is told to be refused, and answers others with what it has heard of ends, once there is one.
#[derive(Default)]
struct Choosy {
    heard: RefCell<Vec<(u32, Ending)>>,
}

impl GateStage for Choosy {
    fn name(&self) -> StageName {
        StageName::Access
    }

    fn judge(&mut self, asked: &Asked<'_>) -> Result<(), Refusal> {
        let Given::Command(words) = asked.given else { panic!("{:?}", asked.given) };
        let last = words.last().unwrap();
        let refuse =
            |message: String| Refusal::new(self.name(), Reason::NotPermitted, "test.toml:3", message);
        match last.as_slice() {
            b"refused" => Err(refuse(format!("{} may not", asked.policy.unwrap())).remedy("ask another")),
            b"heard" => Err(refuse(format!("{:?}", self.heard.borrow()))),
            _ => Ok(()),
        }
    }

    fn ended(&mut self, principal: u32, _tool: Option<&str>, ending: Ending, _at: Moment) {
        self.heard.borrow_mut().push((principal, ending));
    }
}

fn row() -> Row {
    Row::new(vec![Box::new(Choosy::default())])
}

#[test]
fn what_a_stage_refuses_is_told_with_stage_and_rule_and_reaches_no_launcher() {
    let stage = Stage::new(Changes { row, ..Changes::default() });
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let asking = |word: &str| ExecRequest { argv: vec!["/bin/true".into(), word.into()], ..stage.request() };
    let denied = client.denied(asking("refused"), &[]);
    assert_eq!((denied.reason, denied.message.as_str()), (DenyReason::NotPermitted, "default may not"));
    assert_eq!((denied.stage.as_deref(), denied.rule.as_deref()), (Some("access"), Some("test.toml:3")));
    assert_eq!(denied.remedy.as_deref(), Some("ask another"));
    let run = client.exec(asking("permitted"));
    let (launch, _) = launcher.launch();
    assert_eq!(launch.exec_id, run, "another one came before it");
    launcher.started_with(&launch, &[]);
    launcher.ended(run, Outcome::Exited { code: 1 });
    client.read_to_end(run, 2);
    // What passed and was refused later ended, too: by nobody's fault.
    assert_eq!(
        client.denied(ExecRequest { policy: "nosuch".into(), ..asking("permitted") }, &[]).reason,
        DenyReason::UnknownPolicy
    );
    let uid = rustix::process::geteuid().as_raw();
    let heard = client.denied(asking("heard"), &[]).message;
    assert_eq!(heard, format!("{:?}", [(uid, Ending::Failure), (uid, Ending::Neither)]));
}

#[test]
fn without_a_stage_everything_passes() {
    let stage = Stage::new(Changes::default());
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run =
        client.exec(ExecRequest { argv: vec!["/bin/true".into(), "refused".into()], ..stage.request() });
    assert_eq!(launcher.launch().0.exec_id, run);
}
