//! Other processes, identity, limits.

use super::{
    Attack, Filter, FlatFilter, GONE, Identity, Landlock, NO, NOBODY, Namespaces, ROOTED, Twin, attack,
};

const SEEN: &str =
    "`minimal` has no pid namespace: which processes there are, their command lines and figures can be read";
const NONE: &[&str] = &["errno=3", "errno=1", "errno=13", "errno=38"];

const fn aimed(name: &'static str, words: &'static str) -> Attack {
    attack(name, words, NONE)
}

const fn seen(name: &'static str, words: &'static str) -> Attack {
    attack(name, words, GONE).by(&[Namespaces, Landlock])
}

const fn higher(name: &'static str, words: &'static str) -> Attack {
    attack(name, words, &["errno=1", "errno=22", "errno=13"]).by(&[Identity]).twin(Twin::Root)
}

pub(super) const ATTACKS: &[Attack] = &[
    attack("look-for-a-process-of-the-host", "signal {victim} 0", NOBODY).by(&[Namespaces, Landlock]),
    attack("signal-a-process-of-the-host", "signal {victim} 18", NOBODY).by(&[Namespaces, Landlock]),
    attack("signal-by-pidfd", "signal-pidfd {victim}", NOBODY).by(&[Namespaces, Landlock]),
    attack("signal-a-thread", "signal-thread {victim}", NOBODY).by(&[Namespaces, Landlock]),
    attack("signal-a-thread-of-a-group", "signal-thread-of-group {victim}", NOBODY)
        .by(&[Namespaces, Landlock]),
    attack("signal-with-a-value", "signal-with-value {victim}", NOBODY).by(&[Namespaces, Landlock]),
    attack("signal-own-init", "signal 1 0", NOBODY).by(&[Landlock]).twin(Twin::Root),
    aimed("descriptor-of-a-process", "open-process {victim}")
        .by(&[Namespaces])
        .only(ROOTED, "`minimal` has no pid namespace; what such a descriptor is good for is refused"),
    aimed("trace-a-process", "trace {victim}").by(&[Namespaces, Landlock, Filter]),
    aimed("trace-a-process-by-library", "ptrace-seize {victim}").by(&[Namespaces, Landlock, Filter]),
    aimed("read-memory", "read-memory {victim} 0x1000").by(&[Namespaces, Landlock, Filter]),
    aimed("take-a-descriptor", "get-descriptor {victim} 0").by(&[Namespaces, Landlock, Filter]),
    aimed("affinity", "affinity-of {victim}").by(&[Namespaces, FlatFilter]),
    aimed("scheduler", "scheduler-of {victim}").by(&[Namespaces, FlatFilter]),
    aimed("scheduling-attributes", "attributes-of {victim}").by(&[Namespaces, FlatFilter]),
    aimed("scheduling-parameters", "parameters-of {victim}").by(&[Namespaces, FlatFilter]),
    aimed("priority", "priority-of {victim}").by(&[Namespaces, FlatFilter]),
    aimed("io-priority", "io-priority-of {victim}").by(&[Namespaces, FlatFilter]),
    aimed("limits-read", "limits-of {victim}").by(&[Namespaces, FlatFilter]),
    aimed("limits-lowered", "lower-limits-of {victim}").by(&[Namespaces, FlatFilter]),
    aimed("locks-of-a-process", "futexes-of {victim}").by(&[Namespaces, Landlock]),
    aimed("pages-of-a-process", "pages-of {victim}").by(&[Namespaces, Landlock, Filter]),
    aimed("compare-with-a-process", "compare-with {victim}").by(&[Namespaces, Landlock, Filter]),
    attack("share-a-core-with-a-process", "core-schedule-with {victim}", &["errno=3", "errno=1", "errno=22"])
        .by(&[Namespaces, Landlock]),
    aimed("session-of-a-process", "session-of {victim}").by(&[Namespaces]).only(ROOTED, SEEN),
    aimed("group-of-a-process", "group-of {victim}").by(&[Namespaces]).only(ROOTED, SEEN),
    seen("memory-file", "read /proc/{victim}/mem"),
    seen("environment", "read /proc/{victim}/environ"),
    seen("command-line", "read /proc/{victim}/cmdline").by(&[Namespaces]).only(ROOTED, SEEN),
    seen("status", "read /proc/{victim}/status").by(&[Namespaces]).only(ROOTED, SEEN),
    seen("memory-map", "read /proc/{victim}/maps"),
    seen("descriptors", "readlink /proc/{victim}/fd/0"),
    seen("numbers-of-descriptors", "list /proc/{victim}/fd").by(&[Namespaces]).only(ROOTED, SEEN),
    seen("image", "readlink /proc/{victim}/exe"),
    seen("working-directory", "list /proc/{victim}/cwd"),
    seen("root-of-a-process", "read /proc/{victim}/root{secret}"),
    seen("who-is-killed-first", "write-nothing /proc/{victim}/oom_score_adj"),
    seen("names-of-processes", "stat /proc/{victim}").by(&[Namespaces]).only(ROOTED, SEEN),
    higher("raise-core-limit", "raise-limit core"),
    higher("raise-files-limit", "raise-limit files"),
    higher("raise-processes-limit", "raise-limit processes"),
    higher("raise-file-size-limit", "raise-limit file-size"),
    higher("raise-locked-limit", "raise-limit locked"),
    higher("raise-realtime-limit", "raise-limit realtime"),
    higher("raise-queues-limit", "raise-limit queues"),
    higher("raise-priority", "raise-priority"),
    higher("higher-priority", "higher-priority"),
    higher("realtime-priority", "realtime-priority"),
    higher("deadline-priority", "deadline-priority"),
    higher("realtime-io", "realtime-io"),
    higher("become-root", "become-root").only(ROOTED, "at `minimal` root stays root, without capabilities"),
    higher("become-uid-0", "become-uid-0").only(ROOTED, "at `minimal` root stays root, without capabilities"),
    higher("become-gid-0", "become-gid-0").only(ROOTED, "at `minimal` root stays root, without capabilities"),
    higher("take-groups", "take-groups"),
    higher("take-group-0", "take-group-0"),
    attack("new-namespaces-by-library", "new-namespaces user,mount,pid,net", NO),
    attack("enter-first-processes-namespace", "enter-namespace /proc/1/ns/mnt", NONE)
        .by(&[Identity, Filter])
        .twin(Twin::Root),
    attack("set-hostname", "set-hostname", NO).by(&[Identity, Filter]).twin(Twin::Root),
    attack("change-root", "change-root {work}", NO).by(&[Identity, Filter]).twin(Twin::Root),
    seen("terminal-of-the-host", "append {terminal}"),
    seen("shared-file-of-the-host", "read {shared}"),
    attack("shared-memory-of-the-host", "shared-memory {key}", &["errno=2", "errno=1"])
        .by(&[Namespaces, FlatFilter]),
    attack("semaphores-of-the-host", "semaphores {key}", &["errno=2", "errno=1"])
        .by(&[Namespaces, FlatFilter]),
    attack("message-queue-of-the-host", "message-queue {key}", &["errno=2", "errno=1"])
        .by(&[Namespaces, FlatFilter]),
    attack("posix-queue-of-the-host", "posix-queue {id}", &["errno=2", "errno=1"]).by(&[Namespaces, Filter]),
    attack("remove-posix-queue-of-the-host", "remove-posix-queue {id}", &["errno=2", "errno=1"])
        .by(&[Namespaces, Filter]),
    // Of its own namespace's, too: its bytes are counted for whoever runs the daemon, and opening is refused by Landlock.
    attack("make-a-posix-queue", "make-posix-queue {id}-new", NO),
];
