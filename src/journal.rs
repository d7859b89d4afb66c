//! The journal's own protocol: an entry is a datagram of fields, so that `journalctl STOCKADE_EXEC_ID=…` finds what
//! happened to one run, and `STOCKADE_POLICY=…` to those of one policy.
//!
//! ```text
//! NAME=value\n                                       a value of one line
//! NAME\n  length, u64 little-endian  value\n         any other
//! ```
//!
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>.) An entry is made where something is logged, and sent by the log's thread:
//! journald may be slow, or stand still, and its socket blocks then. That is why the crate that speaks this protocol, which
//! sends on the spot, isn't used.

use core::fmt::{self, Write as _};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use stockade_supervisor::{LINE, Log};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Before the name of each field of ours.
const PREFIX: &str = "STOCKADE_";
/// The field whose text is the message.
const MESSAGE: &str = "message";
/// Bytes of a value that are told. What is longer is cut.
const VALUE: usize = 4 * 1024;
/// Bytes of fields that an entry may have; beside them there is room for the message.
const FIELDS: usize = LINE - VALUE - 1024;

/// A socket whose datagrams journald reads.
pub(crate) struct Socket {
    socket: UnixDatagram,
    path: &'static str,
}

impl Socket {
    /// Opens it.
    ///
    /// # Errors
    /// Journald doesn't listen, or can't be reached from here.
    pub(crate) fn open() -> io::Result<Self> {
        Self::at(SOCKET)
    }

    fn at(path: &'static str) -> io::Result<Self> {
        UnixDatagram::unbound()?.connect(path)?;
        // By its name each time: another journald may listen there after this one.
        Ok(Self { socket: UnixDatagram::unbound()?, path })
    }
}

