//! The place a test works in: a home, a workspace, something outside both, all of one person.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use crate::Person;
use crate::binaries::{Binaries, copy_program};
use crate::scratch::Scratch;

/// The `PATH` of everything tests start.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// The suite's own policies: name and text.
pub const POLICIES: &[(&str, &str)] = &[
    ("test-second", include_str!("../policies/test-second.toml")),
    ("test-idle", include_str!("../policies/test-idle.toml")),
    ("test-cpu", include_str!("../policies/test-cpu.toml")),
    ("test-output", include_str!("../policies/test-output.toml")),
    ("test-little-output", include_str!("../policies/test-little-output.toml")),
    ("test-few", include_str!("../policies/test-few.toml")),
    ("test-deny", include_str!("../policies/test-deny.toml")),
    ("test-ports", include_str!("../policies/test-ports.toml")),
    ("test-plain", include_str!("../policies/test-plain.toml")),
    ("test-long", include_str!("../policies/test-long.toml")),
];

/// A person's place.
#[derive(Debug)]
pub struct Ground {
    scratch: Scratch,
    /// Whose it is.
    pub person: Person,
    /// The binaries.
    pub binaries: Arc<Binaries>,
}

impl Ground {
    /// Makes a place.
    #[must_use]
    pub fn new(person: Person) -> Self {
        let ground = Self { scratch: Scratch::new("ground"), person, binaries: Binaries::get() };
        person.own(ground.scratch.path());
        for path in [
            ground.home(),
            ground.work(),
            ground.outside(),
            ground.runtime(),
            ground.policies(),
            ground.base().join("tmp"),
            ground.base().join("state"),
        ] {
            std::fs::create_dir_all(&path).unwrap();
        }
        for (name, text) in POLICIES {
            std::fs::write(ground.policies().join(format!("{name}.toml")), text).unwrap();
        }
        std::fs::write(ground.outside().join("secret.txt"), "the secret\n").unwrap();
        std::fs::write(ground.home().join("secret.txt"), "the secret of home\n").unwrap();
        for private in [ground.runtime(), ground.base().join("state")] {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            std::fs::set_permissions(private, mode).unwrap();
        }
        person.own_all(ground.base());
        ground
    }

    /// Above everything else.
    #[must_use]
    pub fn base(&self) -> &Path {
        self.scratch.path()
    }

    /// The home directory.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.base().join("home")
    }

    /// The workspace.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.base().join("work")
    }

    /// A directory that no policy names, with `secret.txt`.
    #[must_use]
    pub fn outside(&self) -> PathBuf {
        self.base().join("outside")
    }

    /// `XDG_RUNTIME_DIR`.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.base().join("run")
    }

    /// The folder of the suite's policies, where an embedded run of this person looks, too.
    #[must_use]
    pub fn policies(&self) -> PathBuf {
        self.configuration().join("policies")
    }

    /// The directory of the daemon's configuration.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.base().join("config/stockade")
    }

    /// Writes files of the daemon's configuration, as the person's.
    pub fn configure(&self, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = self.configuration().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        self.person.own_all(&self.configuration());
    }

    /// Writes a file of the workspace, its folders too, as the person's.
    pub fn put(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.work().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        self.person.own_all(&self.work());
        path
    }

    /// Writes a program into the workspace, which may be executed at once.
    pub fn put_program(&self, name: &str, text: &str) {
        let written = self.put(&format!("{name}.written"), text);
        let path = self.work().join(name);
        std::fs::set_permissions(&written, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        copy_program(&written, &path);
        std::fs::remove_file(written).unwrap();
        self.person.own(&path);
    }

    /// Copies `stockade` into the workspace; its path.
    #[must_use]
    pub fn put_stockade(&self) -> PathBuf {
        let path = self.work().join("stockade");
        copy_program(&self.binaries.stockade, &path);
        self.person.own(&path);
        path
    }

    /// Copies the probe into the workspace; its path.
    #[must_use]
    pub fn put_probe(&self) -> PathBuf {
        let path = self.work().join("probe");
        copy_program(&self.binaries.probe, &path);
        self.person.own(&path);
        path
    }

    /// A command as this person, in the workspace, with a small environment and nothing on its input.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear().current_dir(self.work()).stdin(Stdio::null());
        command.env("PATH", PATH).env("HOME", self.home()).env("LANG", "C.UTF-8").env("TERM", "dumb");
        command.env("XDG_RUNTIME_DIR", self.runtime()).env("XDG_CONFIG_HOME", self.base().join("config"));
        command.env("TMPDIR", self.base().join("tmp"));
        self.person.take(&mut command);
        command
    }

    /// A command of `stockade` as this person.
    #[must_use]
    pub fn stockade(&self) -> Command {
        self.command(&self.binaries.stockade)
    }
}
