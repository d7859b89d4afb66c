//! Makes BPF programs (linux/filter.h): a tree over numbers, and behind it the rules on arguments, which the build
//! has compiled with seccompiler.
//!
//! ```text
//! architecture? ── another: kill
//! number: tree ──┬─ leaf: allow, or an errno
//!                └─ leaf: jump ──> rule: conditions hold: its errno ── not ──> next rule ──> allow
//! ```

use stockade_protocol::spec::BpfInstruction;

use super::arguments::{Site, Variant};
use super::table::{Arch, Call, Calls, compiled_rules};

/// The kernel's bound on one program (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

// linux/bpf_common.h and linux/seccomp.h
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const NUMBER_OFFSET: u32 = 0;
const ARCH_OFFSET: u32 = 4;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
/// How many instructions stand before the tree.
const HEAD: usize = 4;
/// So many ranges make a tree of at most 255 instructions, over which a conditional jump reaches.
const NEAR: usize = 128;
/// Room for the ranges of any policy of today; not a bound.
const RANGES: usize = 256;

/// What a call is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    Errno(u16),
}

impl Answer {
    fn returned(self) -> BpfInstruction {
        match self {
            Self::Allow => statement(RETURN, RET_ALLOW),
            Self::Errno(errno) => statement(RETURN, RET_ERRNO | u32::from(errno)),
        }
    }
}

/// Where the tree leads for a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaf {
    Answer(Answer),
    /// To the rules that begin here in [`Checks::code`].
    Check(usize),
}

/// A program that gives each call its answer, but asks the checks of allowed ones. Numbers that no call has get
/// `otherwise`.
pub(super) fn program(
    arch: Arch,
    answer: impl Fn(Call) -> Answer,
    otherwise: Answer,
    checks: &Checks,
) -> Result<Vec<BpfInstruction>, String> {
    let leaf = |(number, call)| match answer(call) {
        Answer::Allow => (number, checks.leaf(number, call)),
        refused @ Answer::Errno(_) => (number, Leaf::Answer(refused)),
    };
    assembled(arch, &ranges(arch.by_number().map(leaf), Leaf::Answer(otherwise)), &checks.code)
}

fn assembled(
    arch: Arch,
    ranges: &[(u32, Leaf)],
    checks: &[BpfInstruction],
) -> Result<Vec<BpfInstruction>, String> {
    let mut program = Vec::with_capacity(HEAD + tree_length(ranges.len()) + checks.len());
    program.extend([
        statement(LOAD_WORD, ARCH_OFFSET),
        BpfInstruction { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: arch.audit() },
        statement(RETURN, RET_KILL_PROCESS),
        statement(LOAD_WORD, NUMBER_OFFSET),
    ]);
    tree(&mut program, ranges, HEAD + tree_length(ranges.len()));
    program.extend_from_slice(checks);
    if program.len() > MAX_INSTRUCTIONS {
        return Err(format!("{} instructions are over the kernel's {MAX_INSTRUCTIONS}", program.len()));
    }
    Ok(program)
}

/// Ranges of equal leaves that cover all numbers: where each begins, rising from 0. Leaves by rising number.
fn ranges(leaves: impl Iterator<Item = (u32, Leaf)>, otherwise: Leaf) -> Vec<(u32, Leaf)> {
    let mut ranges: Vec<(u32, Leaf)> = Vec::with_capacity(RANGES);
    let mut push = |start: u32, leaf: Leaf| {
        if ranges.last().is_none_or(|(_, last)| *last != leaf) {
            ranges.push((start, leaf));
        }
    };
    let mut next = 0;
    for (number, leaf) in leaves {
        if number > next {
            push(next, otherwise);
        }
        push(number, leaf);
        next = number + 1;
    }
    push(next, otherwise);
    ranges
}

/// Appends a balanced tree of comparisons over ranges. `checks`: where in the program the rules will begin.
fn tree(program: &mut Vec<BpfInstruction>, ranges: &[(u32, Leaf)], checks: usize) {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let Some((start, leaf)) = upper.first().copied() else { return };
    if lower.is_empty() {
        program.push(match leaf {
            Leaf::Answer(answer) => answer.returned(),
            Leaf::Check(at) => jump(checks + at - (program.len() + 1)),
        });
        return;
    }
    let distance = tree_length(lower.len());
    match u8::try_from(distance) {
        Ok(jt) => program.push(BpfInstruction { code: JUMP_IF_AT_LEAST, jt, jf: 0, k: start }),
        Err(_) => {
            // A conditional jump reaches 255 instructions; an unconditional one reaches all.
            program.push(BpfInstruction { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: start });
            program.push(jump(distance));
        }
    }
    tree(program, lower, checks);
    tree(program, upper, checks);
}

