//! A tool's file, and what it's called with: any text as either.
//!
//! A zero byte parts them; without one it's parameters of the documents' own tool.

use std::time::Duration;

use serde_json::Value;
use stockade_gate::tools::Tool;
use stockade_gate::tools::expand::{Expanded, Input};
use stockade_gate::tools::template::{Hole, Kind, Piece};
use stockade_gate::validate::formats::is_workspace_path;
use stockade_gate::validate::{MAX_MISMATCHES, Mismatch, parse};

use crate::shown;

const OURS: &str = include_str!("../../docs/tools/search.toml");

pub(crate) fn run(data: &[u8]) {
    let parted = data.iter().position(|byte| *byte == 0);
    let (text, parameters) = parted.map_or((OURS.as_bytes(), data), |at| (&data[..at], &data[at + 1..]));
    let Ok(text) = core::str::from_utf8(text) else { return };
    let name = if parted.is_some() { "a" } else { "search" };
    match Tool::read("a.toml", name, text, &|| Duration::ZERO) {
        Ok(tool) => called(&tool, parameters),
        Err(mistakes) => {
            assert!(!mistakes.is_empty(), "refused without a reason");
            mistakes.iter().for_each(|mistake| shown::check(&mistake.to_string()));
        }
    }
}

fn called(tool: &Tool, parameters: &[u8]) {
    let value = match parse(parameters) {
        Ok(value) => value,
        Err(mismatch) => return told(&[mismatch]),
    };
    assert_eq!(parse(value.to_string().as_bytes()), Ok(value.clone()), "what was read is in its one form");
    if let Err(mismatches) = tool.parameters.check(&value) {
        return told(&mismatches);
    }
    let object = value.as_object().expect("parameters that fit are an object");
    match tool.template.expand(object) {
        Ok(made) => expanded(tool, object, &made),
        Err(error) => shown::check(&error.to_string()),
    }
}

fn told(mismatches: &[Mismatch]) {
    assert!((1..=MAX_MISMATCHES).contains(&mismatches.len()), "so many and no more");
    for mismatch in mismatches {
        shown::check(&mismatch.to_string());
        shown::check(&mismatch.rule);
    }
}

/// Each argument of a group's is one argument, as often as the group stands; what begins with `-` does so by the file's word.
fn expanded(tool: &Tool, parameters: &serde_json::Map<String, Value>, made: &Expanded) {
    let mut arguments = made.arguments.iter();
    assert_eq!(arguments.next().map(Vec::as_slice), Some(tool.template.program.as_bytes()));
    for group in &tool.template.groups {
        let times = stands(group, parameters);
        for (time, argument) in (0..times).flat_map(|time| group.iter().map(move |argument| (time, argument)))
        {
            if matches!(argument.as_slice(), [Piece::Hole(Hole { kind: Kind::Flag, .. })]) {
                continue;
            }
            let made = arguments.next().expect("no argument is dropped");
            assert!(!made.contains(&0), "a zero byte ends an argument");
            if let Some(Piece::Literal(text)) = argument.first() {
                assert!(made.starts_with(text.as_bytes()));
            } else if made.starts_with(b"-") {
                let says = |piece: &Piece| matches!(piece, Piece::Hole(hole) if hole.is_option);
                match begins(argument, parameters, time) {
                    (_, Piece::Hole(hole)) => assert!(hole.is_option, "{hole:?}"),
                    // What the file says, behind values that are empty.
                    (at, Piece::Literal(_)) => assert!(argument[..at].iter().any(says), "{argument:?}"),
                }
            }
        }
    }
    assert_eq!(arguments.next(), None, "no argument is added");
    assert!(made.openings.iter().all(|opening| is_workspace_path(&opening.path.to_text())));
    if let Input::File(path) = &made.stdin {
        assert!(is_workspace_path(path));
    }
}

/// Where an argument's first byte comes from. `time`: which of a list's elements stands in it.
fn begins<'a>(
    argument: &'a [Piece],
    parameters: &serde_json::Map<String, Value>,
    time: usize,
) -> (usize, &'a Piece) {
    let is_empty = |piece: &Piece| match piece {
        Piece::Literal(text) => text.is_empty(),
        Piece::Hole(hole) => {
            let value = parameters.get(&hole.name);
            let value = if hole.is_list { value.and_then(|list| list.get(time)) } else { value };
            value.and_then(Value::as_str).is_some_and(str::is_empty)
        }
    };
    argument.iter().enumerate().find(|(_, piece)| !is_empty(piece)).expect("it isn't empty")
}

fn stands(group: &[Vec<Piece>], parameters: &serde_json::Map<String, Value>) -> usize {
    let mut times = 1;
    for piece in group.iter().flatten() {
        let Piece::Hole(hole) = piece else { continue };
        match parameters.get(&hole.name) {
            None | Some(Value::Bool(false)) => return 0,
            Some(Value::Array(list)) => times = list.len(),
            Some(_) => {}
        }
    }
    times
}
