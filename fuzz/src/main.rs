//! The fuzzer: libFuzzer over the target that `STOCKADE_FUZZ` names. Built and started by `fuzz/run.sh`.
#![no_main]
#![allow(clippy::expect_used, reason = "a fuzzer without a target has nothing to do")]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use stockade_fuzz::TARGETS;

static RUN: OnceLock<fn(&[u8])> = OnceLock::new();

fuzz_target!(
    init: {
        let name = std::env::var("STOCKADE_FUZZ").expect("STOCKADE_FUZZ names a target");
        let target = TARGETS.into_iter().find(|target| target.name == name).expect("a target of that name");
        RUN.get_or_init(|| target.run);
    },
    |data: &[u8]| {
        if let Some(run) = RUN.get() {
            run(data);
        }
    }
);
