//! Policies and what was resolved of them: a repeated request costs a look-up.
//!
//! A policy resolves to the same for the same subject ([`stockade_policies::Confines::of`] is pure), so what came of it is kept, in a bounded
//! table. The table owns the set of policies: a set that comes in its place brings an empty table, and nothing that an old
//! set said is ever given out again.

use std::collections::HashMap;
use std::sync::Arc;

use stockade_policies::{PolicySet, Subject};
use stockade_protocol::denied::Denied;
use stockade_protocol::launch::SpecNumber;

use crate::admission::{Confining, Numbered, confines_of};

/// The most that is kept. Where there is no more room, whoever has most gives up what he used least lately: an owner of many
/// workspaces takes no place of one who has few.
pub(crate) const KEPT: usize = 128;
/// The largest spec that is kept, in bytes of its message: workspaces with long names times policies with many paths.
pub(crate) const LARGEST: usize = 32 * 1024;

/// Policies, and what they were resolved to.
#[derive(Debug)]
pub(crate) struct Specs {
    policies: PolicySet,
    kept: HashMap<Key, Kept>,
    /// Counts what is asked for.
    clock: u64,
    /// The last number: none is used again, whatever becomes of the table.
    last: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    policy: String,
    subject: Subject,
}

#[derive(Debug)]
struct Kept {
    numbered: Numbered,
    /// When it was asked for last.
    used: u64,
}

impl Specs {
    pub(crate) fn new(policies: PolicySet) -> Self {
        Self { policies, kept: HashMap::new(), clock: 0, last: 0 }
    }

    /// The policies there are.
    pub(crate) fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// Puts another set in the old one's place.
    pub(crate) fn replace(&mut self, policies: PolicySet) {
        self.policies = policies;
        self.kept.clear();
    }

    /// Makes room for one more of an owner's.
    fn make_room(&mut self, owner: u32) {
        if self.kept.len() < KEPT {
            return;
        }
        let mut counts = HashMap::from([(owner, 1_usize)]);
        for key in self.kept.keys() {
            *counts.entry(key.subject.owner_uid).or_default() += 1;
        }
        let most = counts.values().copied().max();
        let goes = self
            .kept
            .iter()
            .filter(|(key, _)| counts.get(&key.subject.owner_uid).copied() == most)
            .min_by_key(|(_, kept)| kept.used);
        if let Some(key) = goes.map(|(key, _)| key.clone()) {
            self.kept.remove(&key);
        }
    }
}

