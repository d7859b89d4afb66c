//! The harness of the integration suite: it finds the binaries, makes a user and a place to work in, starts a
//! daemon, runs commands through it, and looks for what was left behind.
//!
//! Started by root, it tests the system plan as root and the user plan as an unprivileged user of its own
//! ([`Person::user`]); started by anybody else, only the user plan. What couldn't be tested is said by name
//! ([`not_tested`]), never passed over. A daemon ([`Daemon`]) lives while a test of the same process uses it and is
//! searched for leftovers when it stops.
//!
//! Reading order: [`person`], [`mode`], [`binaries`], [`scratch`], [`ground`], [`daemon`], [`setting`], [`left`],
//! [`wire`], [`json`], [`proxy`], [`untested`], [`seccomp`].
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a harness fails loudly")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and wait for them")]
#![allow(clippy::missing_panics_doc, reason = "every function here may panic: that fails the test")]

pub mod binaries;
pub mod daemon;
pub mod ground;
pub mod json;
pub mod left;
pub mod mode;
pub mod page;
pub mod person;
pub mod proxy;
pub mod scratch;
pub mod seccomp;
pub mod setting;
pub mod spawner;
pub mod untested;
pub mod wire;

use std::time::{Duration, Instant};

pub use daemon::Daemon;
pub use ground::Ground;
pub use mode::Mode;
pub use person::Person;
pub use proxy::Proxy;
pub use setting::{Ended, Run, Setting};
pub use untested::not_tested;

/// Asks every few milliseconds whether something is so, until the time is over. Whether it came to be so.
pub fn wait_until(within: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a program lies in one of the directories that tests have on their `PATH`.
#[must_use]
pub fn program(name: &str) -> Option<std::path::PathBuf> {
    ground::PATH.split(':').map(|folder| std::path::Path::new(folder).join(name)).find(|path| path.exists())
}
