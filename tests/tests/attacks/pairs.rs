//! The other halves: without its layers each attack is possible, and each layer that the table names stops it alone.

use std::collections::BTreeMap;

use stockade_tests::{Ended, Ground, Person, not_tested};

use crate::alone::{self, Alone};
use crate::stage::Stage;
use crate::table::{self, Attack, Layer, Twin};
use crate::tries;

type Answers = BTreeMap<String, String>;

/// The attacks that can be told apart here: those without layers, possible in a run without them.
fn all() -> Vec<&'static Attack> {
    table::all().collect()
}

fn with_alone(person: Person, alone: Alone) -> Answers {
    let ground = Ground::new(person);
    let stage = Stage::new(&ground);
    let words = tries::command(&ground, &stage, &all());
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    tries::answers(&alone::run(&ground, alone, &words))
}

fn outside(person: Person) -> Answers {
    let ground = Ground::new(person);
    let stage = Stage::new(&ground);
    let words = tries::command(&ground, &stage, &all());
    let mut command = ground.command(&words[0]);
    command.args(&words[1..]);
    tries::answers(&Ended::of(command).text())
}

#[test]
fn attacks_are_possible_where_the_layers_are_missing() {
    if cfg!(not(target_arch = "x86_64")) {
        not_tested("twins of attacks by system call number", "the probe has the numbers of x86-64");
        return;
    }
    let mut possible = 0;
    for twin in [Twin::Bare, Twin::User, Twin::Root] {
        let found = match twin {
            Twin::Bare => with_alone(Person::user(), Alone::Nothing),
            Twin::User => outside(Person::user()),
            Twin::Root if Person::me().is_root() => outside(Person::me()),
            Twin::Root => Answers::new(),
        };
        for attack in table::all().filter(|attack| attack.twin == twin) {
            if tries::is_possible(attack, &found) {
                possible += 1;
                continue;
            }
            let why = match found.get(attack.name) {
                Some(answer) => format!("this machine refuses it {}, too: {answer}", twin.name()),
                None if found.is_empty() => "outside it needs root".to_owned(),
                None => panic!("{}: nothing was answered {}", attack.name, twin.name()),
            };
            not_tested(&format!("twin of {}", attack.name), &why);
        }
    }
    // Root's part is the smaller one.
    assert!(possible >= 150, "only {possible} attacks are possible anywhere: this proves little");
}

#[test]
fn each_layer_stops_alone_what_the_table_says_it_stops() {
    if cfg!(not(target_arch = "x86_64")) {
        not_tested("layers alone", "the probe has the numbers of x86-64");
        return;
    }
    let mut wrong = Vec::new();
    let people = if Person::me().is_root() { vec![Person::user(), Person::me()] } else { vec![Person::me()] };
    for person in people {
        let nothing = with_alone(person, Alone::Nothing);
        let filters = ["default", "moderate", "minimal", "test-ports"];
        for alone in [Alone::Namespaces, Alone::Landlock].into_iter().chain(filters.map(Alone::Filter)) {
            let found = with_alone(person, alone);
            // What the kernel refuses to this person in any case, no layer stops.
            let told = table::all().filter(|attack| tries::is_possible(attack, &nothing));
            for attack in told.filter(|attack| stops(attack, alone)) {
                if !tries::is_stopped(attack, &found) {
                    let answer = tries::told(attack, &found);
                    wrong.push(format!("{alone:?}, {person:?}: {}: {answer}", attack.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} not stopped:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether the table says that these layers alone stop an attack.
fn stops(attack: &Attack, alone: Alone) -> bool {
    let has = |layer: Layer| attack.by.contains(&layer);
    match alone {
        Alone::Nothing => false,
        Alone::Namespaces => has(Layer::Namespaces),
        Alone::Landlock => has(Layer::Landlock),
        // The last one promised is the one with the fewest namespaces.
        Alone::Filter(policy) if has(Layer::FlatFilter) => attack.policies.last() == Some(&policy),
        Alone::Filter(policy) => has(Layer::Filter) && attack.policies.contains(&policy),
    }
}

#[test]
fn table_tries_each_thing_once_and_says_why_where_it_promises_nothing() {
    let mut names = std::collections::BTreeSet::new();
    for attack in table::all() {
        assert!(names.insert(attack.name), "{} stands there twice", attack.name);
        let everywhere = table::COLUMNS.iter().all(|policy| attack.policies.contains(policy));
        assert_eq!(everywhere, attack.gap.is_empty(), "{}", attack.name);
        assert!(!attack.by.is_empty() && !attack.policies.is_empty(), "{}", attack.name);
        let identity = attack.by.contains(&Layer::Identity);
        assert!(!identity || attack.twin != Twin::Bare, "{}: every run has an identity", attack.name);
    }
    assert!(names.len() >= 150, "only {} attacks", names.len());
}
