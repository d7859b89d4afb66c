//! Makes the checks of a call shorter. seccompiler compiles each rule by itself: it loads the same argument again, and
//! each refusal stands where it is reached. What a filter costs to install is by its length, and every run installs one.
//!
//! Programs of cBPF only jump forward, so each of these can be decided in one pass from the first step to the last:
//!
//! * a bit that is masked and compared with itself is tested by one step;
//! * an argument that is loaded already isn't loaded again;
//! * two bits of one argument that are refused alike are tested together;
//! * equal answers stand once, at the end.

use seccompiler::sock_filter;

// linux/bpf_common.h
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const ALWAYS: u16 = 0x05;
const IF_EQUAL: u16 = 0x15;
const IF_ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;

/// A step of a program. Where it says no target it goes on with the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Load(u32),
    And(u32),
    If {
        test: u16,
        value: u32,
        yes: usize,
        no: usize,
    },
    Return(u32),
    /// To another step, at no cost.
    Goto(usize),
}

/// A program of the same answers.
///
/// # Errors
/// What of it this doesn't know.
pub(crate) fn shorten(program: &[sock_filter]) -> Result<Vec<sock_filter>, String> {
    let mut steps = steps(program)?;
    test_single_bits(&mut steps);
    drop_loads(&mut steps);
    test_together(&mut steps);
    written(&steps)
}

fn steps(program: &[sock_filter]) -> Result<Vec<Step>, String> {
    let step = |(at, instruction): (usize, &sock_filter)| {
        let sock_filter { code, jt, jf, k } = *instruction;
        let behind = |distance: usize| at + 1 + distance;
        Ok(match code {
            LOAD => Step::Load(k),
            AND => Step::And(k),
            RETURN => Step::Return(k),
            ALWAYS => Step::Goto(behind(usize::try_from(k).map_err(|error| error.to_string())?)),
            IF_EQUAL => Step::If { test: code, value: k, yes: behind(jt.into()), no: behind(jf.into()) },
            _ => return Err(format!("instruction {code:#x} isn't known here")),
        })
    };
    program.iter().enumerate().map(step).collect()
}

/// Where a target leads in the end.
fn resolved(steps: &[Step], mut at: usize) -> usize {
    while let Some(Step::Goto(target)) = steps.get(at) {
        at = *target;
    }
    at
}

/// `A & bit == bit` is one test, after which A is still whole.
fn test_single_bits(steps: &mut [Step]) {
    for at in 0..steps.len() {
        let Step::And(mask) = steps[at] else { continue };
        let next = resolved(steps, at + 1);
        let Some(Step::If { test: IF_EQUAL, value, yes, no }) = steps.get(next).copied() else { continue };
        // What comes behind may not count on what is left of A.
        let forgets =
            |target| matches!(steps.get(resolved(steps, target)), Some(Step::Load(_) | Step::Return(_)));
        if value == mask && mask.is_power_of_two() && forgets(yes) && forgets(no) {
            steps[at] = Step::If { test: IF_ANY_BIT, value, yes, no };
        }
    }
}

/// What is known of A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Nothing leads here.
    Unreached,
    Loaded(u32),
    Nothing,
}

fn drop_loads(steps: &mut [Step]) {
    let mut known = vec![Known::Unreached; steps.len() + 1];
    if let Some(first) = known.first_mut() {
        *first = Known::Nothing;
    }
    for at in 0..steps.len() {
        let here = known[at];
        if here == Known::Unreached {
            continue;
        }
        let mut lead = |target: usize, state: Known| {
            known[target] = match known[target] {
                Known::Unreached => state,
                same if same == state => same,
                _ => Known::Nothing,
            };
        };
        match steps[at] {
            Step::Load(from) if here == Known::Loaded(from) => {
                steps[at] = Step::Goto(at + 1);
                lead(at + 1, here);
            }
            Step::Load(from) => lead(at + 1, Known::Loaded(from)),
            Step::And(_) => lead(at + 1, Known::Nothing),
            Step::If { yes, no, .. } => {
                lead(yes, here);
                lead(no, here);
            }
            Step::Goto(target) => lead(target, here),
            Step::Return(_) => {}
        }
    }
}

/// Bits of the same A, one behind the other, with the same answer.
fn test_together(steps: &mut [Step]) {
    for at in (0..steps.len()).rev() {
        let Step::If { test: IF_ANY_BIT, value, yes, no } = steps[at] else { continue };
        let (refused, next) = (resolved(steps, yes), resolved(steps, no));
        let Some(Step::If { test: IF_ANY_BIT, value: more, yes: other, no }) = steps.get(next).copied()
        else {
            continue;
        };
        let answer =
            |target: usize| matches!(steps.get(target), Some(Step::Return(_))).then(|| steps[target]);
        if answer(refused).is_some() && answer(refused) == answer(resolved(steps, other)) {
            steps[at] = Step::If { test: IF_ANY_BIT, value: value | more, yes, no };
        }
    }
}

/// The steps that are reached, in their order, and behind them their answers.
fn written(steps: &[Step]) -> Result<Vec<sock_filter>, String> {
    let mut reached = vec![false; steps.len()];
    let mut answers: Vec<u32> = Vec::new();
    let mut reach = |reached: &mut [bool], target: usize| match steps.get(resolved(steps, target)) {
        Some(Step::Return(answer)) if answers.contains(answer) => Ok(()),
        Some(Step::Return(answer)) => {
            answers.push(*answer);
            Ok(())
        }
        Some(_) => {
            reached[resolved(steps, target)] = true;
            Ok(())
        }
        None => Err("a program without an end".to_owned()),
    };
    reach(&mut reached, 0)?;
    for at in 0..steps.len() {
        match steps[at] {
            Step::If { yes, no, .. } if reached[at] => {
                reach(&mut reached, yes)?;
                reach(&mut reached, no)?;
            }
            Step::Load(_) | Step::And(_) if reached[at] => reach(&mut reached, at + 1)?,
            _ => {}
        }
    }
    let kept: Vec<usize> = (0..steps.len()).filter(|at| reached[*at]).collect();
    let place = |target: usize| {
        let target = resolved(steps, target);
        match steps.get(target) {
            Some(Step::Return(answer)) => {
                answers.iter().position(|known| known == answer).map(|at| kept.len() + at)
            }
            _ => kept.binary_search(&target).ok(),
        }
    };
    let distance = |from: usize, target: usize| {
        let target = place(target).ok_or("a jump to nowhere")?;
        let distance = target.checked_sub(from + 1).ok_or("a jump backwards")?;
        u8::try_from(distance).map_err(|_| "a jump that is too far".to_owned())
    };
    let mut program = Vec::with_capacity(kept.len() + answers.len());
    for (here, at) in kept.iter().enumerate() {
        let plain = |code, k| sock_filter { code, jt: 0, jf: 0, k };
        program.push(match steps[*at] {
            Step::Load(k) => plain(LOAD, k),
            Step::And(k) => plain(AND, k),
            Step::If { test, value, yes, no } => {
                sock_filter { code: test, jt: distance(here, yes)?, jf: distance(here, no)?, k: value }
            }
            Step::Return(_) | Step::Goto(_) => return Err("an answer in the middle".into()),
        });
        if matches!(steps[*at], Step::Load(_) | Step::And(_)) && distance(here, at + 1)? != 0 {
            return Err("a load before something else than its test".into());
        }
    }
    program.extend(answers.iter().map(|answer| sock_filter { code: RETURN, jt: 0, jf: 0, k: *answer }));
    Ok(program)
}
