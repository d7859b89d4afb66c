//! Other jails, with flags as strict as ours where they have such a flag: fresh namespaces of every kind, a read-only
//! system, a private `/tmp`, one writable workspace, no capability, no new privileges, an environment of one
//! variable. Only those with a system call filter of their own load one.
//!
//! Each is measured as a whole process, as its users start it.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::error::BenchError;
use crate::ground::{Ground, write};
use crate::spawn::{self, PATH};

/// A jail: the name of its variant, its program, and the words before the command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Jail {
    /// The variant.
    pub(crate) name: &'static str,
    program: &'static str,
    words: fn(&Place<'_>) -> Result<Vec<OsString>, BenchError>,
}

/// Every jail that is compared.
pub(crate) const JAILS: [Jail; 5] = [
    Jail { name: "bubblewrap", program: "bwrap", words: bubblewrap },
    Jail { name: "firejail", program: "firejail", words: firejail },
    Jail { name: "crun", program: "crun", words: crun },
    Jail { name: "nsjail", program: "nsjail", words: nsjail },
    Jail { name: "minijail", program: "minijail0", words: minijail },
];

/// Where a command is jailed.
struct Place<'a> {
    ground: &'a Ground,
    workspace: &'a Path,
    command: &'a [&'a str],
}

impl Jail {
    /// A command in this jail, ready to be started again and again.
    ///
    /// # Errors
    /// [`BenchError::Wrong`] when it isn't installed.
    pub(crate) fn prepare(
        self,
        ground: &Ground,
        workspace: &Path,
        command: &[&str],
    ) -> Result<impl FnMut() -> Command + use<>, BenchError> {
        let program = installed(self.program).ok_or_else(|| {
            BenchError::Wrong(format!("{} is not installed (bench/install-others)", self.program))
        })?;
        let words = (self.words)(&Place { ground, workspace, command })?;
        let numbered = self.name == "crun";
        let count = Cell::new(0_u32);
        Ok(move || {
            let mut command = spawn::command(&program);
            command.args(&words);
            if numbered {
                // Every one needs a name of its own.
                count.set(count.get() + 1);
                command.arg(format!("stockade-bench-{}-{}", std::process::id(), count.get()));
            }
            command
        })
    }
}

/// A program of our `PATH`.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&path).map(|directory| directory.join(program)).find(|path| path.is_file());
    // Debian keeps some of them where only root looks.
    found.or_else(|| Some(Path::new("/usr/sbin").join(program)).filter(|path| path.is_file()))
}

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

/// What of the system's top a command needs: directories to bind, and links with their targets.
pub(crate) fn system() -> (Vec<&'static str>, Vec<(&'static str, PathBuf)>) {
    let (mut directories, mut links) = (vec!["/usr", "/etc"], Vec::new());
    for path in ["/bin", "/sbin", "/lib", "/lib64"] {
        match std::fs::read_link(path) {
            Ok(target) => links.push((path, target)),
            Err(_) if Path::new(path).is_dir() => directories.push(path),
            Err(_) => {}
        }
    }
    (directories, links)
}

fn bubblewrap(place: &Place<'_>) -> Result<Vec<OsString>, BenchError> {
    let (directories, links) = system();
    let mut all =
        words("--unshare-all --die-with-parent --new-session --cap-drop ALL --clearenv --setenv PATH");
    all.push(PATH.into());
    for directory in directories {
        all.extend(["--ro-bind", directory, directory].map(OsString::from));
    }
    for (link, target) in links {
        all.extend(["--symlink".into(), target.into_os_string(), link.into()]);
    }
    all.extend(words("--proc /proc --dev /dev --tmpfs /tmp --tmpfs /dev/shm"));
    let workspace = OsString::from(place.workspace);
    all.extend([
        "--bind".into(),
        workspace.clone(),
        workspace.clone(),
        "--chdir".into(),
        workspace,
        "--".into(),
    ]);
    all.extend(place.command.iter().map(OsString::from));
    Ok(all)
}

fn firejail(place: &Place<'_>) -> Result<Vec<OsString>, BenchError> {
    let mut private = OsString::from("--private=");
    private.push(place.workspace);
    let mut all =
        words("--quiet --noprofile --net=none --ipc-namespace --private-dev --private-tmp --caps.drop=all");
    all.extend(words(
        "--nonewprivs --nogroups --seccomp --disable-mnt --rlimit-nofile=1024 --read-only=/etc",
    ));
    all.extend([private, "--".into()]);
    all.extend(place.command.iter().map(OsString::from));
    Ok(all)
}

fn nsjail(place: &Place<'_>) -> Result<Vec<OsString>, BenchError> {
    let (directories, links) = system();
    let mut all = words(
        "--mode o --really_quiet --iface_no_lo --time_limit 60 --tmpfsmount /tmp --tmpfsmount /dev/shm",
    );
    all.extend(["-E".into(), format!("PATH={PATH}").into()]);
    for directory in directories {
        all.extend(["-R", directory].map(OsString::from));
    }
    for (link, target) in links {
        let mut pair = target.into_os_string();
        pair.push(format!(":{link}"));
        all.extend(["-s".into(), pair]);
    }
    all.extend(words("-R /dev/null -R /dev/zero -R /dev/urandom -B"));
    let workspace = OsString::from(place.workspace);
    all.extend([workspace.clone(), "--cwd".into(), workspace, "--".into()]);
    all.extend(place.command.iter().map(OsString::from));
    Ok(all)
}

