//! Output whose secrets are named and not shown: whoever reads it, from wherever, is given the same, and never a piece of one.

use std::collections::BTreeMap;
use std::fs::File;

use stockade_protocol::ExecId;
use stockade_protocol::client::{
    ClientMessage, ExecEvent, ExecRequest, OutputMode, Redactions, ServerMessage, Stream,
};
use stockade_protocol::denied::DenyReason;
use stockade_protocol::launch::LaunchOutput;
use stockade_protocol::outcome::Outcome;
use stockade_protocol::ring::FIRST_SEQ;

use super::stage::{Changes, Client, Launcher, Stage, until};
use crate::runs::ACKNOWLEDGED_PART;

pub(super) const POLICY: &str = "extends = \"default\"\n[environment]\nallow = [\"API_TOKEN\"]\n\
                                 [limits]\noutput = \"none\"\n[output]\nredact = true\n";
const SILENT: &str =
    "extends = \"default\"\n[environment]\nallow = [\"API_TOKEN\"]\n[limits]\noutput = \"none\"\n";
pub(super) const VALUE: &[u8] = b"c0rrect-horse-battery";
const MARK: &[u8] = b"[redacted:API_TOKEN]";
const CODE_0: Outcome = Outcome::Exited { code: 0 };

fn stage(policy: &'static str) -> Stage {
    Stage::new(Changes { policy: Some(policy), ..Changes::default() })
}

fn request(stage: &Stage) -> ExecRequest {
    let value = stockade_protocol::Bytes(VALUE.to_vec());
    ExecRequest {
        policy: "custom".into(),
        environment: vec![("API_TOKEN".into(), value)],
        detach: true,
        ..stage.request()
    }
}

/// What one reader was given.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// By number.
    pub(super) events: BTreeMap<u64, (Stream, Vec<u8>)>,
    pub(super) lost: u64,
    pub(super) hidden: Option<Redactions>,
}