impl Write for Socket {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        self.socket.send_to(entry, self.path)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The entry that says how many others are lost.
pub(crate) fn lost(lost: u64) -> Vec<u8> {
    let mut entry = head(Level::WARN);
    put(
        &mut entry,
        "MESSAGE",
        &format!("{lost} lines of the log are lost: journald didn't take them in time"),
    );
    entry
}

/// Turns what is logged into entries.
pub(crate) struct Journal(Log);

impl Journal {
    pub(crate) fn new(log: Log) -> Self {
        Self(log)
    }
}

/// Fields, as an entry has them and as a message has them.
#[derive(Default)]
struct Fields {
    entry: Vec<u8>,
    words: String,
    message: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: &str) {
        let value = cut(value);
        if field.name() == MESSAGE {
            self.message = value.to_owned();
            return;
        }
        if self.entry.len() + value.len() > FIELDS {
            return;
        }
        put(&mut self.entry, &name_of(field), value);
        // Writing to a string doesn't fail.
        let _never = write!(self.words, " {}={value}", field.name());
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// What the journal calls a field: upper case, digits and underscores, 64 bytes at most.
fn name_of(field: &Field) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    PREFIX.chars().chain(field.name().chars().map(plain)).take(64).collect()
}

fn cut(value: &str) -> &str {
    let mut end = value.len().min(VALUE);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

/// What every entry begins with.
fn head(level: Level) -> Vec<u8> {
    // As syslog(3) numbers them.
    let priority = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    };
    let mut entry = Vec::with_capacity(512);
    put(&mut entry, "PRIORITY", priority);
    put(&mut entry, "SYSLOG_IDENTIFIER", "stockade");
    entry
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Journal {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, record: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            record.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = *event.metadata().level();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut entry = head(level);
        put(&mut entry, "STOCKADE_TARGET", event.metadata().target());
        entry.extend_from_slice(&fields.entry);
        let mut message = fields.message + &fields.words;
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            let Some(of_span) = extensions.get::<Fields>() else { continue };
            if entry.len() + of_span.entry.len() <= FIELDS {
                entry.extend_from_slice(&of_span.entry);
            }
            message += &of_span.words;
        }
        put(&mut entry, "MESSAGE", cut(&message));
        let mut log = if level <= Level::WARN { self.0.urgent() } else { self.0.clone() };
        // It takes everything.
        let _never = log.write_all(&entry);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// The fields of an entry, read as journald reads them.
    fn read(entry: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        let mut rest = entry;
        while !rest.is_empty() {
            let line = rest.iter().position(|byte| *byte == b'\n').expect("a line's end");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            if let Some(equals) = rest[..line].iter().position(|byte| *byte == b'=') {
                fields.insert(text(&rest[..equals]), text(&rest[equals + 1..line]));
                rest = &rest[line + 1..];
            } else {
                let length = u64::from_le_bytes(rest[line + 1..line + 9].try_into().unwrap());
                let end = line + 9 + usize::try_from(length).unwrap();
                fields.insert(text(&rest[..line]), text(&rest[line + 9..end]));
                assert_eq!(rest[end], b'\n');
                rest = &rest[end + 1..];
            }
        }
        fields
    }

    /// Keeps entries.
    struct Kept(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Write for Kept {
        fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(entry.to_vec());
            Ok(entry.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The entries of what is logged.
    fn logged(what: impl FnOnce()) -> Vec<BTreeMap<String, String>> {
        const END: &str = "nothing else is logged";
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (log, last) = Log::entries_to(Kept(Arc::clone(&kept)), lost).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Journal::new(log)), || {
            what();
            tracing::info!("{END}");
        });
        drop(last);
        // A process that ends waits a second for its last lines; on a busy machine that may be too short for a test.
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let mut entries: Vec<_> =
                kept.lock().unwrap().iter().map(|entry: &Vec<u8>| read(entry)).collect();
            if entries.pop_if(|entry| entry["MESSAGE"] == END).is_some() {
                let cut = kept.lock().unwrap().iter().any(|entry| entry.len() > LINE);
                assert!(!cut, "an entry that the log would cut");
                return entries;
            }
            assert!(Instant::now() < until, "never written");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    #[test]
    fn an_entry_has_the_fields_of_its_run_and_its_own() {
        let entries = logged(|| {
            let span = tracing::info_span!("run", exec_id = %"01a2", owner = 1000, policy = "default");
            tracing::info!(parent: &span, outcome = ?Some(3), "ended");
            tracing::warn!(reason = "two\nlines=", "a peer is refused");
        });
        let [ended, refused] = entries.as_slice() else { unreachable!("{entries:?}") };
        for (name, value) in [
            ("STOCKADE_EXEC_ID", "01a2"),
            ("STOCKADE_OWNER", "1000"),
            ("STOCKADE_POLICY", "default"),
            ("STOCKADE_OUTCOME", "Some(3)"),
            ("PRIORITY", "6"),
            ("SYSLOG_IDENTIFIER", "stockade"),
            ("MESSAGE", "ended outcome=Some(3) exec_id=01a2 owner=1000 policy=default"),
        ] {
            assert_eq!(ended.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert_eq!(refused["STOCKADE_REASON"], "two\nlines=");
        assert_eq!(refused["PRIORITY"], "4");
        assert!(!refused.contains_key("STOCKADE_EXEC_ID"));
    }

    #[test]
    fn no_value_makes_an_entry_that_is_cut_or_another_field() {
        let long = "ä".repeat(40_000);
        let entries = logged(|| {
            let span = tracing::info_span!("run", command = long, policy = "p\nPRIORITY=0\n");
            tracing::info!(parent: &span, a = long, b = long, c = long, d = long, "{long}");
        });
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0]["PRIORITY"], "6");
        assert!(entries[0]["MESSAGE"].len() <= VALUE);
        assert_eq!(
            read(&lost(7))["MESSAGE"],
            "7 lines of the log are lost: journald didn't take them in time"
        );
    }

    #[test]
    fn entries_are_datagrams_and_a_journald_that_stands_still_stops_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path: &'static str =
            Box::leak(directory.path().join("socket").to_str().unwrap().to_owned().into_boxed_str());
        assert!(Socket::at(path).is_err(), "nobody listens");
        let journald = UnixDatagram::bind(path).unwrap();
        let (log, last) = Log::entries_to(Socket::at(path).unwrap(), lost).unwrap();
        // Far more than its queue takes.
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Journal::new(log)), || {
            for number in 0..5_000 {
                tracing::info!(number, "said");
            }
        });
        // We have got here; now it reads.
        journald.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut buffer = [0; LINE];
        let mut numbers = Vec::new();
        let mut missing = 0;
        while numbers.len() + missing < 5_000 {
            let length = journald.recv(&mut buffer).unwrap();
            let fields = read(&buffer[..length]);
            match fields["MESSAGE"].split_once(" lines of the log are lost") {
                Some((count, _)) => missing += count.parse::<usize>().unwrap(),
                None => numbers.push(fields["STOCKADE_NUMBER"].parse::<u32>().unwrap()),
            }
        }
        assert_eq!(numbers[0], 0);
        assert!(numbers.is_sorted() && missing > 0, "{missing} of 5,000 were lost");
        drop(journald);
        drop(last);
    }
}
