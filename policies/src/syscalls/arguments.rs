//! What of allowed calls is refused by their arguments.
//!
//! Every comparison is of the low 32 bits: the kernel reads each of these arguments as an `int`, `unsigned int` or
//! `umode_t` (or, for `clone`, its lower half), so `TIOCSTI | 1 << 32` is `TIOCSTI` to it, and must be to us.
//!
//! The build compiles these rules (`build/rules.rs`) and so includes this file; at run time it only says why.

/// What a refused call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// `EPERM`
    NotPermitted,
    /// `EAFNOSUPPORT`, which makes programs try another family.
    NoFamily,
}

/// Which filter a rule belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// Binds pid 1 of the run, too.
    Base,
    /// Binds the tool only.
    Delta,
}

/// A test of one argument's low 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Test {
    Is(u32),
    IsNot(u32),
    /// `argument & .0 == .1`
    Masked(u32, u32),
}

/// A call is refused when all conditions of one of its rules hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) call: &'static str,
    pub(crate) conditions: Vec<(u8, Test)>,
    pub(crate) refusal: Refusal,
    pub(crate) site: Site,
    pub(crate) reason: &'static str,
}

// sched.h
const NAMESPACES: [u32; 7] =
    [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];
// sys/stat.h
const SET_ID_BITS: [u32; 2] = [0o4000, 0o2000];
const S_IFMT: u32 = 0o170_000;
const DEVICES: [u32; 2] = [0o020_000, 0o060_000];
// fcntl.h: with these `open` reads its mode.
const MAKING: [u32; 2] = [0o100, 0o20_000_000];
// asm-generic/ioctls.h
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
const TIOCCONS: u32 = 0x541d;
const TIOCSETD: u32 = 0x5423;
// linux/fs.h
const RENAME_WHITEOUT: u32 = 4;
// linux/prctl.h
const PR_SET_MM: u32 = 35;
// sys/socket.h, netinet/in.h, linux/tcp.h
const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const SOCK_TYPE_MASK: u32 = 0xf;
const SOCK_DGRAM: u32 = 2;
/// RAW, RDM, SEQPACKET, DCCP, PACKET.
const OTHER_TYPES: [u32; 5] = [3, 4, 5, 6, 10];
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const MSG_FASTOPEN: u32 = 0x2000_0000;
/// TCP_FASTOPEN, TCP_FASTOPEN_CONNECT.
const FASTOPEN_OPTIONS: [u32; 2] = [23, 30];

/// What of a policy decides which rules it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Variant {
    /// Whether other processes of the host's have numbers in a run, and its services names.
    pub(crate) minimal: bool,
    pub(crate) network: bool,
    /// Whether sockets of the internet's families can be made: also where a namespace leaves them nothing to reach.
    pub(crate) internet: bool,
    /// Whether connections are to listed ports only.
    pub(crate) plain_tcp: bool,
}

impl Variant {
    /// A bit of its own.
    pub(crate) fn bit(self) -> u16 {
        let Self { minimal, network, internet, plain_tcp } = self;
        1 << [minimal, network, internet, plain_tcp].iter().fold(0, |all, one| all << 1 | u16::from(*one))
    }
}

/// Every rule of a policy.
pub(crate) fn rules(variant: Variant) -> Vec<Rule> {
    let mut rules = Rules(Vec::new());
    rules.processes();
    rules.modes();
    rules.requests();
    rules.families(variant.internet);
    if variant.plain_tcp {
        rules.plain_tcp();
    }
    if variant.minimal {
        rules.others();
        if !variant.network {
            rules.host_services();
        }
    }
    rules.0
}

struct Rules(Vec<Rule>);

impl Rules {
    fn refuse(&mut self, call: &'static str, conditions: &[(u8, Test)], reason: &'static str) {
        self.0.push(Rule {
            call,
            conditions: conditions.to_vec(),
            refusal: Refusal::NotPermitted,
            site: Site::Base,
            reason,
        });
    }

    fn processes(&mut self) {
        for flag in NAMESPACES {
            self.refuse("clone", &[(0, Test::Masked(flag, flag))], "with a flag for a new namespace");
        }
        let changes = [(0, Test::IsNot(0)), (0, Test::IsNot(u32::MAX))];
        self.refuse("personality", &changes, "that changes it (no address randomisation, another ABI)");
        self.refuse(
            "prctl",
            &[(0, Test::Is(PR_SET_MM))],
            "PR_SET_MM, which rewrites what /proc says of a process",
        );
    }

