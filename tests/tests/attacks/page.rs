//! `docs/guarantees.md`: the table for people, of the same rows that the tests go by.

use std::fmt::Write as _;
use std::path::Path;

use crate::table::{self, Attack, CLASSES, COLUMNS};

/// What is held by tests of its own: what is tried, where it's promised, what stops it, the tests, what isn't covered.
struct Elsewhere {
    what: &'static str,
    levels: &'static str,
    layer: &'static str,
    tests: &'static [&'static str],
    gap: &'static str,
}

const fn held(
    what: &'static str,
    levels: &'static str,
    layer: &'static str,
    tests: &'static [&'static str],
    gap: &'static str,
) -> Elsewhere {
    Elsewhere { what, levels, layer, tests, gap }
}

const MOUNTED: &str = "strict, moderate";
const EVERY: &str = "all";

const WORKSPACE: &[Elsewhere] = &[
    held(
        "a denied file is read or changed",
        MOUNTED,
        "mask",
        &[
            "denied_file_cannot_be_read",
            "denied_file_cannot_be_changed",
            "symbolic_link_does_not_lead_to_a_denied_file",
        ],
        "another hard link to it, elsewhere in the workspace",
    ),
    held(
        "`mv .git .git2; mkdir -p .git/hooks`: what is above a guarded name is moved away",
        MOUNTED,
        "every ancestor is a mount point",
        &[
            "ancestor_of_a_denied_file_cannot_be_moved_away",
            "a_file_above_a_guarded_name_cannot_be_replaced_by_a_directory",
        ],
        "",
    ),
    held(
        "a denied name that doesn't exist yet is made",
        MOUNTED,
        "placeholder",
        &[
            "denied_name_that_does_not_exist_cannot_be_made_and_leaves_no_ghost",
            "placeholder_stays_as_long_as_one_of_two_runs_needs_it",
        ],
        "on a filesystem that tells names apart by less than their bytes, another spelling is tried as another name",
    ),
    held(
        "hooks, settings, start-up files are written, to be run unconfined later",
        MOUNTED,
        "read-only binds; list at the end",
        &[
            "hooks_and_config_of_an_existing_repository_stay_as_they_are",
            "start_up_and_editor_files_that_exist_stay_as_they_are",
            "repository_can_be_made_where_there_is_none_and_its_trusted_files_are_listed",
        ],
        "what comes into being is listed, not prevented; `.git/modules/*/config` and nested repositories aren't guarded",
    ),
    held(
        "a guarded name leads elsewhere by a link",
        MOUNTED,
        "mask on the link and where it leads",
        &["protected_and_denied_names_that_are_links_hold_as_links_and_where_they_lead"],
        "",
    ),
    held(
        "`git config` on the host renames a file over a guarded one during a run",
        MOUNTED,
        "watch on the run's mount table",
        &["rename_on_the_host_does_not_open_a_guarded_file_to_a_live_run"],
        "the moment between the rename and the end",
    ),
    held(
        "a repository comes to be while a worker waits for its run",
        MOUNTED,
        "look when the run starts",
        &[
            "repository_that_came_to_be_while_a_spare_waited_is_protected",
            "repository_that_came_to_be_just_before_a_run_was_asked_for_is_protected",
        ],
        "",
    ),
    held(
        "setuid and setgid bits, devices, FIFOs, sockets are left on the host's disk",
        EVERY,
        "filter, Landlock",
        &[
            "nothing_with_privilege_and_nothing_that_blocks_is_left_on_the_hosts_disk",
            "links_and_devices_with_privilege_cannot_be_left_in_the_workspace",
        ],
        "FIFOs and sockets, on a kernel without Landlock. Where a workspace lies beneath the run's own `/tmp` or home, none can be made in these either",
    ),
    held(
        "a device or a setuid program that lies in the workspace already is used; a read-only mount within it is written",
        MOUNTED,
        "`nosuid`, `nodev`, read-only flags of submounts kept",
        &["mounts_within_a_workspace_keep_their_read_only_flags_and_lend_no_privilege"],
        "`minimal` makes no mounts: what holds there is `no_new_privs`",
    ),
    held(
        "a workspace on an overlay, which can't be mapped for the run's uid",
        MOUNTED,
        "a named error as root's daemon; confined as a user's",
        &["workspace_on_an_overlay_is_confined_or_refused_by_name"],
        "",
    ),
    held(
        "the file that is a run's input is written to through its descriptor",
        EVERY,
        "Landlock",
        &["input_that_was_passed_for_reading_is_not_opened_for_writing"],
        "mode, times and attributes of a file that is passed, where the run is the user it belongs to (a user's daemon, embedded)",
    ),
];

