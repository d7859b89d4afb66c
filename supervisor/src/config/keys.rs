//! Every key, once: what it is called, what it holds by default, and what it means.
//!
//! A table is a struct in [`Configuration`] and an entry in [`tables()`]; both come of one block below, so whoever adds a
//! key adds its lines there, its samples in `tests`, and its row in docs/configuration.md, which a test asks for. A key
//! that does nothing yet has no place here.

use stockade_policies::reader::Section;
use stockade_policies::{Mistake, Position};

use super::values::{
    Count, Directories, Group, LogLevel, Maybe, Parked, Place, Queue, Slots, Space, Span, Switch, Value,
};
use crate::dispatcher::bounds;
use crate::limits;
use crate::metrics::Endpoint;
use crate::paths::Surroundings;
use crate::traces::Collector;

/// Whether a daemon that runs can take another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At a reload.
    Reload,
    /// When it starts again.
    Restart,
}

/// Whose daemon may have a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Root's only: it alone has several users.
    Roots,
    /// Everybody's.
    Anybodys,
}

/// A table.
#[derive(Debug)]
pub struct Table {
    /// `runs`
    pub name: &'static str,
    /// `[runs]`
    pub title: &'static str,
    /// What it is about.
    pub about: &'static [&'static str],
    /// Its keys, in reading order.
    pub keys: &'static [Key],
}

/// A key.
#[derive(Debug)]
pub struct Key {
    /// `slots`
    pub name: &'static str,
    /// `runs.slots`
    pub path: &'static str,
    /// What it means, a line each.
    pub about: &'static [&'static str],
    /// Whether a reload is enough.
    pub when: When,
    /// Whose daemon may have it.
    pub whose: Whose,
    /// What belongs there, with its unit.
    pub expected: fn() -> String,
    /// Its value, as a file says it.
    pub toml: fn(&Configuration) -> String,
    /// Reads it into a configuration; where it stands, if it's there.
    pub(super) read: fn(&Section<'_>, &mut Configuration) -> Result<Option<Position>, Mistake>,
    /// Gives it the value that it has in another.
    pub(super) take: fn(&mut Configuration, &Configuration),
}

