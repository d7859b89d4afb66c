//! Runs finished programs as the kernel would (kernel/seccomp.c, net/core/filter.c): all of them, the newest
//! first, and of their answers the most restrictive; of equal ones the newest program's.
//!
//! It exists to answer questions and to test programs against their rules. What it doesn't know, it takes for a
//! kill, never for an allow.

use stockade_protocol::spec::BpfInstruction;

/// `struct seccomp_data`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Call {
    /// System call number.
    pub number: u32,
    /// `AUDIT_ARCH_*`.
    pub arch: u32,
    /// Where the call was made.
    pub instruction_pointer: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What the kernel would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The call is made.
    Allow,
    /// It answers this errno.
    Errno(u16),
    /// The process is killed by `SIGSYS`.
    KillProcess,
    /// An action that no program of ours has.
    Other(u32),
}

const ACTION: u32 = 0xffff_0000;
const KILL_PROCESS: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
const ALLOW: u32 = 0x7fff_0000;
/// `sizeof(struct seccomp_data)`
const DATA_SIZE: u32 = 64;

/// What all programs together answer to a call; `programs` in the order of their installation.
#[must_use]
pub fn evaluate<'a>(programs: impl IntoIterator<Item = &'a Vec<BpfInstruction>>, call: &Call) -> Verdict {
    let mut programs: Vec<_> = programs.into_iter().collect();
    programs.reverse();
    let mut taken = ALLOW;
    for program in programs {
        let answer = run(program, call).unwrap_or(KILL_PROCESS);
        if precedence(answer) < precedence(taken) {
            taken = answer;
        }
    }
    match taken & ACTION {
        ALLOW => Verdict::Allow,
        ERRNO => Verdict::Errno((taken & 0xffff) as u16),
        KILL_PROCESS => Verdict::KillProcess,
        _ => Verdict::Other(taken),
    }
}

/// The kernel compares actions as signed numbers: the smallest wins.
fn precedence(answer: u32) -> i32 {
    (answer & ACTION).cast_signed()
}

/// One program. `None` where the kernel would have refused to install it.
fn run(program: &[BpfInstruction], call: &Call) -> Option<u32> {
    let mut accumulator = 0;
    let mut at = 0_usize;
    // A program only jumps forward, so it ends within its length.
    loop {
        let instruction = program.get(at)?;
        let BpfInstruction { code, jt, jf, k } = *instruction;
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = load(call, k)?,
            0x54 => accumulator &= k,
            0x05 => at = at.checked_add(usize::try_from(k).ok()?)?,
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x45 => branch(accumulator & k != 0),
            0x06 => return Some(k),
            _ => return None,
        }
    }
}

fn load(call: &Call, offset: u32) -> Option<u32> {
    let mut bytes = [0_u8; DATA_SIZE as usize];
    bytes[..4].copy_from_slice(&call.number.to_ne_bytes());
    bytes[4..8].copy_from_slice(&call.arch.to_ne_bytes());
    bytes[8..16].copy_from_slice(&call.instruction_pointer.to_ne_bytes());
    for (index, argument) in call.arguments.iter().enumerate() {
        bytes[16 + index * 8..24 + index * 8].copy_from_slice(&argument.to_ne_bytes());
    }
    if !offset.is_multiple_of(4) {
        return None;
    }
    let start = usize::try_from(offset).ok()?;
    let word = bytes.get(start..start.checked_add(4)?)?;
    Some(u32::from_ne_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(k: u32) -> Vec<BpfInstruction> {
        vec![BpfInstruction { code: 6, jt: 0, jf: 0, k }]
    }

    #[test]
    fn most_restrictive_answer_wins_and_of_equals_the_newest() {
        let call = Call::default();
        let of = |codes: &[u32]| evaluate(&codes.iter().map(|code| answer(*code)).collect::<Vec<_>>(), &call);
        assert_eq!(of(&[]), Verdict::Allow);
        assert_eq!(of(&[ERRNO | 1, ALLOW]), Verdict::Errno(1));
        assert_eq!(of(&[ERRNO | 1, ERRNO | 38]), Verdict::Errno(38));
        assert_eq!(of(&[ERRNO | 38, ERRNO | 1]), Verdict::Errno(1));
        assert_eq!(of(&[KILL_PROCESS, ERRNO | 1]), Verdict::KillProcess);
        // KILL_THREAD is 0, which is above KILL_PROCESS only as a signed number.
        assert_eq!(of(&[0, KILL_PROCESS]), Verdict::KillProcess);
        assert_eq!(of(&[0, ERRNO]), Verdict::Other(0));
    }

    #[test]
    fn what_is_not_understood_is_a_kill() {
        for program in [vec![], vec![BpfInstruction { code: 0x99, jt: 0, jf: 0, k: 0 }]] {
            assert_eq!(evaluate(&[program], &Call::default()), Verdict::KillProcess);
        }
        for offset in [2, 64, u32::MAX - 3] {
            let program =
                [vec![BpfInstruction { code: 0x20, jt: 0, jf: 0, k: offset }], answer(ALLOW)].concat();
            assert_eq!(evaluate(&[program], &Call::default()), Verdict::KillProcess);
        }
    }
}
