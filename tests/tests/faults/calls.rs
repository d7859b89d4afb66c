//! Which system calls faults happen at, and how each may fail.

use syscalls::Sysno;

/// Calls that may fail, each with what the kernel says when it does: for want of something, or because it is forbidden.
/// By name: not every architecture has each.
const FAILING: &[(&str, &[i32])] = &[
    ("accept4", &[libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ECONNABORTED]),
    ("bind", &[libc::ENOMEM, libc::EACCES]),
    ("capset", &[libc::EPERM]),
    ("chdir", &[libc::EACCES, libc::ENOMEM]),
    ("clone", &[libc::EAGAIN, libc::ENOMEM]),
    ("clone3", &[libc::EAGAIN, libc::ENOMEM]),
    ("close_range", &[libc::EMFILE]),
    ("connect", &[libc::EAGAIN, libc::EACCES]),
    ("dup2", &[libc::EMFILE]),
    ("dup3", &[libc::EMFILE]),
    ("epoll_create1", &[libc::EMFILE, libc::ENOMEM]),
    ("epoll_ctl", &[libc::ENOMEM, libc::ENOSPC]),
    ("eventfd2", &[libc::EMFILE]),
    ("execve", &[libc::ENOMEM, libc::EACCES]),
    ("execveat", &[libc::ENOMEM]),
    ("fchdir", &[libc::EACCES]),
    ("fchmod", &[libc::EPERM]),
    ("fchmodat", &[libc::EPERM]),
    ("fchown", &[libc::EPERM]),
    ("fchownat", &[libc::EPERM]),
    ("fcntl", &[libc::EMFILE]),
    ("fsconfig", &[libc::ENOMEM, libc::EINVAL]),
    ("fsmount", &[libc::ENOMEM, libc::EMFILE]),
    ("fsopen", &[libc::ENOMEM, libc::EMFILE]),
    ("fstat", &[libc::EIO]),
    ("fsync", &[libc::EIO, libc::ENOSPC]),
    ("ftruncate", &[libc::ENOSPC, libc::EIO]),
    ("getdents64", &[libc::ENOMEM, libc::EIO]),
    ("getsockopt", &[libc::EMFILE, libc::ENOMEM]),
    ("ioctl", &[libc::ENOMEM]),
    ("landlock_add_rule", &[libc::ENOMEM]),
    ("landlock_create_ruleset", &[libc::ENOMEM, libc::EOPNOTSUPP]),
    ("landlock_restrict_self", &[libc::E2BIG, libc::EPERM]),
    ("linkat", &[libc::ENOSPC]),
    ("listen", &[libc::EADDRINUSE]),
    ("memfd_create", &[libc::EMFILE, libc::ENOMEM]),
    ("mkdir", &[libc::ENOSPC, libc::EACCES]),
    ("mkdirat", &[libc::ENOSPC, libc::EACCES]),
    ("mmap", &[libc::ENOMEM]),
    ("mount", &[libc::ENOMEM, libc::EPERM, libc::ENOSPC]),
    ("mount_setattr", &[libc::ENOMEM, libc::EPERM, libc::EINVAL]),
    ("move_mount", &[libc::ENOMEM, libc::EPERM]),
    ("newfstatat", &[libc::EIO, libc::ENOMEM]),
    ("open_tree", &[libc::EMFILE, libc::EPERM, libc::ENOMEM]),
    ("openat", &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES]),
    ("openat2", &[libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EACCES]),
    ("pidfd_open", &[libc::EMFILE, libc::ENOMEM]),
    ("pipe2", &[libc::EMFILE, libc::ENFILE]),
    ("pivot_root", &[libc::EPERM, libc::EBUSY]),
    ("prctl", &[libc::EPERM, libc::EINVAL]),
    ("prlimit64", &[libc::EPERM]),
    ("pwrite64", &[libc::ENOSPC, libc::EIO]),
    ("pwritev", &[libc::ENOSPC, libc::EIO]),
    ("pwritev2", &[libc::ENOSPC, libc::EIO]),
    ("readlinkat", &[libc::ENOMEM]),
    ("recvmsg", &[libc::ENOMEM]),
    ("renameat", &[libc::ENOSPC, libc::EIO]),
    ("renameat2", &[libc::ENOSPC, libc::EIO]),
    ("rename", &[libc::ENOSPC, libc::EIO]),
    ("sched_setattr", &[libc::EPERM]),
    ("sched_setscheduler", &[libc::EPERM]),
    ("seccomp", &[libc::ENOMEM, libc::EINVAL]),
    ("sendmsg", &[libc::ENOBUFS, libc::ENOMEM, libc::ETOOMANYREFS]),
    ("setdomainname", &[libc::EPERM]),
    ("setgid", &[libc::EPERM]),
    ("setgroups", &[libc::EPERM, libc::ENOMEM]),
    ("sethostname", &[libc::EPERM]),
    ("setns", &[libc::EPERM, libc::ENOMEM]),
    ("setpriority", &[libc::EACCES]),
    ("setresgid", &[libc::EPERM]),
    ("setresuid", &[libc::EPERM, libc::EAGAIN]),
    ("setsid", &[libc::EPERM]),
    ("setsockopt", &[libc::ENOMEM]),
    ("signalfd4", &[libc::EMFILE]),
    ("socket", &[libc::EMFILE, libc::ENOBUFS]),
    ("socketpair", &[libc::EMFILE, libc::ENFILE]),
    ("statx", &[libc::EIO, libc::ENOMEM]),
    ("symlinkat", &[libc::ENOSPC]),
    ("timerfd_create", &[libc::EMFILE]),
    ("umount2", &[libc::EBUSY]),
    ("unlinkat", &[libc::EIO, libc::EBUSY]),
    ("unshare", &[libc::ENOSPC, libc::EPERM, libc::ENOMEM]),
    ("write", &[libc::ENOSPC, libc::EIO]),
    ("writev", &[libc::ENOSPC, libc::EIO]),
];

/// Calls that don't fail, but at which somebody may die or stop.
const BOUNDARIES: &[&str] = &["epoll_wait", "epoll_pwait", "wait4", "waitid", "kill", "exit_group"];

/// Every call that is held up.
pub(crate) fn all() -> Vec<Sysno> {
    let names = FAILING.iter().map(|(name, _)| name).chain(BOUNDARIES);
    names.filter_map(|name| name.parse().ok()).collect()
}

/// How a call may fail.
pub(crate) fn errors(call: Sysno) -> &'static [i32] {
    FAILING.iter().find(|(name, _)| *name == call.name()).map_or(&[], |(_, errors)| errors)
}
