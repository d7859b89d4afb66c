//! Makes BPF programs (linux/filter.h): a tree over numbers, and behind it the rules on arguments, which the build
//! has compiled with seccompiler.
//!
//! ```text
//! architecture? ── another: kill
//! number: tree ──┬─> allow, or an errno: each stands once, as long as it is near
//!                └─> rules: an errno, or allow
//! ```
//!
//! What it costs to install a program is by its length, so nothing stands twice that can be jumped to.

use core::ops::Range;

use super::arguments::{Site, Variant};
use super::sets::{Arch, Call, Calls};
use super::table::{BpfInstruction, compiled_rules};

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
    let mut backwards = Backwards::new(checks, ranges.len());
    backwards.tree(ranges);
    // What is to be met first is put down last.
    backwards.code.extend([
        statement(LOAD_WORD, NUMBER_OFFSET),
        statement(RETURN, RET_KILL_PROCESS),
        BpfInstruction { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: arch.audit() },
        statement(LOAD_WORD, ARCH_OFFSET),
    ]);
    let mut program = backwards.code;
    program.reverse();
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

/// How many instructions there are from one to the program's end, itself included: what it's called by while it's not
/// known yet what will stand before it.
type Height = usize;

/// A program that is written from its end to its beginning: jumps lead forward only, so where each leads is there already.
struct Backwards {
    /// The last instruction first.
    code: Vec<BpfInstruction>,
    checks: usize,
    /// Where each leaf was put down last.
    leaves: Vec<(Leaf, Height)>,
}

impl Backwards {
    /// Behind it the checks. `ranges`: how many the tree will have.
    fn new(checks: &[BpfInstruction], ranges: usize) -> Self {
        let mut code = Vec::with_capacity(checks.len() + 2 * ranges);
        code.extend(checks.iter().rev());
        Self { code, checks: checks.len(), leaves: Vec::new() }
    }

    fn put(&mut self, instruction: BpfInstruction) -> Height {
        self.code.push(instruction);
        self.code.len()
    }

    /// Over how many instructions the next to be put down would jump to get there.
    fn distance(&self, target: Height) -> usize {
        self.code.len() - target
    }

    /// Whether a conditional jump gets there, also if another instruction comes before it.
    fn is_near(&self, target: Height) -> bool {
        self.distance(target) < u8::MAX.into()
    }

    /// The target, or a jump to it where it's too far for a conditional jump.
    fn near(&mut self, target: Height) -> Height {
        if self.is_near(target) { target } else { self.put(jump(self.distance(target))) }
    }

    /// A leaf that is near.
    fn leaf(&mut self, leaf: Leaf) -> Height {
        let known = self.leaves.iter().position(|(known, _)| *known == leaf);
        let there = known.map(|at| self.leaves[at].1);
        let height = match (leaf, there) {
            (_, Some(there)) if self.is_near(there) => there,
            (Leaf::Answer(answer), _) => self.put(answer.returned()),
            (Leaf::Check(at), there) => self.near(there.unwrap_or(self.checks - at)),
        };
        match known {
            Some(at) => self.leaves[at].1 = height,
            None => self.leaves.push((leaf, height)),
        }
        height
    }

    /// A balanced tree of comparisons over ranges: its first instruction is what was put down last.
    fn tree(&mut self, ranges: &[(u32, Leaf)]) {
        let root = self.branch(ranges);
        if root != self.code.len() {
            self.put(jump(self.distance(root)));
        }
    }

    fn branch(&mut self, ranges: &[(u32, Leaf)]) -> Height {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        let Some((start, leaf)) = upper.first().copied() else { return self.code.len() };
        if lower.is_empty() {
            return self.leaf(leaf);
        }
        // What was put down last costs no jump, so a leaf comes before a branch.
        let (below, above) = if lower.len() == 1 {
            let below = self.branch(lower);
            (below, self.branch(upper))
        } else {
            let above = self.branch(upper);
            (self.branch(lower), above)
        };
        let (below, above) = (self.near(below), self.near(above));
        let distance = |target| u8::try_from(self.distance(target)).unwrap_or(u8::MAX);
        let (jt, jf) = (distance(above), distance(below));
        self.put(BpfInstruction { code: JUMP_IF_AT_LEAST, jt, jf, k: start })
    }
}

/// Rules on arguments, compiled.
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
        // Many calls have the same.
        let mut there: Vec<(Range<u16>, usize)> = Vec::new();
        for (call, range, code) in compiled_rules(variant, site).filter(|(call, ..)| calls.has(*call)) {
            let Some(number) = arch.number_of(call) else { continue };
            let known = there.iter().find(|(known, _)| *known == range).map(|(_, start)| *start);
            let start = known.unwrap_or(checks.code.len());
            if known.is_none() {
                checks.code.extend_from_slice(code);
                there.push((range, start));
            }
            checks.calls.insert(call);
            checks.starts.push((number, start));
        }
        checks.starts.sort_unstable();
        checks
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