impl Confining for &mut Specs {
    fn confines(&mut self, policy: &str, subject: Subject) -> Result<Numbered, Denied> {
        self.clock += 1;
        let key = Key { policy: policy.to_owned(), subject };
        if let Some(kept) = self.kept.get_mut(&key) {
            kept.used = self.clock;
            return Ok(kept.numbered.clone());
        }
        let confines = confines_of(&self.policies, policy, &key.subject)?;
        self.last += 1;
        let numbered = Numbered { number: SpecNumber(self.last), confines: Arc::new(confines) };
        if numbered.confines.encoded <= LARGEST {
            self.make_room(key.subject.owner_uid);
            self.kept.insert(key, Kept { numbered: numbered.clone(), used: self.clock });
        }
        Ok(numbered)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::PathBuf;

    use proptest::prelude::*;
    use stockade_policies::{Source, Trust};
    use stockade_protocol::client::{ExecRequest, OutputMode, Overrides, StdinMode, Workspace};
    use stockade_protocol::launch::{Launch, Owner};
    use stockade_protocol::spec::SandboxSpec;
    use stockade_protocol::{Bytes, ExecId};

    use super::*;
    use crate::admission::{Admitted, Caller, OutputRules, Passed, StdinPlan, admit};

    fn custom(text: &str) -> PolicySet {
        let source = Source {
            name: "custom".into(),
            file: "custom.toml".into(),
            text: text.into(),
            trust: Trust::Operator,
        };
        PolicySet::from_sources(vec![source]).unwrap()
    }

    fn subject(owner_uid: u32, workspace: &str) -> Subject {
        Subject {
            owner_uid,
            owner_gid: owner_uid,
            home: "/home/u".into(),
            workspace: workspace.into(),
            overrides: Overrides::default(),
            user_mode: false,
        }
    }

    fn number(specs: &mut Specs, owner: u32, workspace: usize) -> u64 {
        let subject = subject(owner, &format!("/work/{workspace}"));
        { specs }.confines("default", subject).unwrap().number.0
    }

    /// A request, for whom, and who asks.
    fn asked() -> impl Strategy<Value = (ExecRequest, Caller)> {
        const POLICIES: [&str; 6] = ["default", "strict", "minimal", "moderate", "custom", "no-such"];
        const WORKSPACES: [&str; 4] = ["/work/a", "/work/b", "/home/u/p", "/etc"];
        const CWDS: [&str; 4] = ["", "/work/a/src", "/work/a/secret/x", "/elsewhere"];
        let named = (0..POLICIES.len(), 0..WORKSPACES.len(), 0..CWDS.len());
        let limits = proptest::option::of(prop_oneof![Just(0), Just(1_000), Just(u64::MAX)]);
        let variable = (prop_oneof![Just("PATH"), Just("LANG"), Just("SECRET")], "[a-z]{0,3}");
        let given = (limits, proptest::collection::vec(variable, 0..3));
        let who = (1000..1003_u32, any::<bool>(), prop_oneof![Just("/home/u"), Just("/root"), Just("/")]);
        (named, given, who).prop_map(
            |((policy, workspace, cwd), (wall_ms, variables), (uid, user_mode, home))| {
                let environment =
                    variables.into_iter().map(|(name, value)| (name.into(), value.as_str().into())).collect();
                let request = ExecRequest {
                    request_id: 1,
                    argv: vec!["true".into()],
                    environment,
                    cwd: CWDS[cwd].into(),
                    policy: POLICIES[policy].into(),
                    workspace: Workspace::Path { path: WORKSPACES[workspace].into() },
                    overrides: Overrides { wall_ms, ..Overrides::default() },
                    stdin: StdinMode::None,
                    output: OutputMode::Stream,
                    detach: false,
                    tool: None,
                };
                let owner = Owner { uid, gid: uid, groups: Vec::new() };
                (request, Caller { owner, home: PathBuf::from(home), user_mode })
            },
        )
    }

    /// All of a launch but its number.
    fn judged(
        request: &ExecRequest,
        caller: &Caller,
        policies: impl Confining,
    ) -> Result<(Launch, Arc<SandboxSpec>, StdinPlan), Denied> {
        let id = ExecId::from_bytes([7; 16]);
        admit(request.clone(), id, caller, policies, &Passed::default(), OutputRules::default())
            .map(|Admitted { launch, spec, stdin, .. }| (launch, spec, stdin))
    }

    const FIRST: &str = "name = \"custom\"\nextends = \"default\"\n[filesystem]\ndeny = [\"secret\"]\n";
    const SECOND: &str = "name = \"custom\"\nextends = \"default\"\n[limits]\nwall-time = \"5s\"\n";

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_request_is_the_same_launch_with_the_table_and_without(
            before in proptest::collection::vec(asked(), 1..12),
            after in proptest::collection::vec(asked(), 1..12),
        ) {
            let mut specs = Specs::new(custom(FIRST));
            let mut numbers: HashMap<u64, Arc<SandboxSpec>> = HashMap::new();
            for (text, requests) in [(FIRST, before), (SECOND, after)] {
                let plain = custom(text);
                specs.replace(custom(text));
                // Each twice: the second is looked up.
                for (request, caller) in requests.iter().flat_map(|asked| [asked, asked]) {
                    match (judged(request, caller, &mut specs), judged(request, caller, &plain)) {
                        (Ok((mut kept, spec, stdin)), Ok((launch, plain, plain_stdin))) => {
                            let told = numbers.entry(kept.spec.0).or_insert_with(|| Arc::clone(&spec));
                            prop_assert_eq!(&**told, &*spec, "a number has two specs");
                            kept.spec = launch.spec;
                            prop_assert_eq!((kept, &*spec, stdin), (launch, &*plain, plain_stdin));
                        }
                        (Err(kept), Err(plain)) => prop_assert_eq!(kept, plain),
                        (kept, plain) => prop_assert!(false, "{:?} {:?}", kept, plain),
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_asked_for_again_is_looked_up() {
        let mut specs = Specs::new(PolicySet::shipped());
        let one = (&mut specs).confines("default", subject(1000, "/work")).unwrap();
        let again = (&mut specs).confines("default", subject(1000, "/work")).unwrap();
        assert_eq!(one.number, again.number);
        assert!(Arc::ptr_eq(&one.confines, &again.confines), "resolved twice");
        let other = (&mut specs).confines("strict", subject(1000, "/work")).unwrap();
        assert_ne!(one.number, other.number);
    }

    #[test]
    fn a_set_that_comes_in_place_of_another_leaves_nothing_of_it() {
        let mut specs = Specs::new(custom(FIRST));
        let old = (&mut specs).confines("custom", subject(1000, "/work")).unwrap();
        assert!(!old.confines.spec.deny.is_empty());
        specs.replace(custom(SECOND));
        let new = (&mut specs).confines("custom", subject(1000, "/work")).unwrap();
        assert!(new.confines.spec.deny.is_empty() && old.number != new.number);
        specs.replace(PolicySet::shipped());
        assert!((&mut specs).confines("custom", subject(1000, "/work")).is_err());
    }

    #[test]
    fn no_more_is_kept_than_the_bound_and_what_is_used_stays() {
        let mut specs = Specs::new(PolicySet::shipped());
        let first = number(&mut specs, 1000, 0);
        for workspace in 1..2 * KEPT {
            number(&mut specs, 1000, workspace);
            assert_eq!(number(&mut specs, 1000, 0), first);
            assert!(specs.kept.len() <= KEPT);
        }
    }

    #[test]
    fn an_owner_of_many_workspaces_takes_no_place_of_one_who_has_few() {
        let mut specs = Specs::new(PolicySet::shipped());
        let few: Vec<u64> = (0..3).map(|workspace| number(&mut specs, 1000, workspace)).collect();
        for workspace in 0..2 * KEPT {
            number(&mut specs, 1001, workspace);
        }
        let again: Vec<u64> = (0..3).map(|workspace| number(&mut specs, 1000, workspace)).collect();
        assert_eq!(few, again);
    }

    #[test]
    fn a_spec_of_unusual_size_is_given_and_not_kept() {
        let paths: Vec<String> = (0..400).map(|number| format!("\"{number:0200}\"")).collect();
        let text = format!(
            "name = \"custom\"\nextends = \"default\"\n[filesystem]\nprotect = [{}]\n",
            paths.join(",")
        );
        let mut specs = Specs::new(custom(&text));
        let given = (&mut specs).confines("custom", subject(1000, "/work")).unwrap();
        assert!(given.confines.encoded > LARGEST && specs.kept.is_empty());
    }

    /// The digest is of what is told: a launcher compares it first.
    #[test]
    fn a_spec_has_the_size_that_it_is_told_with() {
        let mut specs = Specs::new(PolicySet::shipped());
        let given = (&mut specs).confines("default", subject(1000, "/work")).unwrap();
        let encoded = stockade_protocol::codec::encode_launch(&given.confines.spec).unwrap();
        assert_eq!(encoded.len(), given.confines.encoded);
        assert_eq!(
            Bytes::from("/work"),
            given.confines.spec.mounts.iter().find(|mount| mount.target == "/work".into()).unwrap().target
        );
    }
}
