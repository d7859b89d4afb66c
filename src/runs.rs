//! Naming a run on the command line: its whole id, or a part of its beginning or end that only one run has.

use stockade_client::{Client, RunSummary};
use stockade_protocol::ExecId;

use crate::error::CliError;
use crate::escape;

/// The shortest part of an id that may stand for it.
const SHORTEST: usize = 4;

/// The run that is meant.
///
/// # Errors
/// [`CliError::Asked`]: none, or several.
pub(crate) fn find(client: &mut Client, text: &str) -> Result<ExecId, CliError> {
    if let Ok(exec_id) = text.parse() {
        return Ok(exec_id);
    }
    choose(text, &client.list()?)
}

fn choose(text: &str, runs: &[RunSummary]) -> Result<ExecId, CliError> {
    let shown = escape::line(text.as_bytes());
    if text.len() < SHORTEST {
        return Err(CliError::Asked(format!(
            "{shown:?} is too short for a run's id: {SHORTEST} characters at least"
        )));
    }
    let meant = |run: &&RunSummary| {
        let id = run.exec_id.to_string();
        id.starts_with(text) || id.ends_with(text)
    };
    match runs.iter().filter(meant).collect::<Vec<_>>()[..] {
        [run] => Ok(run.exec_id),
        [] => Err(CliError::Asked(format!("no run {shown:?}: `stockade ps` lists yours"))),
        ref several => {
            let ids: Vec<_> = several.iter().map(|run| run.exec_id.to_string()).collect();
            Err(CliError::Asked(format!("{shown:?} could be any of {}", ids.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use stockade_protocol::Bytes;
    use stockade_protocol::client::RunState;

    use super::*;

    fn run(last: [u8; 2]) -> RunSummary {
        let id = [1, 0x90, 0, 0, 0, 0, 0x70, 0, 0x80, 0, 0, 0, 0, 0, last[0], last[1]];
        RunSummary {
            exec_id: ExecId::from_bytes(id),
            owner_uid: 0,
            policy: "default".into(),
            command: Bytes::from("true"),
            state: RunState::Running,
            age_ms: 1,
            last_seq: 2,
        }
    }

    #[test]
    fn a_part_that_one_run_has_names_it() {
        let runs = [run([0xaa, 0x01]), run([0xbb, 0x01])];
        assert_eq!(choose("aa01", &runs).unwrap(), runs[0].exec_id);
        for (text, says) in
            [("0190", "could be any of"), ("cc01", "no run"), ("a01", "too short"), ("", "too short")]
        {
            let error = choose(text, &runs).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
