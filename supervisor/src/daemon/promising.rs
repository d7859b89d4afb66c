//! What a tool that has ended well has printed, held against what its file promises.

use stockade_gate::tools::{MAX_RESULT, Tool};
use stockade_protocol::client::{ResultCheck, Stream};

use super::printed::printed;
use crate::promised::Printed;
use crate::runs::Run;

/// Whether what a run printed is what its tool promises; `None`: it promises nothing.
pub(super) fn check(run: &Run, tool: &Tool) -> Option<ResultCheck> {
    tool.result.as_ref()?;
    let mut all = Printed::default();
    match printed(run, MAX_RESULT) {
        Ok(output) => all.feed(Stream::Stdout, &output),
        Err(why) => all.lose(why),
    }
    all.check(tool, run.redacting.is_some())
}
