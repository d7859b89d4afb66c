//! The rules on arguments, compiled by seccompiler: `src/syscalls/table.rs` includes what is made here.
//!
//! A rule is the same on every architecture, because arguments are at the same places. Each is compiled once and says
//! in which variants of a filter it stands; a filter is then put together by copying.

use std::fmt::Write as _;

use seccompiler::{
    BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter,
};

use crate::arguments::{Refusal, Rule, Test, Variant, rules};

// linux/bpf_common.h and linux/seccomp.h
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const RET_ERRNO: u32 = 0x0005_0000;
// asm-generic/errno-base.h and asm-generic/errno.h
const EPERM: u32 = 1;
const EAFNOSUPPORT: u32 = 97;

/// The rules as Rust. `names`: of all calls, sorted.
pub(crate) fn compiled(names: &[&str]) -> Result<String, String> {
    let mut all = all()?;
    // A call's together, and of these first the families that aren't there.
    all.sort_by_key(|(rule, _)| (rule.call, rule.refusal == Refusal::NotPermitted));
    let (mut table, mut code, mut start) = (String::new(), String::new(), 0);
    for (rule, variants) in &all {
        let call = names.binary_search(&rule.call).map_err(|_| format!("no call is named {}", rule.call))?;
        let program = program(rule).map_err(|error| format!("a rule of {}: {error}", rule.call))?;
        for sock_filter { code: operation, jt, jf, k } in &program {
            let _ = writeln!(code, "    BpfInstruction {{ code: {operation}, jt: {jt}, jf: {jf}, k: {k} }},");
        }
        let (site, end) = (rule.site, start + program.len());
        let _ = writeln!(
            table,
            "    Compiled {{ call: Call({call}), variants: {variants}, site: Site::{site:?}, start: {start}, end: {end} }},"
        );
        start = end;
    }
    let count = all.len();
    Ok(format!(
        "static RULES: [Compiled; {count}] = [\n{table}];\nstatic CODE: [BpfInstruction; {start}] = [\n{code}];\n"
    ))
}

/// Every rule of every variant, with the bits of the variants that have it.
fn all() -> Result<Vec<(Rule, u16)>, String> {
    let mut all: Vec<(Rule, u16)> = Vec::new();
    for number in 0..16_u8 {
        let [minimal, network, internet, plain_tcp] = [8, 4, 2, 1].map(|bit| number & bit != 0);
        let variant = Variant { minimal, network, internet, plain_tcp };
        for rule in rules(variant) {
            match all.iter_mut().find(|(known, _)| *known == rule) {
                Some((_, variants)) if *variants & variant.bit() != 0 => {
                    return Err(format!("a rule of {} stands twice in {variant:?}", rule.call));
                }
                Some((_, variants)) => *variants |= variant.bit(),
                None => all.push((rule, variant.bit())),
            }
        }
    }
    Ok(all)
}

/// A rule's instructions: what seccompiler makes of it goes on behind its end where all conditions hold, and otherwise
/// one instruction further: over the answer.
fn program(rule: &Rule) -> Result<Vec<sock_filter>, BackendError> {
    let conditions = rule.conditions.iter().map(|(argument, test)| condition(*argument, *test));
    let compiled = BpfProgram::from(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?);
    let errno = match rule.refusal {
        Refusal::NotPermitted => EPERM,
        Refusal::NoFamily => EAFNOSUPPORT,
    };
    let mut program = match compiled.as_slice() {
        // It begins with a jump over one instruction, which nothing else reaches: programs only jump forward.
        [jump, _, rest @ ..] if jump.code == JUMP && jump.k == 1 => rest.to_vec(),
        whole => whole.to_vec(),
    };
    program.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: RET_ERRNO | errno });
    Ok(program)
}

fn condition(argument: u8, test: Test) -> Result<SeccompCondition, BackendError> {
    let (operator, value) = match test {
        Test::Is(value) => (SeccompCmpOp::Eq, value),
        Test::IsNot(value) => (SeccompCmpOp::Ne, value),
        Test::Masked(mask, value) => (SeccompCmpOp::MaskedEq(mask.into()), value),
    };
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value.into())
}
