//! Tools that say what they print: whoever is told of the end is told whether they did.

use stockade_protocol::ExecId;
use stockade_protocol::client::{ClientMessage, ExecEvent, ExecRequest, OutputMode, ResultCheck, Stream};
use stockade_protocol::launch::LaunchOutput;
use stockade_protocol::outcome::Outcome;

use super::gate::{TOOL, called, put_tool};
use super::stage::{Changes, Client, Launcher, Stage};

const RESULT: &str = "\n[result]\ntype = \"object\"\nrequired = [\"count\"]\nproperties.count = { type = \"integer\", minimum = 1 }\n";
const PARAMETERS: &str = r#"{"paths":["x"]}"#;
const CODE_0: Outcome = Outcome::Exited { code: 0 };

fn stage(policy: Option<&'static str>) -> Stage {
    let before = move |directory: &std::path::Path| {
        for (name, rest) in [("silent", ""), ("promising", RESULT)] {
            let text = TOOL.replace("\"count\"", &format!("\"{name}\"")) + rest;
            let text = if policy.is_some() { text.replace("\"strict\"", "\"custom\"") } else { text };
            put_tool(directory, &format!("{name}.toml"), &text);
        }
    };
    Stage::new(Changes { before: Some(Box::new(before)), policy, ..Changes::default() })
}

fn end(client: &mut Client, run: ExecId) -> Option<ResultCheck> {
    loop {
        let stockade_protocol::client::ServerMessage::Event { exec_id, event, .. } = client.next() else {
            continue;
        };
        assert_eq!(exec_id, run);
        if let ExecEvent::Exited { result_check, .. } = event {
            return result_check;
        }
    }
}

/// What comes of a call of a tool that prints this and ends so.
fn came(stage: &Stage, tool: &str, printed: &[(Stream, &[u8])], outcome: Outcome) -> Option<ResultCheck> {
    let mut launcher = stage.launcher();
    came_by(stage, &mut launcher, tool, printed, outcome)
}

fn came_by(
    stage: &Stage,
    launcher: &mut Launcher,
    tool: &str,
    printed: &[(Stream, &[u8])],
    outcome: Outcome,
) -> Option<ResultCheck> {
    let mut client = stage.client();
    let run = client.exec(called(stage, tool, PARAMETERS));
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    for (stream, bytes) in printed {
        for chunk in bytes.chunks(32 * 1024) {
            launcher.rings.get_mut(&run).unwrap().write(*stream, chunk);
            launcher.report(run);
        }
    }
    launcher.end_output(run);
    launcher.ended(run, outcome);
    let told = end(&mut client, run);
    // Who comes later is told the same.
    let mut other = stage.client();
    other.say(&ClientMessage::Attach { exec_id: run, after_seq: 0 });
    assert_eq!(end(&mut other, run), told);
    told
}

fn differs(said: &str) -> Option<ResultCheck> {
    Some(ResultCheck { fits: Some(false), said: vec![said.into()] })
}

#[test]
fn what_a_tool_promises_is_looked_at_at_its_end_and_told_in_words() {
    let stage = stage(None);
    let mut launcher = stage.launcher();
    let out = Stream::Stdout;
    let mut came = |tool: &str, printed: &[(Stream, &[u8])], outcome| {
        came_by(&stage, &mut launcher, tool, printed, outcome)
    };
    let fits = Some(ResultCheck { fits: Some(true), said: vec![] });
    // In pieces, and with words on standard error between them.
    let pieces: [(Stream, &[u8]); 3] = [(out, b"{\"cou"), (Stream::Stderr, b"busy"), (out, b"nt\":3}\n")];
    assert_eq!(came("promising", &pieces, CODE_0), fits);
    let wrong: [(Stream, &[u8]); 1] = [(out, b"{\"count\":0}")];
    assert_eq!(came("promising", &wrong, CODE_0), differs("/count: expected at least 1, got 0"));
    for printed in ["", "3", "{\"count\":3} and more", "{\"count\":3,\"count\":4}"] {
        let told = came("promising", &[(out, printed.as_bytes())], CODE_0).unwrap();
        assert_eq!((told.fits, told.said.len()), (Some(false), 1), "{printed}: {told:?}");
    }
    // Another tool promises nothing, and what has failed by what its file says isn't held to it.
    assert_eq!(came("silent", &wrong, CODE_0), None);
    assert_eq!(came("promising", &wrong, Outcome::Exited { code: 3 }), None);
    assert_eq!(came("promising", &wrong, Outcome::Signaled { signal: 15, core_dumped: false }), None);
    assert_eq!(came("promising", &pieces, Outcome::Exited { code: 1 }), fits, "1 is no failure of this tool");
}

