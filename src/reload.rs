//! `stockade reload`: has the daemon read its files again, and says what came of it.

use std::path::PathBuf;

use serde_json::json;
use stockade_client::ClientError;
use stockade_protocol::client::ReloadReport;

use crate::error::CliError;
use crate::{escape, exit, json, out, place};

const EXAMPLES: &str = "Examples:
  stockade reload
  stockade config check && stockade reload
  stockade reload --json | jq -r '.wrong[]'";

/// Has the daemon read its files again, and says what holds or what is wrong
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The daemon's socket
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn reload(arguments: &Arguments) -> Result<u8, CliError> {
    let mut client = place::need("reload", arguments.socket.as_deref())?;
    let report = client.reload().map_err(|error| match error {
        ClientError::Denied(denied) => CliError::Denied(denied),
        other => other.into(),
    })?;
    let status = if report.wrong.is_empty() { 0 } else { exit::FAILED };
    if arguments.json {
        let ReloadReport { wrong, left_out, policies, tools, takes_restart } = &report;
        let object = json!({
            "reloaded": wrong.is_empty(), "wrong": wrong, "left_out": left_out, "policies": policies, "tools": tools,
            "takes_restart": takes_restart,
        });
        return out::print_with(&json::line(&object), status);
    }
    if report.wrong.is_empty() {
        return out::print_with(text(&report).as_bytes(), status);
    }
    for line in &report.wrong {
        out::complain(&format!("stockade: {}", escape::line(line.as_bytes())));
    }
    if report.left_out > 0 {
        out::complain(&format!("stockade: and {} more", report.left_out));
    }
    out::complain(
        "stockade: nothing is reloaded: the daemon goes on with what it had; mend that, and ask again",
    );
    Ok(status)
}

fn text(report: &ReloadReport) -> String {
    let ReloadReport { policies, tools, takes_restart, .. } = report;
    let mut text = format!("reloaded: {policies} policies, {tools} tools\n");
    for key in takes_restart {
        text.push_str(&format!("takes a restart: {}\n", escape::line(key.as_bytes())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_restart_is_named() {
        let report = ReloadReport {
            policies: 2,
            tools: 1,
            takes_restart: vec!["daemon.socket".into()],
            ..ReloadReport::default()
        };
        assert_eq!(text(&report), "reloaded: 2 policies, 1 tools\ntakes a restart: daemon.socket\n");
    }
}