const RUNS: &[Elsewhere] = &[
    held(
        "System V memory, semaphores and queues, abstract sockets, `/dev/shm` and `/tmp` of another run",
        MOUNTED,
        "namespaces, Landlock",
        &[
            "two_runs_of_one_owner_have_no_channel_between_them",
            "two_runs_of_two_owners_have_no_channel_between_them",
            "two_runs_under_two_policies_have_no_channel_between_them",
        ],
        "what both may write anyway: a workspace, a cache",
    ),
    held(
        "a parked worker carries something from run to run",
        MOUNTED,
        "one run for a worker; a fresh set of namespaces",
        &[
            "system_v_message_queue_is_not_there_in_the_next_run",
            "abstract_socket_is_not_there_in_the_next_run",
            "word_of_one_owner_is_in_no_memory_of_anothers_template_or_spare",
            "keyrings_are_refused_to_warm_runs_and_their_lists_are_empty",
        ],
        "that two runs were in one network namespace can be told by its number",
    ),
    held(
        "another run is signalled or seen",
        MOUNTED,
        "pid namespace",
        &[
            "signal_to_everything_reaches_neither_another_run_nor_a_spare",
            "processes_are_not_seen_by_the_next_run",
        ],
        "",
    ),
    held(
        "two runs have a user in common",
        "strict, moderate, as root's daemon",
        "a host uid for each",
        &[
            "two_live_runs_of_roots_daemon_have_two_users",
            "two_warm_runs_at_once_share_no_namespace_and_no_uid",
        ],
        "a user's own daemon has no other uid to give",
    ),
    held(
        "a client sees, follows or ends another user's run; another user connects",
        EVERY,
        "the peer's uid as the kernel has it",
        &[
            "runs_of_another_owner_can_be_neither_seen_nor_killed",
            "user_of_another_uid_is_refused_by_a_users_daemon",
        ],
        "",
    ),
    held(
        "a run becomes a client of its daemon",
        EVERY,
        "descent from the launcher, namespaces",
        &["run_cannot_become_a_client_of_its_own_daemon", "a_descendant_of_the_launcher_is_refused"],
        "",
    ),
    held(
        "a process of the host is signalled by giving it a pipe",
        EVERY,
        "pid namespace, Landlock",
        &["process_of_the_host_gets_no_signal_by_way_of_a_pipe"],
        "",
    ),
    held(
        "a double fork, a new session, a process that ignores signals outlives its run",
        EVERY,
        "pid namespace; subreaper",
        &[
            "daemon_that_forked_twice_ends_with_its_run",
            "sleeper_that_ignores_termination_ends_at_its_deadline",
            "killed_init_takes_a_run_without_namespaces_with_it",
        ],
        "",
    ),
    held(
        "fork bombs, thread bombs, zombies, memory, output, processor time",
        EVERY,
        "limits, control group or monitor",
        &[
            "fork_bomb_ends_as_too_many_processes",
            "thread_bomb_is_stopped_by_the_kernels_cap_or_ends_as_too_many_processes",
            "flood_of_zombies_is_reaped_or_ends_as_too_many_processes",
            "allocation_of_ten_gigabytes_ends_with_137",
            "output_of_ten_gigabytes_ends_at_the_limit",
            "spinner_without_descriptors_ends_at_its_deadline",
        ],
        "a monitor can be raced",
    ),
    held(
        "capabilities, descriptors and processes that a run has to begin with",
        EVERY,
        "identity, `close_range`, pid namespace",
        &[
            "run_has_no_capability_and_cannot_gain_any",
            "run_inherits_no_descriptor_but_the_standard_three",
            "run_sees_its_own_processes_only",
        ],
        "",
    ),
    held(
        "numbers and arguments of system calls that no list names",
        EVERY,
        "filter",
        &["programs_and_rules_agree_for_random_calls", "foreign_architecture_is_killed_whatever_the_number"],
        "",
    ),
];

/// What is known to be open, beside what the tables' last columns say.
const GAPS: &[&str] = &[
    "`minimal` as root: the run keeps uid 0, without capabilities. Every file of root's can be changed in mode, times and attributes, and where Landlock grants reading, read.",
    "`minimal`: the limit on processes counts what else its user runs, and its inotify instances are its user's.",
    "`inotify`: a run has 16 instances. The kernel takes them from those of the daemon's user (128 unless `fs.inotify.max_user_instances` says more), so eight runs together can still use them up.",
    "Pending signals (and timers): a run has 512. The kernel takes them from those of the daemon's user, too.",
    "`.git/modules/*/config`: settings of submodules aren't guarded, since policies have no patterns.",
    "Groups: a workspace that its owner reaches by a supplementary group alone isn't reached by the run, whose idmapped mount has one group.",
    "A whole disk, and bandwidth of disks and memory, are bounded by nothing of ours.",
];

