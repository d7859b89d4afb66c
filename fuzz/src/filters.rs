//! Filters against their rules: for any policy's calls, the programs and the rules that they are made from agree about any
//! system call with any arguments; and what is denied for a call as a whole is denied whatever its arguments.

use arbitrary::{Arbitrary as _, Unstructured};
use stockade_policies::syscalls::{Arch, Reference, Verdict};
use stockade_protocol::spec::{Level, NetworkMode, NetworkSpec, Ports};

const X32: u32 = 0x4000_0000;

pub(crate) fn run(data: &[u8]) {
    let _short = tried(&mut Unstructured::new(data));
}

fn tried(data: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    let level = *data.choose(&[Level::Strict, Level::Moderate, Level::Minimal])?;
    let mode = *data.choose(&[NetworkMode::None, NetworkMode::Loopback, NetworkMode::Host])?;
    let network = NetworkSpec { mode, tcp_connect: ports(data)?, tcp_bind: ports(data)? };
    let arch = *data.choose(&Arch::ALL)?;
    let (allow, deny) = (names(arch, data)?, names(arch, data)?);
    let Ok(filter) = Reference::new(level, &network, (&allow, &deny), arch) else {
        // Without these no tool starts or ends; else every call may be allowed and denied.
        assert!(deny.iter().any(|name| ["execve", "exit", "exit_group"].contains(name)), "{deny:?}");
        return Ok(());
    };
    let spec = filter.spec();
    for program in spec.base.iter().chain(&spec.delta) {
        // The kernel takes no longer one.
        assert!((1..=4096).contains(&program.len()), "{} instructions", program.len());
    }
    for _ in 0..64 {
        let number = number(arch, data)?;
        let mut arguments = [0; 6];
        for one in &mut arguments {
            *one = argument(data)?;
        }
        let base = filter.base(number, arguments);
        assert_eq!(base, filter.wanted(number, arguments, false), "base: {number} {arguments:x?}");
        let both = filter.tool(arch.audit(), number, arguments);
        assert_eq!(both, filter.wanted(number, arguments, true), "tool: {number} {arguments:x?}");
        assert!(base == Verdict::Allow || both != Verdict::Allow, "the delta gives what the base denies");
        let foreign = u32::arbitrary(data)?;
        if foreign != arch.audit() {
            assert_eq!(filter.tool(foreign, number, arguments), Verdict::KillProcess, "arch {foreign:x}");
        }
        if data.is_empty() {
            break;
        }
    }
    Ok(())
}

fn ports(data: &mut Unstructured<'_>) -> arbitrary::Result<Ports> {
    Ok(match data.int_in_range(0..=2)? {
        0 => Ports::Any,
        1 => Ports::Only(Vec::new()),
        _ => Ports::Only(vec![u16::arbitrary(data)?]),
    })
}

/// A few names, such as a policy lists.
fn names(arch: Arch, data: &mut Unstructured<'_>) -> arbitrary::Result<Vec<&'static str>> {
    let known: Vec<&'static str> = arch.calls().map(|(_, name)| name).collect();
    let count = data.int_in_range(0..=6)?;
    (0..count).map(|_| data.choose(&known).copied()).collect()
}

/// Mostly one that there is.
fn number(arch: Arch, data: &mut Unstructured<'_>) -> arbitrary::Result<u32> {
    let number = u32::from(u16::arbitrary(data)?);
    let known = arch.calls().count();
    Ok(match number >> 13 {
        0..=5 => {
            let index = number as usize % known;
            arch.calls().nth(index).map_or(number, |(number, _)| number)
        }
        6 => number & 0x3ff | X32,
        _ => u32::arbitrary(data)?,
    })
}

/// Near what rules compare with, in each half.
fn argument(data: &mut Unstructured<'_>) -> arbitrary::Result<u64> {
    const NAMED: [u32; 12] = [
        0x5412,
        0x541c,
        0x541d,
        0x5423,
        0o100,
        0o20_000_000,
        0o4755,
        0o2755,
        0o020_644,
        0x2000_0000,
        4,
        u32::MAX,
    ];
    let low = match data.int_in_range(0..=3)? {
        0 => data.int_in_range(0..=63)?,
        1 => *data.choose(&NAMED)?,
        2 => 1 << data.int_in_range(0..=31)?,
        _ => u32::arbitrary(data)?,
    };
    let high = *data.choose(&[0, 0, 1, u32::MAX])?;
    Ok(u64::from(low) | u64::from(high) << 32)
}
