//! The programs against their rules, for random system calls and arguments, on every architecture.

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use stockade_protocol::spec::{BpfInstruction, Level, NetworkMode, NetworkSpec, Ports};

use super::interpret::Verdict;
use super::reference::Reference;
use super::table::Arch;

const AUDIT_ARCH_I386: u32 = 0x4000_0003;
const X32: u32 = 0x4000_0000;

fn network(mode: NetworkMode, connect: Ports, bind: Ports) -> NetworkSpec {
    NetworkSpec { mode, tcp_connect: connect, tcp_bind: bind }
}

/// The filter of a policy that denies these.
fn filter(level: Level, network: &NetworkSpec, deny: &[&str], arch: Arch) -> Reference {
    Reference::new(level, network, (&[], deny), arch).unwrap()
}

fn none() -> NetworkSpec {
    network(NetworkMode::None, Ports::Only(vec![]), Ports::Only(vec![]))
}

fn by_name(filter: &Reference, arch: Arch, name: &str, arguments: [u64; 6]) -> Verdict {
    filter.tool(arch.audit(), arch.number(name).unwrap(), arguments)
}

fn specs() -> Vec<(Level, NetworkSpec)> {
    let any = || Ports::Any;
    let only = || Ports::Only(vec![443]);
    vec![
        (Level::Strict, none()),
        (Level::Strict, network(NetworkMode::Loopback, any(), any())),
        (Level::Strict, network(NetworkMode::Host, only(), Ports::Only(vec![]))),
        (Level::Strict, network(NetworkMode::Host, any(), only())),
        (Level::Moderate, none()),
        (Level::Moderate, network(NetworkMode::Host, any(), any())),
        (Level::Minimal, none()),
    ]
}

/// Arguments near what rules compare with, in each half.
fn argument() -> impl Strategy<Value = u64> {
    let near = prop_oneof![
        0u32..64,
        Just(0x5412u32),
        Just(0x541c),
        Just(0x5423),
        (0u32..32).prop_map(|bit| 1 << bit),
        (0u32..0o200_000),
        any::<u32>(),
        Just(u32::MAX),
    ];
    (near, prop_oneof![Just(0u32), Just(1), Just(u32::MAX), any::<u32>()])
        .prop_map(|(low, high)| u64::from(low) | u64::from(high) << 32)
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn programs_and_rules_agree_for_random_calls(
        which in 0usize..7,
        deny in proptest::sample::subsequence(vec!["seccomp", "socket", "kill", "ptrace", "mkdir", "openat", "fork"], 0..4),
        calls in proptest::collection::vec((0u32..480, proptest::array::uniform6(argument())), 300),
        allow in proptest::sample::subsequence(vec!["ptrace", "unshare", "clone3", "mount", "io_uring_setup"], 0..4),
    ) {
        let (level, network) = specs().swap_remove(which);
        for arch in Arch::ALL {
            let filter = Reference::new(level, &network, (&allow, &deny), arch).unwrap();
            for (number, arguments) in &calls {
                let base = filter.base(*number, *arguments);
                proptest::prop_assert_eq!(base, filter.wanted(*number, *arguments, false));
                let both = filter.tool(arch.audit(), *number, *arguments);
                let wanted = filter.wanted(*number, *arguments, true);
                proptest::prop_assert_eq!(both, wanted, "{} {:?}", number, arguments);
                proptest::prop_assert!(base == Verdict::Allow || both != Verdict::Allow);
            }
        }
    }
}

#[test]
fn every_call_has_its_answer_whatever_its_arguments() {
    for (level, network) in specs() {
        for arch in Arch::ALL {
            let filter = filter(level, &network, &[], arch);
            for number in (0..1024).chain([X32, u32::MAX]) {
                for arguments in [[0; 6], [u64::MAX; 6], [1; 6]] {
                    let expected = filter.wanted(number, arguments, true);
                    assert_eq!(filter.tool(arch.audit(), number, arguments), expected, "{arch:?} {number}");
                }
            }
        }
    }
}

#[test]
fn x32_numbers_of_every_call_answer_enosys() {
    let filter = filter(Level::Strict, &none(), &[], Arch::X86_64);
    for (number, name) in Arch::X86_64.calls() {
        let verdict = filter.tool(Arch::X86_64.audit(), number | X32, [0; 6]);
        assert_eq!(verdict, Verdict::Errno(38), "{name}");
    }
    // The x32 ABI's own numbers.
    for number in 512..548 {
        assert_eq!(filter.tool(Arch::X86_64.audit(), number | X32, [0; 6]), Verdict::Errno(38));
        assert_eq!(filter.tool(Arch::X86_64.audit(), number, [0; 6]), Verdict::Errno(38));
    }
}