/// How many instructions [`tree`] makes of so many ranges.
fn tree_length(ranges: usize) -> usize {
    // One for each range and one between two, as long as every jump is near.
    if ranges <= NEAR {
        return (2 * ranges).saturating_sub(1);
    }
    let lower = tree_length(ranges / 2);
    let far = usize::from(u8::try_from(lower).is_err());
    1 + far + lower + tree_length(ranges - ranges / 2)
}

/// Rules on arguments, compiled: for each call that has some, one after another, and then allow.
pub(super) struct Checks {
    code: Vec<BpfInstruction>,
    /// The calls that have some, and by number where each one's begin.
    calls: Calls,
    starts: Vec<(u32, usize)>,
}

impl Checks {
    /// The rules of one filter that are about these calls.
    pub(super) fn new(arch: Arch, variant: Variant, site: Site, calls: &Calls) -> Self {
        let mut checks = Self { code: Vec::new(), calls: Calls::default(), starts: Vec::new() };
        let mut last = None;
        for (call, code) in compiled_rules(variant, site).filter(|(call, _)| calls.has(*call)) {
            let Some(number) = arch.number_of(call) else { continue };
            if last != Some(call) {
                checks.end();
                checks.calls.insert(call);
                checks.starts.push((number, checks.code.len()));
                last = Some(call);
            }
            checks.code.extend_from_slice(code);
        }
        checks.end();
        checks.starts.sort_unstable();
        checks
    }

    /// What no rule of a call refuses is allowed.
    fn end(&mut self) {
        if !self.starts.is_empty() {
            self.code.push(Answer::Allow.returned());
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Where the tree leads for an allowed call.
    fn leaf(&self, number: u32, call: Call) -> Leaf {
        if !self.calls.has(call) {
            return Leaf::Answer(Answer::Allow);
        }
        match self.starts.binary_search_by_key(&number, |(number, _)| *number) {
            Ok(found) => Leaf::Check(self.starts[found].1),
            Err(_) => Leaf::Answer(Answer::Allow),
        }
    }
}

fn statement(code: u16, k: u32) -> BpfInstruction {
    BpfInstruction { code, jt: 0, jf: 0, k }
}

/// Over so many instructions: no program is near the 4 G that it could.
fn jump(distance: usize) -> BpfInstruction {
    statement(JUMP, u32::try_from(distance).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscalls::{Call, Verdict, evaluate};

    fn leaf(kind: u8) -> Leaf {
        match kind {
            0 => Leaf::Answer(Answer::Allow),
            1 => Leaf::Answer(Answer::Errno(1)),
            // The two checks below: one instruction of return each.
            kind => Leaf::Check(usize::from(kind - 2)),
        }
    }

    proptest::proptest! {
        #[test]
        fn tree_answers_every_number_as_its_map_does(
            kinds in proptest::collection::btree_map(0u32..600, 0u8..4, 0..600),
            probes in proptest::collection::vec(proptest::num::u32::ANY, 20),
        ) {
            let checks = [Answer::Errno(7).returned(), Answer::Errno(8).returned()];
            let leaves = kinds.iter().map(|(number, kind)| (*number, leaf(*kind)));
            let ranges = ranges(leaves, Leaf::Answer(Answer::Errno(38)));
            let program = vec![assembled(Arch::X86_64, &ranges, &checks).unwrap()];
            for number in (0..610).chain(probes).chain([0x4000_0000, u32::MAX]) {
                let expected = match kinds.get(&number) {
                    Some(0) => Verdict::Allow,
                    Some(1) => Verdict::Errno(1),
                    Some(kind) => Verdict::Errno(5 + u16::from(*kind)),
                    None => Verdict::Errno(38),
                };
                let call = Call { arch: Arch::X86_64.audit(), number, ..Call::default() };
                proptest::prop_assert_eq!(evaluate(&program, &call), expected);
            }
        }
    }

    #[test]
    fn a_program_over_the_kernels_bound_is_refused() {
        let checks = vec![Answer::Allow.returned(); MAX_INSTRUCTIONS];
        assert!(assembled(Arch::X86_64, &[(0, Leaf::Answer(Answer::Allow))], &checks).is_err());
    }
}