fn minijail(place: &Place<'_>) -> Result<Vec<OsString>, BenchError> {
    let (directories, _) = system();
    let root = root(place.ground)?;
    let mut all = words("-p -l -N -e -v -r -t -d -n -c 0 --uts");
    if !rustix::process::geteuid().is_root() {
        all.extend(words("-U -m -M"));
    }
    all.extend(["-P".into(), root.into_os_string()]);
    for directory in directories {
        all.extend(["-b".into(), format!("{directory},{directory}").into()]);
    }
    let mut workspace = OsString::from(place.workspace);
    workspace.push(",/work,1");
    all.extend(["-b".into(), workspace, "--".into()]);
    all.extend(place.command.iter().map(OsString::from));
    Ok(all)
}

fn crun(place: &Place<'_>) -> Result<Vec<OsString>, BenchError> {
    let root = root(place.ground)?;
    let name = place.workspace.file_name().unwrap_or_default().to_string_lossy();
    let program =
        place.command.first().and_then(|program| Path::new(program).file_name()).unwrap_or_default();
    let bundle = place.ground.directory(&format!("bundle-{name}-{}", program.display()))?;
    write(&bundle.join("config.json"), &bundle_text(place, &root).to_string())?;
    let state = place.ground.directory("crun")?;
    let mut all = vec!["--root".into(), state.into_os_string()];
    // A cgroup a run is more than ours makes where none is delegated.
    all.extend(words("--cgroup-manager=disabled run --bundle"));
    all.push(bundle.into_os_string());
    Ok(all)
}

/// A root directory with mount points and the system's links.
fn root(ground: &Ground) -> Result<PathBuf, BenchError> {
    let root = ground.directory("root")?;
    let (directories, links) = system();
    for point in
        directories.iter().map(|path| path.trim_start_matches('/')).chain(["proc", "dev", "tmp", "work"])
    {
        ground.directory(&format!("root/{point}"))?;
    }
    for (link, target) in links {
        let link = root.join(link.trim_start_matches('/'));
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink(target, &link).map_err(BenchError::io("make a link in a root"))?;
        }
    }
    Ok(root)
}

/// System calls that no command here needs.
const REFUSED: [&str; 24] = [
    "add_key",
    "bpf",
    "clock_settime",
    "delete_module",
    "finit_module",
    "fsopen",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "kexec_load",
    "keyctl",
    "mount",
    "move_mount",
    "open_tree",
    "perf_event_open",
    "pivot_root",
    "ptrace",
    "reboot",
    "request_key",
    "setns",
    "umount2",
    "unshare",
    "userfaultfd",
];

fn bundle_text(place: &Place<'_>, root: &Path) -> serde_json::Value {
    let (directories, _) = system();
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] }),
        json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] }),
    ];
    let bind = |from: &str, to: &str, mode: &str| {
        let options = ["rbind", "nosuid", "nodev", mode];
        json!({ "destination": to, "type": "bind", "source": from, "options": options })
    };
    mounts.extend(directories.iter().map(|directory| bind(directory, directory, "ro")));
    mounts.push(bind(&place.workspace.to_string_lossy(), "/work", "rw"));
    let mut namespaces: Vec<_> =
        ["pid", "mount", "ipc", "uts", "network", "cgroup"].map(|kind| json!({ "type": kind })).into();
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let mut linux = json!({
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sysrq-trigger"],
        "readonlyPaths": ["/proc/sys", "/proc/bus", "/proc/irq"],
        "seccomp": { "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": REFUSED, "action": "SCMP_ACT_ERRNO" }] },
    });
    if !uid.is_root() {
        namespaces.push(json!({ "type": "user" }));
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid.as_raw(), "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid.as_raw(), "size": 1 }]);
    }
    linux["namespaces"] = json!(namespaces);
    json!({
        "ociVersion": "1.0.2",
        "process": { "terminal": false, "user": { "uid": 0, "gid": 0 }, "args": place.command, "cwd": "/work",
            "env": [format!("PATH={PATH}")], "capabilities": {}, "noNewPrivileges": true,
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }] },
        "root": { "path": root, "readonly": true },
        "hostname": "bench",
        "mounts": mounts,
        "linux": linux,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_jail_ends_its_words_with_the_command_or_has_it_in_its_bundle() {
        let ground = Ground::new(Some("/bin/true".as_ref())).unwrap();
        let place = Place { ground: &ground, workspace: &ground.workspace, command: &["/bin/echo", "it"] };
        for jail in JAILS {
            let words = (jail.words)(&place).unwrap();
            if jail.name == "crun" {
                let text = std::fs::read_to_string(
                    ground.workspace.with_file_name("bundle-workspace-echo").join("config.json"),
                );
                let bundle: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
                assert_eq!(bundle["process"]["args"], json!(["/bin/echo", "it"]));
            } else {
                assert_eq!(words[words.len() - 2..], ["/bin/echo", "it"], "{}", jail.name);
            }
        }
    }

    #[test]
    fn a_jail_that_is_not_installed_says_so_and_names_the_script() {
        let ground = Ground::new(Some("/bin/true".as_ref())).unwrap();
        let jail = Jail { name: "none", program: "no-such-jail", words: bubblewrap };
        let error = jail.prepare(&ground, &ground.workspace, &["true"]).err().unwrap();
        assert!(
            error.to_string().contains("no-such-jail is not installed (bench/install-others)"),
            "{error}"
        );
    }
}