#[test]
fn foreign_architecture_is_killed_whatever_the_number() {
    for arch in Arch::ALL {
        let filter = filter(Level::Strict, &none(), &[], arch);
        for foreign in [
            AUDIT_ARCH_I386,
            0,
            u32::MAX,
            Arch::ALL.into_iter().find(|other| *other != arch).unwrap().audit(),
        ] {
            for number in 0..500 {
                assert_eq!(filter.tool(foreign, number, [0; 6]), Verdict::KillProcess);
            }
        }
    }
}

#[test]
fn terminal_injection_is_refused_with_any_upper_half() {
    let filter = filter(Level::Strict, &none(), &[], Arch::X86_64);
    for request in [0x5412u64, 0x541c] {
        for high in [0u64, 1, 0xffff_ffff] {
            let arguments = [0, request | high << 32, 0, 0, 0, 0];
            assert_eq!(by_name(&filter, Arch::X86_64, "ioctl", arguments), Verdict::Errno(1));
        }
    }
    // TCGETS, TIOCGWINSZ, TIOCSWINSZ, TIOCSCTTY
    for request in [0x5401u64, 0x5413, 0x5414, 0x540e] {
        assert_eq!(by_name(&filter, Arch::X86_64, "ioctl", [0, request, 0, 0, 0, 0]), Verdict::Allow);
    }
}