#[test]
fn a_result_has_a_bound_and_what_isnt_kept_is_said_not_to_be_known() {
    let stage = stage(None);
    let most = stockade_gate::tools::MAX_RESULT;
    let filled = |length: usize| {
        let text = "{\"count\":3}";
        text.to_owned() + &" ".repeat(length - text.len())
    };
    let (fits, over) = (filled(most), filled(most + 1));
    let told = came(&stage, "promising", &[(Stream::Stdout, fits.as_bytes())], CODE_0);
    assert_eq!(told.unwrap().fits, Some(true));
    let told = came(&stage, "promising", &[(Stream::Stdout, over.as_bytes())], CODE_0);
    assert_eq!(told, differs("expected at most 262144 bytes, got more"));
    // More than a ring has: what is left of it isn't taken for the whole.
    let noise = vec![b'.'; 2 * usize::try_from(stockade_protocol::bounds::RING_BYTES).unwrap()];
    let printed: [(Stream, &[u8]); 3] =
        [(Stream::Stdout, b"{\"count\":0} "), (Stream::Stderr, &noise), (Stream::Stdout, b"{\"count\":3}")];
    let told = came(&stage, "promising", &printed, CODE_0).unwrap();
    assert_eq!((told.fits, told.said), (None, vec!["a part of its output isn't kept any more".into()]));
}

/// A run may end without its relay having said that its output has.
#[test]
fn what_may_be_a_part_of_the_output_isnt_taken_for_the_whole() {
    let stage = stage(None);
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(called(&stage, "promising", PARAMETERS));
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    launcher.write(run, b"{\"count\":3}");
    launcher.ended(run, CODE_0);
    let told = end(&mut client, run).unwrap();
    assert_eq!((told.fits, told.said), (None, vec!["the end of its output wasn't told".into()]));
}

/// A client that would have the tool write to its own descriptors is told what was printed instead.
#[test]
fn what_is_checked_passes_through_the_daemon() {
    let stage = stage(Some("extends = \"default\"\n[limits]\noutput = \"none\"\n"));
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    for (tool, expected) in [("silent", true), ("promising", false)] {
        let (_read, write) = std::io::pipe().unwrap();
        let write = std::os::fd::OwnedFd::from(write);
        let beside = [write.try_clone().unwrap(), write];
        let request = ExecRequest { output: OutputMode::Descriptor, ..called(&stage, tool, PARAMETERS) };
        client.exec_with(request, &beside);
        let (launch, _) = launcher.launch();
        assert_eq!(launch.output == LaunchOutput::Passed, expected, "{tool}: {:?}", launch.output);
    }
}

/// The daemon looks at what was printed, and tells a client that may not see a secret nothing of it.
#[test]
fn where_output_is_redacted_only_the_rule_is_told() {
    let policy = "extends = \"default\"\n[output]\nredact = true\n";
    let stage = stage(Some(policy));
    let mut launcher = stage.launcher();
    let mut came = |printed: &[u8]| {
        came_by(&stage, &mut launcher, "promising", &[(Stream::Stdout, printed)], CODE_0).unwrap()
    };
    let told = came(b"{\"count\":\"ghp_0123456789abcdefghijABCDEFGHIJ012345\"}");
    assert_eq!(told.said, ["it breaks the rule /properties/count/type"]);
    assert_eq!(came(b"ghp_0123456789abcdefghijABCDEFGHIJ012345").said, ["it isn't what the schema says"]);
    assert_eq!(came(b"{\"count\":7}").fits, Some(true));
}
