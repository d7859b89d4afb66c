//! Where the binaries under test come from.
//!
//! `STOCKADE_BIN`, `STOCKADE_LAUNCHER` and `STOCKADE_PROBE` name them; else they are built by the cargo that runs the tests, into the
//! directory these tests were built into; without a cargo (the test binaries run alone) they are looked for there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::scratch::Scratch;

/// All binaries, copied to where any user can execute them.
#[derive(Debug)]
pub struct Binaries {
    _place: Scratch,
    /// `stockade`.
    pub stockade: PathBuf,
    /// `stockade-launcher`.
    pub launcher: PathBuf,
    /// `stockade-probe`.
    pub probe: PathBuf,
}

impl Binaries {
    /// The binaries, shared by the tests of this process that run at the same time.
    #[must_use]
    pub fn get() -> Arc<Self> {
        static SHARED: Mutex<Weak<Binaries>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(binaries) = shared.upgrade() {
            return binaries;
        }
        let place = Scratch::new("bin");
        let [stockade, launcher, probe] = sources().map(|source| {
            let copy = place.path().join(source.file_name().unwrap());
            copy_program(source, &copy);
            copy
        });
        let binaries = Arc::new(Self { _place: place, stockade, launcher, probe });
        *shared = Arc::downgrade(&binaries);
        binaries
    }
}

/// Copies a program by a process of its own. If we wrote the copy ourselves, whatever another test is just starting would have it
/// open for writing too, until it executes: long enough on a busy machine for whoever executes the copy to find it busy.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("--").arg(from).arg(to).status().unwrap();
    assert!(status.success(), "cp {} {}: {status}", from.display(), to.display());
}

fn sources() -> [&'static Path; 3] {
    static FOUND: OnceLock<[PathBuf; 3]> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let named = ["STOCKADE_BIN", "STOCKADE_LAUNCHER", "STOCKADE_PROBE"].map(std::env::var_os);
        if let [Some(stockade), Some(launcher), Some(probe)] = named {
            return [stockade.into(), launcher.into(), probe.into()];
        }
        if let Some(cargo) = std::env::var_os("CARGO") {
            build(Path::new(&cargo));
        }
        let [stockade, launcher, probe] = named;
        let built = |name: &str| {
            let path = build_directory().join(name);
            assert!(path.exists(), "{} isn't there, and no cargo to build it", path.display());
            path
        };
        [
            stockade.map_or_else(|| built("stockade"), Into::into),
            launcher.map_or_else(|| built("stockade-launcher"), Into::into),
            probe.map_or_else(|| built("stockade-probe"), Into::into),
        ]
    });
    [&found[0], &found[1], &found[2]]
}

/// The directory of this build's binaries (`target/TRIPLE/debug`): two above the test's own file.
#[must_use]
pub fn build_directory() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let above = me.parent().unwrap();
    if above.ends_with("deps") { above.parent().unwrap().to_path_buf() } else { above.to_path_buf() }
}

/// The target that a build names its directory by; none if it was built for the host without a name.
fn target(directory: &Path) -> Option<&str> {
    let ours = format!("{}-", std::env::consts::ARCH);
    directory.file_name()?.to_str().filter(|name| name.starts_with(&ours))
}

fn build(cargo: &Path) {
    let directory = build_directory();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new(cargo);
    command.current_dir(root).args([
        "build",
        "--quiet",
        "--offline",
        "-p",
        "stockade",
        "-p",
        "stockade-worker",
        "-p",
        "stockade-probe",
    ]);
    let above = directory.parent().unwrap();
    match target(above) {
        Some(triple) => command.arg("--target").arg(triple).arg("--target-dir").arg(above.parent().unwrap()),
        None => command.arg("--target-dir").arg(above),
    };
    if directory.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().unwrap();
    assert!(status.success(), "cargo build of the binaries under test: {status}");
}