/// The tests that go by the table's rows. What they fail with begins with a row's name.
const TESTS: [&str; 6] = [
    "attacks_are_stopped_in_runs_without_a_daemon",
    "attacks_are_stopped_in_cold_runs_of_a_daemon",
    "attacks_are_stopped_in_runs_of_the_service",
    "attacks_are_stopped_in_warm_runs_of_a_daemon",
    "each_layer_stops_alone_what_the_table_says_it_stops",
    "attacks_are_possible_where_the_layers_are_missing",
];

fn answer(attack: &Attack, policy: &str) -> &'static str {
    if attack.policies.contains(&policy) { "stopped" } else { "–" }
}

fn class_table(page: &mut String, class: &table::Class) {
    let tests: Vec<String> = TESTS.iter().map(|name| format!("`{name}`")).collect();
    let _ = write!(page, "\n## {}\n\nTests of each row: {}\n\n", class.name, tests.join(" "));
    let _ = writeln!(
        page,
        "| attack | {} | each alone stops it | possible | where not promised |",
        COLUMNS.join(" | ")
    );
    page.push_str("|---|---|---|---|---|---|---|---|\n");
    for attack in class.attacks {
        let columns: Vec<&str> = COLUMNS.iter().map(|policy| answer(attack, policy)).collect();
        let layers: Vec<&str> = attack.by.iter().map(|layer| layer.name()).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            attack.name,
            columns.join(" | "),
            layers.join(", "),
            attack.twin.name(),
            attack.gap,
        );
    }
}

fn elsewhere_table(page: &mut String, title: &str, rows: &[Elsewhere]) {
    let _ = write!(
        page,
        "\n## {title}\n\n| attack | levels | stopped by | test | not covered |\n|---|---|---|---|---|\n"
    );
    for row in rows {
        let tests: Vec<String> = row.tests.iter().map(|name| format!("`{name}`")).collect();
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} |",
            row.what,
            row.levels,
            row.layer,
            tests.join(" "),
            if row.gap.is_empty() { "–" } else { row.gap },
        );
    }
}

fn page() -> String {
    let mut page = format!(
        "# Guarantees, attack by attack\n\n\
         Made from the table in `tests/tests/attacks/table` by its tests; `STOCKADE_BLESS=1 cargo test -p stockade-tests --test attacks page` writes it anew.\n\n\
         {} attacks. Each is one word of the probe (`tests/probe`), which tries it and prints the kernel's answer. `strict` and `default` are policies of the level `strict`,\n\
         which `build` and `loopback` share. Every one is tried without a daemon, as a user's daemon, as root's daemon for a user and for root; cold\n\
         (`attacks_are_stopped_in_runs_without_a_daemon` `attacks_are_stopped_in_cold_runs_of_a_daemon`), of a daemon without privilege (`attacks_are_stopped_in_runs_of_the_service`) and on a parked worker (`attacks_are_stopped_in_warm_runs_of_a_daemon`).\n\n\
         *Possible* says where the same succeeds, tried too (`attacks_are_possible_where_the_layers_are_missing`): in a run whose layers were left out, outside, or outside as root. What a\n\
         machine refuses there as well is said by name when the tests run. Each of the layers stops the attack *alone*, with the others left out\n\
         (`each_layer_stops_alone_what_the_table_says_it_stops`), unless it is identity: that can't be left out of a run, so of a filter beside it the tests of the policies speak. Namespaces\n\
         are all of them at `strict`, all but the network's at `moderate`, none at `minimal`.\n",
        table::all().count()
    );
    for class in CLASSES {
        class_table(&mut page, class);
    }
    elsewhere_table(&mut page, "The workspace, and what is left in it", WORKSPACE);
    elsewhere_table(&mut page, "Between runs and clients", RUNS);
    page.push_str("\n## Gaps\n\n");
    for gap in GAPS {
        let _ = writeln!(page, "* {gap}");
    }
    page
}

#[test]
fn page_of_guarantees_is_that_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/guarantees.md");
    let page = page();
    if std::env::var_os("STOCKADE_BLESS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == page, "docs/guarantees.md is stale: STOCKADE_BLESS=1 writes it anew");
}
