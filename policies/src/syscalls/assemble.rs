//! Makes BPF programs (linux/filter.h): a tree over numbers by hand, rules on arguments by seccompiler.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use stockade_protocol::spec::BpfInstruction;

use super::arguments::{Rule, Test};
use super::table::Arch;

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

/// What the `numbers` program answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    Errno(u16),
}

impl Answer {
    fn code(self) -> u32 {
        match self {
            Self::Allow => RET_ALLOW,
            Self::Errno(errno) => RET_ERRNO | u32::from(errno),
        }
    }
}

/// A program that answers by number alone. Numbers not listed get `otherwise`.
pub(super) fn by_number(
    arch: Arch,
    answers: &BTreeMap<u32, Answer>,
    otherwise: Answer,
) -> Result<Vec<BpfInstruction>, String> {
    let mut program = vec![
        statement(LOAD_WORD, ARCH_OFFSET),
        BpfInstruction { code: JUMP_IF_EQUAL, jt: 1, jf: 0, k: arch.audit() },
        statement(RETURN, RET_KILL_PROCESS),
        statement(LOAD_WORD, NUMBER_OFFSET),
    ];
    program.extend(tree(&ranges(answers, otherwise)));
    bounded(program)
}

/// Ranges of equal answers that cover all numbers: where each begins, rising from 0.
fn ranges(answers: &BTreeMap<u32, Answer>, otherwise: Answer) -> Vec<(u32, Answer)> {
    let mut ranges: Vec<(u32, Answer)> = Vec::new();
    let mut push = |start: u32, answer: Answer| {
        if ranges.last().is_none_or(|(_, last)| *last != answer) {
            ranges.push((start, answer));
        }
    };
    let mut next = 0;
    for (number, answer) in answers {
        if *number > next {
            push(next, otherwise);
        }
        push(*number, *answer);
        next = number + 1;
    }
    push(next, otherwise);
    ranges
}

/// A balanced tree of comparisons over ranges, which mustn't be empty.
fn tree(ranges: &[(u32, Answer)]) -> Vec<BpfInstruction> {
    let middle = ranges.len() / 2;
    if middle == 0 {
        return ranges.iter().map(|(_, answer)| statement(RETURN, answer.code())).collect();
    }
    let (lower, upper) = (tree(&ranges[..middle]), tree(&ranges[middle..]));
    let start = ranges[middle].0;
    let mut program = Vec::with_capacity(lower.len() + upper.len() + 2);
    match u8::try_from(lower.len()) {
        Ok(distance) => {
            program.push(BpfInstruction { code: JUMP_IF_AT_LEAST, jt: distance, jf: 0, k: start });
        }
        Err(_) => {
            // A conditional jump reaches 255 instructions; an unconditional one reaches all.
            program.push(BpfInstruction { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: start });
            program.push(statement(JUMP, u32::try_from(lower.len()).unwrap_or(u32::MAX)));
        }
    }
    program.extend(lower);
    program.extend(upper);
    program
}

/// A program that refuses these calls whatever their arguments, others by argument, and allows everything else.
pub(super) fn refusing<'a>(
    arch: Arch,
    calls: impl Iterator<Item = &'a str>,
    rules: impl Iterator<Item = &'a Rule>,
    errno: i32,
) -> Result<Vec<BpfInstruction>, String> {
    let mut by_call: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in rules {
        let Some(number) = arch.number(rule.call) else { continue };
        let conditions = rule.conditions.iter().map(|(argument, test)| condition(*argument, *test));
        let conditions = conditions.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
        let compiled = SeccompRule::new(conditions).map_err(|error| error.to_string())?;
        by_call.entry(i64::from(number)).or_default().push(compiled);
    }
    // Last: a call that is refused whole needs none of its rules.
    by_call.extend(calls.filter_map(|call| Some((i64::from(arch.number(call)?), Vec::new()))));
    let refusal = SeccompAction::Errno(errno.unsigned_abs());
    let compiled = SeccompFilter::new(by_call, SeccompAction::Allow, refusal, arch.target())
        .and_then(BpfProgram::try_from)
        .map_err(|error| error.to_string())?;
    bounded(
        compiled
            .iter()
            .map(|one| BpfInstruction { code: one.code, jt: one.jt, jf: one.jf, k: one.k })
            .collect(),
    )
}

fn condition(argument: u8, test: Test) -> Result<SeccompCondition, seccompiler::BackendError> {
    let (operator, value) = match test {
        Test::Is(value) => (SeccompCmpOp::Eq, value),
        Test::IsNot(value) => (SeccompCmpOp::Ne, value),
        Test::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask.into()), value),
    };
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
}

fn statement(code: u16, k: u32) -> BpfInstruction {
    BpfInstruction { code, jt: 0, jf: 0, k }
}

fn bounded(program: Vec<BpfInstruction>) -> Result<Vec<BpfInstruction>, String> {
    if program.len() > MAX_INSTRUCTIONS {
        return Err(format!("{} instructions are over the kernel's {MAX_INSTRUCTIONS}", program.len()));
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syscalls::{Call, Verdict, evaluate};

    proptest::proptest! {
        #[test]
        fn tree_answers_every_number_as_its_map_does(
            allowed in proptest::collection::btree_set(0u32..600, 0..300),
            refused in proptest::collection::btree_set(0u32..600, 0..300),
            probes in proptest::collection::vec(proptest::num::u32::ANY, 20),
        ) {
            let mut answers: BTreeMap<u32, Answer> = refused.iter().map(|n| (*n, Answer::Errno(1))).collect();
            answers.extend(allowed.iter().map(|n| (*n, Answer::Allow)));
            let program = vec![by_number(Arch::X86_64, &answers, Answer::Errno(38)).unwrap()];
            for number in (0..610).chain(probes).chain([0x4000_0000, u32::MAX]) {
                let expected = match answers.get(&number) {
                    Some(Answer::Allow) => Verdict::Allow,
                    Some(Answer::Errno(errno)) => Verdict::Errno(*errno),
                    None => Verdict::Errno(38),
                };
                let call = Call { arch: Arch::X86_64.audit(), number, ..Call::default() };
                proptest::prop_assert_eq!(evaluate(&program, &call), expected);
            }
        }
    }
}