impl Seen {
    pub(super) fn all(&self) -> Vec<u8> {
        self.events.values().flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    fn of(&self, wanted: Stream) -> Vec<u8> {
        let bytes = self.events.values().filter(|(stream, _)| *stream == wanted);
        bytes.flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    fn marks(&self) -> u64 {
        self.hidden.as_ref().map_or(0, |hidden| hidden.marks.iter().map(|mark| mark.count).sum())
    }
}

/// Everything to the end of a run. Numbers rise by one, or by what is said to be lost.
pub(super) fn read(client: &mut Client, run: ExecId, after: u64) -> Seen {
    client.say(&ClientMessage::Attach { exec_id: run, after_seq: after });
    follow(client, run, after)
}

fn follow(client: &mut Client, run: ExecId, after: u64) -> Seen {
    let (mut seen, mut next) = (Seen::default(), after + 1);
    loop {
        let ServerMessage::Event { exec_id, seq, event } = client.next() else { panic!("no event") };
        assert_eq!(exec_id, run);
        match event {
            ExecEvent::OutputLost { events } => {
                next += events;
                seen.lost += events;
                assert_eq!(seq, next - 1, "the number of the last that is lost");
                continue;
            }
            ExecEvent::Output { stream, bytes } => {
                seen.events.insert(seq, (stream, bytes.0));
            }
            ExecEvent::Exited { redactions, .. } => {
                assert_eq!(seq, next);
                seen.hidden = redactions;
                return seen;
            }
            _ => {}
        }
        assert_eq!(seq, next, "a number is left out");
        next += 1;
    }
}

/// A run that has written this, as records, and has ended; nobody has read it.
fn written(stage: &Stage, launcher: &mut Launcher, records: &[(Stream, &[u8])]) -> ExecId {
    let mut client = stage.client();
    let run = client.exec(request(stage));
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    assert!(matches!(client.event(run, 2), ExecEvent::Started { .. }));
    drop(client);
    for (stream, bytes) in records {
        launcher.rings.get_mut(&run).unwrap().write(*stream, bytes);
    }
    launcher.end_output(run);
    launcher.ended(run, CODE_0);
    let mut client = stage.client();
    until("ended", || {
        let listed = client.runs();
        listed.iter().any(|listed| {
            listed.exec_id == run && matches!(listed.state, stockade_protocol::client::RunState::Ended { .. })
        })
    });
    run
}

/// Whether a piece of the secret can be seen that is too long to be chance.
pub(super) fn shows_a_piece(bytes: &[u8]) -> bool {
    VALUE.windows(4).any(|piece| bytes.windows(4).any(|window| window == piece))
}

#[test]
fn a_secret_is_hidden_however_it_is_cut_and_shown_where_nobody_hides_it() {
    let (hiding, showing) = (stage(POLICY), stage(SILENT));
    let (mut hides, mut shows) = (hiding.launcher(), showing.launcher());
    let text = [b"it is ", VALUE, b", and that was it\n"].concat();
    for cut in 1..text.len() {
        let records = [
            (Stream::Stdout, &text[..cut]),
            (Stream::Stderr, &b"beside"[..]),
            (Stream::Stdout, &text[cut..]),
        ];
        let run = written(&hiding, &mut hides, &records);
        let seen = read(&mut hiding.client(), run, 2);
        assert_eq!(
            seen.of(Stream::Stdout),
            [b"it is ", MARK, b", and that was it\n"].concat(),
            "cut at {cut}"
        );
        assert_eq!(seen.of(Stream::Stderr), b"beside");
        assert_eq!((seen.marks(), seen.lost, seen.events.len()), (1, 0, 5), "both ends, too");
    }
    let run = written(&showing, &mut shows, &[(Stream::Stdout, &text)]);
    let seen = read(&mut showing.client(), run, 2);
    assert_eq!((seen.of(Stream::Stdout), seen.hidden), (text, None));
}

#[test]
fn a_run_that_writes_nothing_has_its_end_and_nothing_was_hidden() {
    let stage = stage(POLICY);
    let mut launcher = stage.launcher();
    let run = written(&stage, &mut launcher, &[]);
    for after in [2, 0] {
        let seen = read(&mut stage.client(), run, after);
        assert_eq!((seen.events.len(), seen.hidden), (0, Some(Redactions::default())));
    }
}

#[test]
fn a_reader_from_any_number_is_given_what_the_first_was_given_from_there() {
    let stage = stage(POLICY);
    let mut launcher = stage.launcher();
    let mut records: Vec<(Stream, Vec<u8>)> = Vec::new();
    for number in 0..8_usize {
        let stream = if number % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
        let (one, other) = VALUE.split_at(2 + 2 * number);
        records.push((stream, [b"say ", one].concat()));
        // Silence, after which a beginning that is short enough is out.
        records.push((stream, Vec::new()));
        records.push((stream, [other, b" ghp_"].concat()));
    }
    let records: Vec<(Stream, &[u8])> = records.iter().map(|(stream, bytes)| (*stream, &bytes[..])).collect();
    let run = written(&stage, &mut launcher, &records);
    let whole = read(&mut stage.client(), run, 2);
    assert!(whole.lost == 0 && whole.marks() >= 7, "{whole:?}");
    assert_eq!(read(&mut stage.client(), run, 2), whole, "a second reader");
    let last = *whole.events.keys().last().unwrap();
    for after in FIRST_SEQ..=last {
        let seen = read(&mut stage.client(), run, after);
        let mut rest = whole.events.clone();
        assert_eq!(seen.events, rest.split_off(&(after + 1)), "after {after}");
        assert_eq!((&seen.hidden, seen.lost), (&whole.hidden, 0), "after {after}");
    }
}

#[test]
fn what_is_held_at_the_end_of_a_stream_is_hidden_if_a_value_begins_so_and_shown_if_not() {
    let stage = stage(POLICY);
    let mut launcher = stage.launcher();
    for long in 4..VALUE.len() {
        let run = written(
            &stage,
            &mut launcher,
            &[(Stream::Stdout, &VALUE[..long]), (Stream::Stderr, b"key: ghp_")],
        );
        let seen = read(&mut stage.client(), run, 2);
        assert_eq!(seen.of(Stream::Stdout), MARK, "cut off after {long}");
        assert_eq!(seen.of(Stream::Stderr), b"key: ghp_");
    }
}

#[test]
fn silence_lets_a_prompt_out_and_no_clock_does() {
    let stage = stage(POLICY);
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(request(&stage));
    let (launch, _) = launcher.launch();
    launcher.started(&launch);
    client.event(run, 2);
    launcher.write(run, b"your key? ghp_");
    assert!(matches!(client.event(run, 3), ExecEvent::Output { bytes, .. } if *bytes == *b"your key? "));
    assert!(client.hears_nothing(), "a clock has let it out: readers that come later wouldn't know");
    launcher.write(run, b"");
    assert!(matches!(client.event(run, 4), ExecEvent::Output { bytes, .. } if *bytes == *b"ghp_"));
    launcher.end_output(run);
    launcher.ended(run, CODE_0);
    assert_eq!(follow(&mut client, run, 4).events.len(), 2);
}

#[test]
fn behind_a_gap_no_piece_is_shown_and_all_readers_are_given_the_same() {
    let stage = stage(POLICY);
    let mut launcher = stage.launcher();
    // Wherever the ring is cut, that's within a secret.
    let text = VALUE.repeat(3_000);
    let mut records: Vec<(Stream, &[u8])> = text.chunks(997).map(|bytes| (Stream::Stdout, bytes)).collect();
    records = records.repeat(20);
    records.push((Stream::Stdout, b"\nthe end\n"));
    let run = written(&stage, &mut launcher, &records);
    let whole = read(&mut stage.client(), run, 2);
    let oldest = launcher.rings[&run].wrote.oldest_seq;
    assert!(
        oldest > FIRST_SEQ && whole.lost > oldest - FIRST_SEQ,
        "a secret's reach is lost, too: {}",
        whole.lost
    );
    assert!(whole.lost < oldest - FIRST_SEQ + 40, "and not much more: {}", whole.lost);
    assert!(!shows_a_piece(&whole.all()) && whole.all().ends_with(b"]\nthe end\n"));
    for after in [FIRST_SEQ, oldest, oldest + 100, *whole.events.keys().last().unwrap()] {
        let seen = read(&mut stage.client(), run, after);
        let mut rest = whole.events.clone();
        assert_eq!(seen.events, rest.split_off(&(after + 1)), "after {after}");
    }
}

#[test]
fn the_first_silence_ends_the_doubt_behind_a_gap() {
    let stage = stage(POLICY);
    let mut launcher = stage.launcher();
    let filler = vec![b'.'; 30_000];
    let mut records: Vec<(Stream, &[u8])> = vec![(Stream::Stdout, &filler); 40];
    records.extend([(Stream::Stderr, &b"battery"[..]), (Stream::Stderr, b""), (Stream::Stderr, b"seen")]);
    let run = written(&stage, &mut launcher, &records);
    assert_eq!(read(&mut stage.client(), run, 2).of(Stream::Stderr), b"seen");
    records.remove(41);
    let run = written(&stage, &mut launcher, &records);
    assert_eq!(read(&mut stage.client(), run, 2).of(Stream::Stderr), b"", "it may be the rest of a secret");
}

#[test]
fn what_may_be_written_over_stays_behind_by_what_a_reader_after_us_needs() {
    let stage = stage(POLICY);
    let mut launcher = stage.launcher();
    let mut client = stage.client();
    let run = client.exec(request(&stage));
    let (launch, _) = launcher.launch();
    let ring = launch.output.ring_bytes().unwrap();
    launcher.started(&launch);
    client.event(run, 2);
    let filler = vec![b'.'; 30_000];
    for seq in FIRST_SEQ..FIRST_SEQ + 26 {
        launcher.write(run, &filler);
        client.event(run, seq);
    }
    let (of, offset) = launcher.relay_hears();
    let head = launcher.rings[&run].wrote.head;
    assert_eq!(of, run);
    assert!(head - offset.unwrap() >= ring / ACKNOWLEDGED_PART, "{offset:?} of {head}");
}

#[test]
fn what_is_redacted_is_never_passed_and_what_is_not_may_be() {
    for (policy, is_passed) in [(POLICY, false), (SILENT, true)] {
        let stage = stage(policy);
        let mut launcher = stage.launcher();
        let file = || File::options().write(true).open("/dev/null").unwrap();
        let (null, more) = (stage.directory.path().join("out"), stage.directory.path().join("err"));
        let files = [File::create(null).unwrap().into(), File::create(more).unwrap().into()];
        drop(file());
        let asked = ExecRequest { output: OutputMode::Descriptor, detach: false, ..request(&stage) };
        let mut client = stage.client();
        client.exec_with(asked, &files);
        let (launch, descriptors) = launcher.launch();
        assert_eq!(launch.output == LaunchOutput::Passed, is_passed);
        assert_eq!(
            (descriptors.len(), launch.note.redaction.is_some()),
            (if is_passed { 2 } else { 0 }, !is_passed)
        );
    }
}

#[test]
fn more_secrets_than_are_looked_for_are_refused() {
    let policy = "extends = \"default\"\n[environment]\nallow = [\"S_*\"]\n[output]\nredact = true\nsecrets = [\"S_*\"]\n";
    let stage = Stage::new(Changes { policy: Some(policy), ..Changes::default() });
    let _launcher = stage.launcher();
    let environment = (0..65).map(|number| (format!("S_{number}").as_str().into(), "a-secret".into()));
    let asked = ExecRequest { environment: environment.collect(), ..request(&stage) };
    let denied = stage.client().denied(asked, &[]);
    assert_eq!(denied.reason, DenyReason::Policy);
    assert!(denied.message.contains("65 of the run's variables") && denied.remedy.is_some(), "{denied:?}");
}

#[test]
fn longer_secrets_than_are_looked_for_are_refused() {
    let policy = "extends = \"default\"\n[environment]\nallow = [\"S_*\"]\n[output]\nredact = true\nsecrets = [\"S_*\"]\n";
    let stage = Stage::new(Changes { policy: Some(policy), ..Changes::default() });
    let mut launcher = stage.launcher();
    let of = |count: usize| {
        let value = || stockade_protocol::Bytes(vec![b'x'; 8_192]);
        let environment = (0..count).map(|number| (format!("S_{number}").as_str().into(), value()));
        ExecRequest { environment: environment.collect(), detach: true, ..request(&stage) }
    };
    let denied = stage.client().denied(of(9), &[]);
    assert_eq!(denied.reason, DenyReason::Policy);
    assert!(denied.message.contains("73728 bytes") && denied.remedy.is_some(), "{denied:?}");
    stage.client().exec(of(8));
    assert!(launcher.launch().0.note.redaction.is_some());
}