    /// setuid and setgid bits, and devices: nothing of the kind may be left on the host's disk.
    fn modes(&mut self) {
        const REASON: &str = "with a setuid or setgid bit";
        for bit in SET_ID_BITS {
            let set = |argument| (argument, Test::Masked(bit, bit));
            for made in MAKING {
                self.refuse("open", &[(1, Test::Masked(made, made)), set(2)], REASON);
                self.refuse("openat", &[(2, Test::Masked(made, made)), set(3)], REASON);
            }
            for (call, argument) in [
                ("creat", 1),
                ("mkdir", 1),
                ("mkdirat", 2),
                ("mknod", 1),
                ("mknodat", 2),
                ("chmod", 1),
                ("fchmod", 1),
                ("fchmodat", 2),
                ("fchmodat2", 2),
            ] {
                self.refuse(call, &[set(argument)], REASON);
            }
        }
        for kind in DEVICES {
            self.refuse("mknod", &[(1, Test::Masked(S_IFMT, kind))], "of a device");
            self.refuse("mknodat", &[(2, Test::Masked(S_IFMT, kind))], "of a device");
        }
        let whiteout = [(4, Test::Masked(RENAME_WHITEOUT, RENAME_WHITEOUT))];
        self.refuse("renameat2", &whiteout, "that leaves a whiteout, which is a device");
    }

    fn requests(&mut self) {
        for (request, reason) in [
            (TIOCSTI, "TIOCSTI, which types into a terminal"),
            (TIOCLINUX, "TIOCLINUX, which types into a console"),
            (TIOCCONS, "TIOCCONS, which takes the console's output"),
            (TIOCSETD, "TIOCSETD, which loads line disciplines"),
        ] {
            self.refuse("ioctl", &[(1, Test::Is(request))], reason);
        }
    }

    fn families(&mut self, internet: bool) {
        let mut there = vec![AF_UNIX];
        if internet {
            // In a namespace with nothing in it, too: programs ask which interfaces there are, and node and others
            // stop when they can't ask.
            there.extend([AF_INET, AF_INET6, AF_NETLINK]);
        }
        for (call, families, reason) in [
            ("socket", there.as_slice(), "of a family that the network's mode hasn't"),
            ("socketpair", &[AF_UNIX], "of another family than AF_UNIX"),
        ] {
            let conditions = families.iter().map(|family| (0, Test::IsNot(*family))).collect();
            self.0.push(Rule { call, conditions, refusal: Refusal::NoFamily, site: Site::Base, reason });
        }
        for family in [AF_INET, AF_INET6] {
            if !there.contains(&family) {
                continue;
            }
            for kind in OTHER_TYPES {
                let conditions = [(0, Test::Is(family)), (1, Test::Masked(SOCK_TYPE_MASK, kind))];
                self.refuse(
                    "socket",
                    &conditions,
                    "of another type than stream and datagram (raw, SCTP, DCCP)",
                );
            }
            let others = [0, IPPROTO_TCP, IPPROTO_UDP].map(|protocol| (2, Test::IsNot(protocol)));
            let conditions: Vec<_> = [(0, Test::Is(family))].into_iter().chain(others).collect();
            self.refuse("socket", &conditions, "of another protocol than TCP and UDP (MPTCP, ICMP)");
        }
        let other_netlink = [(0, Test::Is(AF_NETLINK)), (2, Test::IsNot(0))];
        self.refuse("socket", &other_netlink, "of another netlink protocol than NETLINK_ROUTE");
    }

    /// Landlock's TCP rules see `connect`, and neither UDP nor a connection made by sending.
    fn plain_tcp(&mut self) {
        for family in [AF_INET, AF_INET6] {
            let datagram = [(0, Test::Is(family)), (1, Test::Masked(SOCK_TYPE_MASK, SOCK_DGRAM))];
            self.refuse("socket", &datagram, "UDP, which passes `tcp-connect`");
        }
        for (call, flags) in [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)] {
            let fast = [(flags, Test::Masked(MSG_FASTOPEN, MSG_FASTOPEN))];
            self.refuse(call, &fast, "with MSG_FASTOPEN, which passes `tcp-connect`");
        }
        for option in FASTOPEN_OPTIONS {
            let fast = [(1, Test::Is(IPPROTO_TCP)), (2, Test::Is(option))];
            self.refuse("setsockopt", &fast, "TCP Fast Open, which passes `tcp-connect`");
        }
    }

    /// Without mounts every service's socket has a name here, and Landlock doesn't see `connect` on one: the user's
    /// service manager, a container daemon or our own supervisor would do outside what the run asks for.
    fn host_services(&mut self) {
        let always = [(0, Test::Masked(0, 0))];
        self.refuse("connect", &always, "to the host's services (D-Bus, container daemons)");
    }

    /// Without a pid namespace the user's other processes have numbers here.
    fn others(&mut self) {
        const REASON: &str = "of another process than the caller";
        for (call, argument, own) in [
            ("prlimit64", 0, 0),
            ("setpriority", 0, 0),
            ("setpriority", 1, 0),
            ("ioprio_set", 0, 1),
            ("ioprio_set", 1, 0),
            // A watcher at the lowest class, or all watchers on the busiest processor, see nothing.
            ("sched_setaffinity", 0, 0),
            ("sched_setattr", 0, 0),
            ("sched_setparam", 0, 0),
            ("sched_setscheduler", 0, 0),
        ] {
            self.0.push(Rule {
                call,
                conditions: vec![(argument, Test::IsNot(own))],
                refusal: Refusal::NotPermitted,
                site: Site::Delta,
                reason: REASON,
            });
        }
    }
}
