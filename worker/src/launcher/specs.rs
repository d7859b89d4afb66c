//! The specs that the supervisor has told, by number: checked when they come, so that a launch which names one is only looked
//! up. One that isn't permitted stays as its refusal: every run that names it is told why.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use stockade_protocol::bounds::MAX_SPECS;
use stockade_protocol::confinement::Plan;
use stockade_protocol::launch::SpecNumber;
use stockade_protocol::outcome::SetupStage;
use stockade_protocol::spec::SandboxSpec;

use super::check::{self, Permitted};
use crate::failure::{Staged, failed};

/// What is known, at most [`MAX_SPECS`].
#[derive(Debug, Default)]
pub(super) struct Specs(HashMap<SpecNumber, Staged<Permitted>>);

impl Specs {
    /// Takes a spec. `plan`: of levels with namespaces.
    pub(super) fn take(&mut self, number: SpecNumber, spec: Arc<SandboxSpec>, plan: Plan) {
        let room = self.0.len() < MAX_SPECS;
        match self.0.entry(number) {
            // Nobody can say which of the two a run would mean.
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = Err(failed(SetupStage::Check, libc::EINVAL, "spec was told twice"));
            }
            Entry::Vacant(entry) if room => {
                entry.insert(check::permit(spec, plan));
            }
            // Whoever names it is told that it isn't known.
            Entry::Vacant(_) => {}
        }
    }

    /// No run names it any more.
    pub(super) fn forget(&mut self, number: SpecNumber) {
        self.0.remove(&number);
    }

    /// A spec that was told and is permitted.
    ///
    /// # Errors
    /// `Check`: it isn't, or was never told.
    pub(super) fn find(&self, number: SpecNumber) -> Staged<Permitted> {
        let unknown = || Err(failed(SetupStage::Check, libc::EINVAL, "spec isn't known"));
        self.0.get(&number).cloned().unwrap_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use stockade_protocol::spec::{
        IoPriority, Level, Limits, NetworkMode, NetworkSpec, Ports, RunAs, SeccompSpec,
    };

    use super::*;

    fn spec(policy: &str, run_as: RunAs) -> Arc<SandboxSpec> {
        Arc::new(SandboxSpec {
            policy: policy.into(),
            digest: [0; 32],
            level: Level::Strict,
            mounts: Vec::new(),
            deny: Vec::new(),
            deny_elsewhere: Vec::new(),
            protect: Vec::new(),
            network: NetworkSpec { mode: NetworkMode::None, tcp_connect: Ports::Any, tcp_bind: Ports::Any },
            limits: Limits {
                wall_ms: None,
                cpu_ms: None,
                idle_ms: None,
                memory: None,
                processes: 1,
                open_files: 16,
                file_size: None,
                output: None,
                stdin: None,
                core: 0,
                stack: 8 << 20,
                address_space: None,
                nice: 0,
                io_priority: IoPriority::Idle,
            },
            seccomp: SeccompSpec { base: Vec::new(), delta: Vec::new(), rules: 0 },
            run_as,
            hostname: "stockade".into(),
        })
    }

    fn subject(found: Staged<Permitted>) -> String {
        found.unwrap_err().subject.to_text()
    }

    const ONE: SpecNumber = SpecNumber(1);

    #[test]
    fn a_spec_is_found_by_its_number_until_it_is_forgotten() {
        let mut specs = Specs::default();
        assert_eq!(subject(specs.find(ONE)), "spec isn't known");
        specs.take(ONE, spec("one", RunAs::Caller), Plan::User);
        specs.take(SpecNumber(2), spec("two", RunAs::Caller), Plan::User);
        assert_eq!(specs.find(ONE).unwrap().into_parts().0.policy, "one");
        specs.forget(ONE);
        assert_eq!(subject(specs.find(ONE)), "spec isn't known");
        assert_eq!(specs.find(SpecNumber(2)).unwrap().into_parts().0.policy, "two");
    }

    #[test]
    fn what_is_not_permitted_is_refused_each_time_with_its_reason() {
        let mut specs = Specs::default();
        let people = RunAs::Ephemeral { start: 1_000, count: 10 };
        specs.take(ONE, spec("one", people), Plan::System);
        for _ in 0..2 {
            assert_eq!(subject(specs.find(ONE)), "run-as range");
        }
        // The twin: where no run gets a uid of its own, the range doesn't count.
        specs.take(SpecNumber(2), spec("one", people), Plan::User);
        assert!(specs.find(SpecNumber(2)).is_ok());
    }

    #[test]
    fn a_number_with_two_specs_has_none() {
        let mut specs = Specs::default();
        specs.take(ONE, spec("one", RunAs::Caller), Plan::User);
        specs.take(ONE, spec("other", RunAs::Caller), Plan::User);
        assert_eq!(subject(specs.find(ONE)), "spec was told twice");
    }

    #[test]
    fn no_more_is_remembered_than_the_bound() {
        let mut specs = Specs::default();
        for number in 0..=MAX_SPECS as u64 {
            specs.take(SpecNumber(number), spec("one", RunAs::Caller), Plan::User);
        }
        assert!(specs.find(SpecNumber(0)).is_ok());
        assert_eq!(subject(specs.find(SpecNumber(MAX_SPECS as u64))), "spec isn't known");
        specs.forget(SpecNumber(0));
        specs.take(SpecNumber(1_000), spec("one", RunAs::Caller), Plan::User);
        assert!(specs.find(SpecNumber(1_000)).is_ok());
    }
}
