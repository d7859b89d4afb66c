//! Many attacks in one run: the file that the probe reads, and the answers that it prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use stockade_tests::setting::text_of;
use stockade_tests::{Ended, Ground, Run, wait_until};

use crate::stage::Stage;
use crate::table::Attack;

/// The command that makes every try, after its file and what it needs have been put into the workspace.
pub(crate) fn command(ground: &Ground, stage: &Stage, attacks: &[&Attack]) -> Vec<String> {
    let mut text = String::new();
    for attack in attacks {
        let words = attack.words.split(' ').map(|word| stage.fill(ground, word));
        let _ = writeln!(text, "{}\t{}", attack.name, words.collect::<Vec<_>>().join("\t"));
    }
    let probe = text_of(&ground.put_probe());
    for name in ["mine", "mine2", "mine3", "yours"] {
        ground.put(name, "mine\n");
    }
    vec![probe, "tries".to_owned(), text_of(&ground.put("tries", text))]
}

/// Runs something to its end; again where there was no room for a process. At `minimal` the limit counts what else its user
/// runs, and that may be other tests.
pub(crate) fn finish<'a>(run: impl Fn() -> Run<'a>) -> Ended {
    let mut ended = run().finish();
    wait_until(Duration::from_secs(60), || {
        let no_room = ended.code == Some(126) && ended.errors().contains("Resource temporarily unavailable");
        if no_room {
            std::thread::sleep(Duration::from_millis(200));
            ended = run().finish();
        }
        !no_room
    });
    ended
}

/// The answers of a list by attack: `ok`, `errno=E`, `not-so`, `killed`.
pub(crate) fn answers(output: &str) -> BTreeMap<String, String> {
    let answer = |line: &str| {
        let (title, said) = line.split_once('\t')?;
        let word = said.split(' ').nth(1)?;
        Some((title.to_owned(), word.to_owned()))
    };
    output.lines().filter_map(answer).collect()
}

/// Whether an answer means that the attack was stopped; no answer means nothing.
pub(crate) fn is_stopped(attack: &Attack, answers: &BTreeMap<String, String>) -> bool {
    answers.get(attack.name).is_some_and(|answer| attack.stopped.contains(&answer.as_str()))
}

/// Whether an answer means that the kernel did or would have done it.
pub(crate) fn is_possible(attack: &Attack, answers: &BTreeMap<String, String>) -> bool {
    let is_answer = |answer: &String| answer == "ok" || answer.starts_with("errno=") || answer == "killed";
    answers
        .get(attack.name)
        .is_some_and(|answer| is_answer(answer) && !attack.stopped.contains(&answer.as_str()))
}

/// What was answered, for a failure's message.
pub(crate) fn told<'a>(attack: &Attack, answers: &'a BTreeMap<String, String>) -> &'a str {
    answers.get(attack.name).map_or("no answer", String::as_str)
}
