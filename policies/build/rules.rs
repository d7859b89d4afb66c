//! The rules on arguments, compiled by seccompiler: `src/syscalls/table.rs` includes what is made here.
//!
//! A rule is the same on every architecture, because arguments are at the same places. A call's are compiled together for
//! each variant of a filter that has other ones, and shortened (`shorten`); a filter is then put together by copying.

use std::fmt::Write as _;
use std::ops::Range;

use seccompiler::{
    BackendError, BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule, sock_filter,
};

use crate::arguments::{Refusal, Rule, Site, Test, Variant, rules};
use crate::shorten::shorten;

// linux/bpf_common.h and linux/seccomp.h
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
// asm-generic/errno-base.h and asm-generic/errno.h
const EPERM: u32 = 1;
const EAFNOSUPPORT: u32 = 97;

/// The rules, compiled.
pub(crate) struct Compiled {
    /// A call's at a site: in which variants they are these (by their bits), and where in `code` they stand.
    pub(crate) checks: Vec<(usize, u16, Site, Range<usize>)>,
    pub(crate) code: Vec<sock_filter>,
    /// How many there are, by variant.
    counts: Vec<usize>,
}

/// Compiles the rules. `names`: of all calls, sorted.
pub(crate) fn compiled(names: &[&str]) -> Result<Compiled, String> {
    let mut all = all()?;
    // A call's together, and of these first the families that aren't there.
    all.sort_by_key(|(rule, _)| (rule.call, rule.refusal == Refusal::NotPermitted));
    let (mut checked, mut code) = (Vec::new(), Vec::new());
    for site in [Site::Base, Site::Delta] {
        for of_one in all.chunk_by(|(one, _), (other, _)| one.call == other.call) {
            let name = of_one.first().map_or("", |(rule, _)| rule.call);
            let call = names.binary_search(&name).map_err(|_| format!("no call is named {name}"))?;
            for (check, variants) in checks(of_one, site).map_err(|error| format!("{name}: {error}"))? {
                let (start, end) = place(&mut code, check);
                checked.push((call, variants, site, start..end));
            }
        }
    }
    let counts = (0..VARIANTS)
        .map(|bit| all.iter().filter(|(_, variants)| variants & (1 << bit) != 0).count())
        .collect();
    Ok(Compiled { checks: checked, code, counts })
}

impl Compiled {
    /// As Rust.
    pub(crate) fn tables(&self) -> String {
        let (mut table, mut lines) = (String::new(), String::new());
        for (call, variants, site, Range { start, end }) in &self.checks {
            let _ = writeln!(
                table,
                "    Check {{ call: Call({call}), variants: {variants}, site: Site::{site:?}, start: {start}, end: {end} }},"
            );
        }
        for sock_filter { code, jt, jf, k } in &self.code {
            let _ = writeln!(lines, "    BpfInstruction {{ code: {code}, jt: {jt}, jf: {jf}, k: {k} }},");
        }
        let (count, length, counts) = (self.checks.len(), self.code.len(), &self.counts);
        format!(
            "static CHECKS: [Check; {count}] = [\n{table}];\n\
             static CODE: [BpfInstruction; {length}] = [\n{lines}];\n\
             const RULE_COUNTS: [u16; {VARIANTS}] = {counts:?};\n"
        )
    }
}

/// How many variants there are: each has a bit.
const VARIANTS: u16 = 16;

/// The checks of one call at one site, each with the bits of the variants that have it: a variant has one at most.
fn checks(rules: &[(Rule, u16)], site: Site) -> Result<Vec<(Vec<sock_filter>, u16)>, String> {
    let mut checks: Vec<(Vec<sock_filter>, u16)> = Vec::new();
    for variant in (0..VARIANTS).map(|bit| 1 << bit) {
        let mine: Vec<_> =
            rules.iter().filter(|(rule, variants)| rule.site == site && variants & variant != 0).collect();
        if mine.is_empty() {
            continue;
        }
        let mut whole = Vec::new();
        for (rule, _) in mine {
            whole.extend(program(rule).map_err(|error| error.to_string())?);
        }
        // What no rule refuses is allowed.
        whole.push(sock_filter { code: RETURN, jt: 0, jf: 0, k: RET_ALLOW });
        let check = shorten(&whole)?;
        match checks.iter_mut().find(|(known, _)| *known == check) {
            Some((_, variants)) => *variants |= variant,
            None => checks.push((check, variant)),
        }
    }
    Ok(checks)
}

/// Where a check stands in `code`: at its end, if it isn't there already (many calls have the same).
fn place(code: &mut Vec<sock_filter>, check: Vec<sock_filter>) -> (usize, usize) {
    let start = code.windows(check.len()).position(|there| there == check).unwrap_or(code.len());
    let end = start + check.len();
    if start == code.len() {
        code.extend(check);
    }
    (start, end)
}

/// Every rule of every variant, with the bits of the variants that have it.
fn all() -> Result<Vec<(Rule, u16)>, String> {
    let mut all: Vec<(Rule, u16)> = Vec::new();
    for number in 0..VARIANTS {
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
