//! Reviewer programs of a file: which, how many of them have to say yes, how long they have, and what an asker may cost a day.
//!
//! What a program is (its command, its policy, its limits, the digest of its file) is for its tool's file to say: so it's confined
//! like any call of it, and there is one way to write that down.

use core::time::Duration;
use std::collections::BTreeSet;

use stockade_policies::amount::{TIME_EXPECTED, Time};
use stockade_policies::reader::{Known, Section};
use stockade_policies::{Located, Mistake, Position, Problem};

use super::file::{MAX_NAME, line, missing, noted, wrong};

/// The most reviewers of a file.
pub const MAX_REVIEWERS: usize = 16;
/// The most that one review costs, and that a day's budget is.
const MOST_COST: u64 = 1_000_000;
/// The shortest and the longest time for them.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// The time and the budget where the file doesn't say.
const USUAL_TIME: Duration = Duration::from_secs(30);
const USUAL_BUDGET: u32 = 100;

const REVIEWER: [&str; 3] = ["name", "tool", "cost"];
const REVIEWS: Known<'_> =
    Known { key: "reviews", name: "[reviews]", keys: &["needed", "within", "budget", "instead-of-people"] };

/// One program that is asked.
#[derive(Debug, Clone)]
pub struct Reviewer {
    /// As people are told of it.
    pub name: String,
    /// The tool that it is, of the same directory.
    pub tool: Located<String>,
    /// What asking it takes of an asker's budget.
    pub cost: u32,
}

/// The programs of a file, and what they decide.
#[derive(Debug, Clone)]
pub struct Reviews {
    /// All of them are asked; at least one, at most [`MAX_REVIEWERS`].
    pub reviewers: Vec<Reviewer>,
    /// So many of them have to say yes.
    pub needed: u32,
    /// And have so long for it.
    pub within: Duration,
    /// What an asker's questions may cost in a day.
    pub budget: u32,
    /// Whether nobody else is asked where they say yes.
    pub instead_of_people: bool,
}

impl Reviews {
    /// What one question costs.
    #[must_use]
    pub fn cost(&self) -> u32 {
        self.reviewers.iter().fold(0, |sum, one| sum.saturating_add(one.cost))
    }
}

/// The keys of the file that are read here.
pub(super) const KEYS: [&str; 2] = ["reviewer", "reviews"];

/// What a file says of them; `None`: it has none, or they aren't in order.
pub(super) fn read(root: &Section<'_>, mistakes: &mut Vec<Mistake>) -> Option<Reviews> {
    let before = mistakes.len();
    let tables = root.each("reviewer", "[[reviewer]]", &REVIEWER, mistakes);
    let section = root.table(&REVIEWS, mistakes);
    if let (Some(section), true, None) = (&section, tables.is_empty(), root.at("reviewer")) {
        let text = "[reviews] holds for nothing: there are no reviewers";
        mistakes.push(wrong(&section.start(), text, "write a `[[reviewer]]`, or take it out"));
    }
    if let Some((_, at)) = tables.get(MAX_REVIEWERS) {
        let problem =
            Problem::TooLarge { what: "reviewers".into(), count: tables.len(), limit: MAX_REVIEWERS };
        mistakes.push(Mistake::new(at, problem));
        return None;
    }
    let (mut names, mut tools, mut reviewers) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for (section, at) in &tables {
        let Some(one) = reviewer(section, at, mistakes) else { continue };
        if !names.insert(one.name.clone()) {
            let text = format!("there is a reviewer `{}` already", one.name);
            mistakes.push(wrong(at, text, "give each reviewer a name of its own"));
        }
        // Asked twice it would be two of the n that have to agree.
        if !tools.insert(one.tool.value.clone()) {
            let text = format!("the tool `{}` is another reviewer's already", one.tool.value);
            mistakes.push(wrong(&one.tool.at, text, "one program has one opinion: name another tool"));
        }
        reviewers.push(one);
    }
    let reviews = settings(section.as_ref(), reviewers, mistakes);
    let first = tables.first().map(|(_, at)| at)?;
    if mistakes.len() == before && reviews.cost() > reviews.budget {
        let text = format!("one question costs {} and a day's budget is {}", reviews.cost(), reviews.budget);
        mistakes.push(wrong(first, text, "raise `budget`, or lower costs"));
    }
    (mistakes.len() == before).then_some(reviews)
}

fn settings(section: Option<&Section<'_>>, reviewers: Vec<Reviewer>, mistakes: &mut Vec<Mistake>) -> Reviews {
    // Who doesn't say how many means all of them.
    let all = u32::try_from(reviewers.len()).unwrap_or(u32::MAX);
    let mut reviews = Reviews {
        reviewers,
        needed: all,
        within: USUAL_TIME,
        budget: USUAL_BUDGET,
        instead_of_people: false,
    };
    let Some(section) = section.filter(|_| all > 0) else { return reviews };
    let number = |key: &str, most: u64, mistakes: &mut Vec<Mistake>| {
        let read = noted(section.number(key, 1, most), mistakes)?;
        u32::try_from(read.value).ok()
    };
    reviews.needed = number("needed", all.into(), mistakes).unwrap_or(reviews.needed);
    reviews.budget = number("budget", MOST_COST, mistakes).unwrap_or(reviews.budget);
    let time = |text: &str| {
        let time = Duration::from_millis(Time::parse(text)?.milliseconds());
        if (SHORTEST..=LONGEST).contains(&time) {
            return Ok(time);
        }
        Err("it isn't from a second to an hour".to_owned())
    };
    let within = noted(section.text("within", TIME_EXPECTED, time), mistakes);
    reviews.within = within.map_or(reviews.within, |within| within.value);
    let instead = noted(section.truth("instead-of-people"), mistakes);
    reviews.instead_of_people = instead.is_some_and(|instead| instead.value);
    reviews
}

fn reviewer(section: &Section<'_>, at: &Position, mistakes: &mut Vec<Mistake>) -> Option<Reviewer> {
    let named = |key: &str, mistakes: &mut Vec<Mistake>| {
        let expected = format!("1 to {MAX_NAME} bytes of text");
        let read = noted(section.text(key, expected.as_str(), |text| line(text, MAX_NAME)), mistakes);
        if read.is_none() && section.at(key).is_none() {
            mistakes.push(missing(at, key, &expected));
        }
        read
    };
    let (name, tool) = (named("name", mistakes), named("tool", mistakes));
    let cost = noted(section.number("cost", 1, MOST_COST), mistakes);
    if cost.is_none() && section.at("cost").is_none() {
        mistakes.push(missing(at, "cost", "a whole number: what asking it takes of an asker's budget"));
    }
    Some(Reviewer { name: name?.value, tool: tool?, cost: u32::try_from(cost?.value).ok()? })
}