macro_rules! tables {
    ($(
        $(#[doc = $about:literal])*
        [$table:ident] $Table:ident {
            $(
                $(#[doc = $doc:literal])*
                $name:literal $field:ident: $Value:ty = $default:expr, $when:ident, $whose:ident;
            )*
        }
    )*) => {
        /// Everything that can be set.
        #[derive(Debug, Clone, PartialEq, Eq, Default)]
        pub struct Configuration {
            $($(#[doc = $about])* pub $table: $Table,)*
        }

        $(
            $(#[doc = $about])*
            #[derive(Debug, Clone, PartialEq, Eq)]
            pub struct $Table {
                $($(#[doc = $doc])* pub $field: $Value,)*
            }

            impl Default for $Table {
                fn default() -> Self {
                    Self { $($field: $default,)* }
                }
            }
        )*

        const TABLES: &[Table] = &[$(Table {
            name: stringify!($table),
            title: concat!("[", stringify!($table), "]"),
            about: &[$($about),*],
            keys: &[$(Key {
                name: $name,
                path: concat!(stringify!($table), ".", $name),
                about: &[$($doc),*],
                when: When::$when,
                whose: Whose::$whose,
                expected: <$Value as Value>::expected,
                toml: |of| of.$table.$field.toml(),
                read: |section, into| {
                    let found = <$Value as Value>::read(section, $name)?;
                    Ok(found.map(|found| {
                        into.$table.$field = found.value;
                        found.at
                    }))
                },
                take: |into, from| into.$table.$field.clone_from(&from.$table.$field),
            }),*],
        }),*];
    };
}

tables! {
    /// Where things are, and who may use the daemon.
    [daemon] Serving {
        /// The socket that clients connect to. Empty: root's daemon has /run/stockade/stockade.sock,
        /// a user's $XDG_RUNTIME_DIR/stockade/stockade.sock.
        "socket" socket: Place = Place::default(), Restart, Anybodys;
        /// The group whose members may connect. Empty: root alone may.
        "group" group: Group = Group::default(), Restart, Roots;
        /// More directories of policies, on top of the usual ones, later ones on top of earlier ones. Those of root's
        /// daemon count as the operator's.
        "policies" policies: Directories = Directories::default(), Reload, Anybodys;
        /// Where the daemon keeps its lock and its state. Empty: root's daemon has /var/lib/stockade, a user's
        /// $XDG_STATE_HOME/stockade or else ~/.local/state/stockade.
        "state-directory" state_directory: Place = Place::default(), Restart, Anybodys;
        /// The socket that starts a launcher for each connection, as stockade-launcher.socket does. Empty: the daemon
        /// starts its launcher itself.
        "launcher" launcher: Place = Place::default(), Restart, Anybodys;
    }

    /// How many runs there may be, and how long what is about them stays.
    [runs] Runs {
        /// Runs at once. In root's daemon the last quarter is for users who have none. With fewer than before, no
        /// run is ended for it: fewer start.
        "slots" slots: Slots = Count::nearest(bounds::SLOTS), Reload, Anybodys;
        /// Requests that may wait for a slot.
        "queue" queue: Queue = Count::nearest(bounds::QUEUE), Reload, Anybodys;
        /// The most workers that are kept ready for one user, policy and workspace. 0: none is made before its run.
        "parked" parked: Parked = Count::nearest(bounds::PARKED), Restart, Anybodys;
        /// How long runs may go on when the daemon is told to stop.
        "grace" grace: Span = Span::seconds(limits::GRACE_SECONDS), Reload, Anybodys;
        /// Whether runs go on when the daemon is told to stop, for the one that comes next, instead of ending after
        /// their grace.
        "keep" keep: Switch = Switch::Off, Reload, Anybodys;
        /// How long an ended run is kept, with its output, for a client that comes back.
        "retention" retention: Span = Span::seconds(bounds::RETENTION_SECONDS), Reload, Anybodys;
    }

    /// The tools that may be called. What they are stands in files of their own, in tools/.
    [tools] Tooling {
        /// Whether tools are taken only if each is signed with one of the keys in tools/keys.
        "require-signed" require_signed: Switch = Switch::Off, Reload, Anybodys;
    }

    /// The record of requests: who asked for what, what was decided, and what came of it.
    [audit] Auditing {
        /// The file of the record's master key: 32 bytes that nobody else may read. Empty: the unit's credential
        /// audit.key, if it has one. Without either nothing is recorded.
        "key" key: Place = Place::default(), Restart, Anybodys;
        /// A second place for the record's signed heads: a file that the daemon may add to and nobody changes.
        "copy" copy: Place = Place::default(), Restart, Anybodys;
        /// Whether requests are refused while they can't be recorded. Without it they run, and the log says so.
        "required" required: Switch = Switch::On, Restart, Anybodys;
        /// Days that security events are kept: refusals, grants, approvals.
        "keep-security" keep_security: Count<1, 3660> = Count::nearest(limits::KEEP_SECURITY), Restart, Anybodys;
        /// Days that access events are kept: who asked for what, and what came of it.
        "keep-access" keep_access: Count<1, 3660> = Count::nearest(limits::KEEP_ACCESS), Restart, Anybodys;
        /// Days that operation events are kept: how the service does.
        "keep-operation" keep_operation: Count<1, 3660> = Count::nearest(limits::KEEP_OPERATION), Restart, Anybodys;
        /// Of operation events one in so many is written.
        "operations-one-in" operations_one_in: Count<1, 1_000_000> = Count::nearest(1), Restart, Anybodys;
        /// Where a new record writes its verification key, and keeps none itself: who moves that file away is the only
        /// one who can check a record's MAC, or make one. It's nothing to a record that there is already.
        "verification-key" verification_key: Place = Place::default(), Restart, Anybodys;
    }

    /// What runs came to, by tool, policy and user, kept over restarts.
    [statistics] Counting {
        /// Whether anything is counted.
        "enabled" enabled: Switch = Switch::On, Restart, Anybodys;
        /// How many hours are kept each by itself. Older ones are put together to days.
        "keep-hours" keep_hours: Count<24, 2160> = Count::nearest(limits::KEEP_HOURS), Restart, Anybodys;
        /// How many days are kept.
        "keep-days" keep_days: Count<1, 366> = Count::nearest(limits::KEEP_DAYS), Restart, Anybodys;
    }

    /// How much clients may take of the daemon.
    [connections] Connections {
        /// Connections at once.
        "total" total: Count<1, 1_048_576> = Count::nearest(limits::CONNECTIONS), Reload, Anybodys;
        /// Connections of one user at once.
        "per-user" per_user: Count<1, 1_048_576> = Count::nearest(limits::CONNECTIONS_PER_OWNER), Reload, Roots;
        /// The memory that may wait in connections: frames that aren't whole, input, output and answers. In root's
        /// daemon the last quarter is for users of whom little waits.
        "memory" memory: Space<16, 1_048_576> =
            Space::mebibytes(limits::CONNECTION_MEBIBYTES), Reload, Anybodys;
        /// The memory that may wait in one user's connections.
        "memory-per-user" memory_per_user: Space<4, 1_048_576> =
            Space::mebibytes(limits::CONNECTION_MEBIBYTES_PER_OWNER), Reload, Roots;
    }

    /// What the daemon tells of itself and its runs. Nothing, unless it is said where.
    [telemetry] Telemetry {
        /// Where metrics for Prometheus and health are told: unix:PATH, or an address and port of the loopback, as in
        /// 127.0.0.1:9747.
        "metrics" metrics: Maybe<Endpoint> = Maybe::nothing(), Restart, Anybodys;
        /// Where a span of each run is sent, by OTLP: a collector's http://ADDRESS:PORT.
        "traces" traces: Maybe<Collector> = Maybe::nothing(), Restart, Anybodys;
    }

    /// What the daemon says on standard error.
    [log] Logging {
        /// How much is logged. STOCKADE_LOG in the daemon's environment, which can choose by module, takes its
        /// place.
        "level" level: LogLevel = LogLevel::Info, Reload, Anybodys;
    }
}

impl Configuration {
    /// With the usual places where none are named, for as far as there are any.
    #[must_use]
    pub fn settled(&self, surroundings: &Surroundings<'_>) -> Self {
        let mut settled = self.clone();
        let Serving { socket, state_directory, .. } = &mut settled.daemon;
        if socket.path().is_none() {
            *socket = surroundings.listen().unwrap_or_default().into();
        }
        if state_directory.path().is_none() {
            *state_directory = surroundings.state().into();
        }
        settled
    }
}

/// Every table, in reading order.
#[must_use]
pub fn tables() -> &'static [Table] {
    TABLES
}

/// Every key, in reading order.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    TABLES.iter().flat_map(|table| table.keys)
}