#[test]
fn namespaces_are_refused_and_threads_and_vfork_are_not() {
    let filter = filter(Level::Strict, &none(), &[], Arch::X86_64);
    let clone = |flags: u64| by_name(&filter, Arch::X86_64, "clone", [flags, 0, 0, 0, 0, 0]);
    for flag in [0x0002_0000u64, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
    {
        assert_eq!(clone(flag | 17), Verdict::Errno(1), "{flag:#x}");
        assert_eq!(clone(flag | 17 | 1 << 40), Verdict::Errno(1), "{flag:#x}");
    }
    // fork; vfork as init does it; a thread of glibc.
    for flags in [17u64, 0x4100 | 17, 0x003d_0f00, 0x0120_0011] {
        assert_eq!(clone(flags), Verdict::Allow, "{flags:#x}");
    }
    for name in ["clone3", "openat2"] {
        assert_eq!(by_name(&filter, Arch::X86_64, name, [0; 6]), Verdict::Errno(38), "{name}");
    }
    for name in ["unshare", "setns", "mount", "umount2", "ptrace", "bpf", "keyctl", "io_uring_setup"] {
        assert_eq!(by_name(&filter, Arch::X86_64, name, [0; 6]), Verdict::Errno(1), "{name}");
    }
}

#[test]
fn setuid_bits_and_devices_are_refused_where_the_kernel_reads_a_mode() {
    let filter = filter(Level::Strict, &none(), &[], Arch::X86_64);
    let verdict = |name: &str, arguments: [u64; 6]| by_name(&filter, Arch::X86_64, name, arguments);
    let (create, temporary) = (0o100u64, 0o20_200_000u64);
    for mode in [0o4755u64, 0o2755, 0o6777] {
        for flags in [create, create | 1, temporary | 2] {
            assert_eq!(verdict("openat", [0, 0, flags, mode, 0, 0]), Verdict::Errno(1));
            assert_eq!(verdict("open", [0, flags, mode, 0, 0, 0]), Verdict::Errno(1));
        }
        // Without O_CREAT the register holds whatever was in it.
        assert_eq!(verdict("openat", [0, 0, 0o200_000, mode, 0, 0]), Verdict::Allow);
        for name in ["chmod", "fchmod", "creat", "mkdir", "mknod"] {
            assert_eq!(verdict(name, [0, mode, 0, 0, 0, 0]), Verdict::Errno(1), "{name}");
        }
        for name in ["fchmodat", "fchmodat2", "mkdirat", "mknodat"] {
            assert_eq!(verdict(name, [0, 0, mode, 0, 0, 0]), Verdict::Errno(1), "{name}");
        }
    }
    for device in [0o020_644u64, 0o060_644] {
        assert_eq!(verdict("mknod", [0, device, 0, 0, 0, 0]), Verdict::Errno(1));
        assert_eq!(verdict("mknodat", [0, 0, device, 0, 0, 0]), Verdict::Errno(1));
    }
    for harmless in [0o010_644u64, 0o140_644, 0o100_644, 0o644] {
        assert_eq!(verdict("mknodat", [0, 0, harmless, 0, 0, 0]), Verdict::Allow);
    }
    assert_eq!(verdict("renameat2", [0, 0, 0, 0, 4, 0]), Verdict::Errno(1));
    assert_eq!(verdict("renameat2", [0, 0, 0, 0, 1, 0]), Verdict::Allow);
    // The sticky bit is nobody's privilege.
    assert_eq!(verdict("chmod", [0, 0o1777, 0, 0, 0, 0]), Verdict::Allow);
}

#[test]
fn socket_families_follow_the_network() {
    let socket = |level, network: &NetworkSpec, family: u64, kind: u64, protocol: u64| {
        let filter = filter(level, network, &[], Arch::X86_64);
        by_name(&filter, Arch::X86_64, "socket", [family, kind, protocol, 0, 0, 0])
    };
    let (none_there, denied) = (Verdict::Errno(97), Verdict::Errno(1));
    let loopback = network(NetworkMode::Loopback, Ports::Any, Ports::Any);
    let host = network(NetworkMode::Host, Ports::Any, Ports::Only(vec![]));
    let ports = network(NetworkMode::Host, Ports::Only(vec![443]), Ports::Only(vec![]));
    for (level, network) in specs() {
        assert_eq!(socket(level, &network, 1, 1, 0), Verdict::Allow);
        // vsock, packet, ALG, XDP, Bluetooth, key, TIPC
        for family in [40, 17, 38, 44, 31, 15, 30, 0, 3] {
            assert_eq!(socket(level, &network, family, 1, 0), none_there, "{family}");
        }
    }
    assert_eq!(socket(Level::Strict, &none(), 2, 1, 0), Verdict::Allow);
    assert_eq!(socket(Level::Strict, &none(), 16, 3, 0), Verdict::Allow);
    for protocol in [9, 15, 12, 7] {
        assert_eq!(socket(Level::Strict, &none(), 16, 3, protocol), denied);
    }
    assert_eq!(socket(Level::Moderate, &none(), 16, 3, 0), none_there);
    // Refused for its protocol, too: that the family isn't there is what counts.
    assert_eq!(socket(Level::Moderate, &none(), 16, 3, 9), none_there);
    assert_eq!(socket(Level::Moderate, &none(), 2, 1, 0), none_there);
    assert_eq!(socket(Level::Moderate, &none(), 10, 2, 0), none_there);
    assert_eq!(socket(Level::Strict, &loopback, 16, 3, 0), Verdict::Allow);
    assert_eq!(socket(Level::Strict, &loopback, 16, 3, 9), denied);
    for network in [&loopback, &host] {
        assert_eq!(socket(Level::Strict, network, 2, 1 | 0o2_000_000, 6), Verdict::Allow);
        assert_eq!(socket(Level::Strict, network, 10, 2 | 0o4000, 17), Verdict::Allow);
        for (kind, protocol) in [(3, 1), (3, 255), (1, 262), (2, 1), (5, 132), (1, 132), (6, 33)] {
            assert_eq!(socket(Level::Strict, network, 2, kind, protocol), denied, "{kind} {protocol}");
        }
    }
    assert_eq!(socket(Level::Strict, &ports, 2, 1, 6), Verdict::Allow);
    for (kind, protocol) in [(2, 0), (2, 17), (1, 262)] {
        assert_eq!(socket(Level::Strict, &ports, 2, kind, protocol), denied);
    }
}

#[test]
fn fast_open_is_refused_where_ports_are_listed() {
    let ports = network(NetworkMode::Host, Ports::Only(vec![443]), Ports::Any);
    let any = network(NetworkMode::Host, Ports::Any, Ports::Any);
    for (name, arguments) in [
        ("sendto", [0, 0, 0, 0x2000_4000, 0, 0]),
        ("sendmsg", [0, 0, 0x2000_0000, 0, 0, 0]),
        ("sendmmsg", [0, 0, 0, 0x2000_0000 | 1 << 32, 0, 0]),
        ("setsockopt", [0, 6, 23, 0, 0, 0]),
        ("setsockopt", [0, 6, 30, 0, 0, 0]),
    ] {
        let with = filter(Level::Moderate, &ports, &[], Arch::X86_64);
        let without = filter(Level::Moderate, &any, &[], Arch::X86_64);
        assert_eq!(by_name(&with, Arch::X86_64, name, arguments), Verdict::Errno(1), "{name}");
        assert_eq!(by_name(&without, Arch::X86_64, name, arguments), Verdict::Allow, "{name}");
    }
}

#[test]
fn what_pid_1_needs_is_denied_to_the_tool_only() {
    let filter = filter(Level::Strict, &none(), &["seccomp", "kill", "ptrace"], Arch::X86_64);
    for name in ["seccomp", "kill"] {
        let number = Arch::X86_64.number(name).unwrap();
        assert_eq!(filter.base(number, [0; 6]), Verdict::Allow, "{name}");
        assert_eq!(by_name(&filter, Arch::X86_64, name, [0; 6]), Verdict::Errno(1), "{name}");
    }
    assert_eq!(by_name(&filter, Arch::X86_64, "execve", [0; 6]), Verdict::Allow);
    let plain = self::filter(Level::Strict, &none(), &[], Arch::X86_64);
    assert!(plain.spec().delta.is_empty(), "nothing of what pid 1 needs is withheld from a standard tool");
}

#[test]
fn minimal_leaves_other_processes_alone() {
    let minimal = filter(Level::Minimal, &none(), &[], Arch::X86_64);
    for (name, own, other) in [
        ("prlimit64", [0u64, 7, 0, 0, 0, 0], [1234u64, 7, 0, 0, 0, 0]),
        ("setpriority", [0, 0, 19, 0, 0, 0], [0, 1234, 19, 0, 0, 0]),
        ("setpriority", [0, 0, 19, 0, 0, 0], [2, 0, 19, 0, 0, 0]),
        ("ioprio_set", [1, 0, 0, 0, 0, 0], [1, 1234, 0, 0, 0, 0]),
    ] {
        assert_eq!(by_name(&minimal, Arch::X86_64, name, own), Verdict::Allow, "{name}");
        assert_eq!(by_name(&minimal, Arch::X86_64, name, other), Verdict::Errno(1), "{name}");
    }
    for name in ["shmget", "semget", "msgget", "mq_open"] {
        assert_eq!(by_name(&minimal, Arch::X86_64, name, [0; 6]), Verdict::Errno(1), "{name}");
    }
}

#[test]
fn programs_are_small_and_only_jump_forward() {
    for (level, network) in specs() {
        for arch in Arch::ALL {
            let filter = filter(level, &network, &[], arch);
            let total: usize = filter.spec().base.iter().chain(&filter.spec().delta).map(Vec::len).sum();
            assert!(total < 1_200, "{total} instructions");
            for program in filter.spec().base.iter().chain(&filter.spec().delta) {
                for (at, one) in program.iter().enumerate() {
                    let reach = if one.code == 5 { one.k as usize } else { usize::from(one.jt.max(one.jf)) };
                    assert!(one.code & 7 != 5 || at + 1 + reach < program.len());
                }
                assert_eq!(program.last().unwrap().code, 6);
            }
        }
    }
}

/// As kernel/seccomp.c asks before it puts a call into the bitmap (`seccomp_is_const_allow`): whether a program allows
/// it after looking at nothing but architecture and number.
fn is_always_allowed(program: &[BpfInstruction], arch: Arch, number: u32) -> bool {
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let BpfInstruction { code, jt, jf, k } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 if k == 0 => accumulator = number,
            0x20 if k == 4 => accumulator = arch.audit(),
            0x15 => branch(accumulator == k),
            0x35 => branch(accumulator >= k),
            0x05 => at += k as usize,
            0x06 => return k == 0x7fff_0000,
            _ => return false,
        }
    }
}

#[test]
fn allowed_calls_without_rules_are_allowed_by_number_alone() {
    for (level, network) in specs() {
        for arch in Arch::ALL {
            let filter = filter(level, &network, &[], arch);
            let always = |number| {
                let mut programs = filter.spec().base.iter().chain(&filter.spec().delta);
                programs.all(|program| is_always_allowed(program, arch, number))
            };
            let mut both = [0, 0];
            for (number, name) in arch.calls().filter(|(_, name)| filter.allows(name)) {
                let ruled = filter.rules().iter().any(|rule| rule.call == name);
                both[usize::from(ruled)] += 1;
                assert_eq!(always(number), !ruled, "{arch:?} {name}");
            }
            assert!(both[0] > 200 && both[1] > 10, "{both:?}");
        }
    }
}
