//! What has been kept long enough: bodies of records are erased when their class's time has come, segments once nothing of
//! theirs is left to be kept.
//!
//! An erased record keeps its place in the chain, since that goes over a hash of its body, which stays. Only segments before
//! the one that is written to are touched, each as a whole: it's the old or the new one at any moment.
//!
//! A clock can be wrong, and what is erased is gone. One that has gone back makes nothing look older than what was written
//! before it ([`Header::since`]). One that has leapt ahead isn't believed until it has stayed there for a day ([`believed`]).

use core::fmt;
use std::time::{Duration, SystemTime};

use crate::error::AuditError;
use crate::event::{Event, nanoseconds};
use crate::files::{Directory, segment_name};
use crate::format::{Body, Class, HEADER, Header, Kind, Record};
use crate::segment::{Piece, Pieces};
use crate::time::rfc3339;

/// A day, in nanoseconds.
pub(crate) const DAY: u64 = 24 * 3600 * 1_000_000_000;
/// A clock that is farther than this ahead of all that is in the log has leapt, or the log has stood still for as long.
const FAR: u64 = 30 * DAY;
/// So long it has to stay there.
const STAYED: u64 = DAY;

/// What was erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Erased {
    pub(crate) records: u64,
    pub(crate) segments: u64,
    /// What the clock says and until when it's believed, where that isn't the same.
    pub(crate) ahead: Option<(u64, u64)>,
}

impl Erased {
    /// What there is to be said of it.
    pub(crate) fn events(self) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some((now, believed)) = self.ahead {
            let (now, believed) = (rfc3339(now), rfc3339(believed));
            let text = format!(
                "the clock says {now}, and by the record it's no later than {believed}: nothing that is to be kept until \
                 then is erased before the clock has stayed there for a day"
            );
            events.push(Event::security("audit-clock-ahead", text));
        }
        if self.records > 0 || self.segments > 0 {
            events.push(Event::operation("audit-erased", self.to_string()));
        }
        events
    }
}

impl fmt::Display for Erased {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, segments, .. } = self;
        write!(f, "{records} records and {segments} whole segments had been kept for as long as they are")
    }
}

/// Since when a record of a class isn't kept any more, in nanoseconds since 1970.
pub(crate) fn over(class: Class, time: u64, days: [u16; 3]) -> u64 {
    let days = days[usize::from(class.number() - 1)];
    let kept = Duration::from_secs(u64::from(days) * 24 * 3600);
    time.saturating_add(u64::try_from(kept.as_nanos()).unwrap_or(u64::MAX))
}

/// The longest that any class is kept behind a time.
fn all_over(time: u64, days: [u16; 3]) -> u64 {
    Class::ALL.into_iter().map(|class| over(class, time, days)).max().unwrap_or(u64::MAX)
}

/// The time up to which the clock is believed, by the times at which segments were begun: one that is far ahead of those
/// before it counts once something was begun a day later.
fn believed(begun: impl IntoIterator<Item = u64>, now: u64) -> u64 {
    let mut begun = begun.into_iter().chain([now]);
    let mut believed = begun.next().unwrap_or(now);
    let mut leapt: Option<u64> = None;
    for time in begun {
        if let Some(at) = leapt
            && time >= at.saturating_add(STAYED)
        {
            (believed, leapt) = (at.saturating_add(STAYED), None);
        }
        if time <= believed.saturating_add(FAR) {
            (believed, leapt) = (believed.max(time), None);
        } else {
            leapt = Some(leapt.map_or(time, |at| at.min(time)));
        }
    }
    believed
}

/// Erases what has been kept long enough in the segments before `active`.
pub(crate) fn enforce(
    directory: &Directory,
    active: u64,
    days: [u16; 3],
    now: SystemTime,
) -> Result<Erased, AuditError> {
    let now = nanoseconds(now);
    let numbers = directory.segments()?;
    let mut headers = Vec::new();
    for number in &numbers {
        headers.push(directory.read_header(*number)?);
    }
    let believed = believed(headers.iter().flatten().map(|header| header.time), now);
    let mut erased = Erased { ahead: (now > believed).then_some((now, believed)), ..Erased::default() };
    let now = now.min(believed);
    let mut is_first = true;
    for (at, number) in numbers.iter().enumerate().filter(|(_, number)| **number < active) {
        let since = headers[at].as_ref().map(Header::since);
        // Nothing of this one is younger than what the one behind says.
        let next = headers.get(at + 1).and_then(Option::as_ref);
        let is_over = next.is_some_and(|next| all_over(next.since(), days) <= now);
        if is_first && is_over && is_all_over(directory, *number, since, days, now)? {
            let path = directory.segment(*number);
            std::fs::remove_file(&path).map_err(AuditError::io("remove", &path))?;
            erased.segments += 1;
            continue;
        }
        is_first = false;
        // Nothing of it is older than its header.
        let soonest = days.into_iter().min().unwrap_or(0);
        if let Some(since) = since
            && over(Class::Security, since, [soonest; 3]) <= now
        {
            erased.records += thin(directory, *number, since, days, now)?;
        }
    }
    if erased.segments > 0 {
        directory.sync().map_err(AuditError::io("write", directory.path()))?;
    }
    Ok(erased)
}

/// Whether each record of a segment has had its time, whatever other segments say of it.
fn is_all_over(
    directory: &Directory,
    number: u64,
    since: Option<u64>,
    days: [u16; 3],
    now: u64,
) -> Result<bool, AuditError> {
    let since = since.unwrap_or(0);
    Ok(Pieces::of(&directory.read_segment(number)?).all(|piece| match piece {
        Piece::Record(_, record) => over(record.label.class, record.label.time.max(since), days) <= now,
        Piece::Odd(_) | Piece::Tail(..) => true,
    }))
}

/// Erases bodies of one segment, which was begun at `since`; how many.
fn thin(directory: &Directory, number: u64, since: u64, days: [u16; 3], now: u64) -> Result<u64, AuditError> {
    let bytes = directory.read_segment(number)?;
    let mut out = bytes[..HEADER.min(bytes.len())].to_vec();
    let mut erased = 0;
    for piece in Pieces::of(&bytes) {
        match piece {
            Piece::Record(_, record) if is_erasable(&record, since, days, now) => {
                Record { body: Body::Erased(record.body.hash()), ..record }.encode(&mut out);
                erased += 1;
            }
            Piece::Record(_, record) => record.encode(&mut out),
            Piece::Odd(range) | Piece::Tail(range, _) => out.extend_from_slice(&bytes[range]),
        }
    }
    if erased > 0 {
        directory.replace(&segment_name(number), &out, true)?;
    }
    Ok(erased)
}

fn is_erasable(record: &Record<'_>, since: u64, days: [u16; 3], now: u64) -> bool {
    let label = &record.label;
    label.kind == Kind::Event
        && matches!(record.body, Body::Whole(_))
        && over(label.class, label.time.max(since), days) <= now
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;
    use crate::keys::{Keys, MasterKey};
    use crate::log::{Log, Settings};
    use crate::read::{Filter, Reader};
    use crate::segment::Writing;
    use crate::survey::{Survey, survey};
    use crate::verify::{Check, Report, Tampering, verify};

    /// Some time in 2026.
    const BEGIN: u64 = 1_795_341_621_000_000_000;
    const DAYS: [u16; 3] = [366, 184, 92];

    fn at(time: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(time)
    }

    struct Place {
        folder: TempDir,
        directory: Directory,
        keys: Keys,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let master = MasterKey::create(&folder.path().join("key")).unwrap();
            let directory = Directory::prepare(&folder.path().join("audit")).unwrap();
            let keys = Keys::create(&directory, &master, None).unwrap();
            Self { folder, directory, keys }
        }

        fn master(&self) -> MasterKey {
            MasterKey::read(&self.folder.path().join("key")).unwrap()
        }

        /// A segment as a writer would begin it whose clock says `time`, with an event of each class.
        fn segment(&self, time: u64, days: [u16; 3]) {
            let mut survey = survey(&self.directory, &self.keys, days).unwrap();
            survey.start.time = time;
            self.begin(&survey);
        }

        fn begin(&self, survey: &Survey) {
            let time = survey.start.time;
            let begun = Writing::begin(&self.directory, &self.keys, &survey.macs, &survey.start, &[]);
            let (mut writing, mut bytes) = (begun.unwrap(), Vec::new());
            for class in Class::ALL {
                let text = Event::security("kept", "").encode();
                writing.line.event(class, time + 1, text, &mut bytes).unwrap();
            }
            writing.file.write_all(&bytes).unwrap();
        }

        fn enforce(&self, days: [u16; 3], now: u64) -> Erased {
            let active = *self.directory.segments().unwrap().last().unwrap();
            enforce(&self.directory, active, days, at(now)).unwrap()
        }

        fn verify(&self, now: u64) -> [Report; 2] {
            [Some(self.master()), None].map(|master| {
                verify(self.directory.path(), &Check { master, now: at(now), ..Check::default() }).unwrap()
            })
        }

        fn assert_clean(&self, now: u64) {
            for report in self.verify(now) {
                assert!(report.is_clean(), "{:?}", report.findings);
            }
        }
    }

    #[test]
    fn a_clock_that_stood_at_1970_at_one_start_makes_nothing_older() {
        let place = Place::new();
        place.segment(BEGIN, DAYS);
        place.segment(5, DAYS);
        place.segment(BEGIN + DAY, DAYS);
        assert_eq!(place.enforce(DAYS, BEGIN + 2 * DAY), Erased::default());
        place.assert_clean(BEGIN + 2 * DAY);
        // And nobody can say that it was so.
        let aside = place.folder.path().join("aside");
        std::fs::rename(place.directory.segment(1), &aside).unwrap();
        for report in place.verify(BEGIN + 2 * DAY) {
            assert_eq!(report.findings[0].tampering, Tampering::Dropped);
        }
        std::fs::rename(&aside, place.directory.segment(1)).unwrap();
        // Each in its time, those of 1970 with those that were there before them.
        (1..5).for_each(|month| place.segment(BEGIN + month * 23 * DAY, DAYS));
        assert_eq!(place.enforce(DAYS, BEGIN + 92 * DAY), Erased::default());
        let erased = place.enforce(DAYS, BEGIN + 94 * DAY);
        assert_eq!((erased.records, erased.segments), (3, 0), "of operation");
        place.assert_clean(BEGIN + 94 * DAY);
        (5..19).for_each(|month| place.segment(BEGIN + month * 23 * DAY, DAYS));
        assert!(place.enforce(DAYS, BEGIN + 18 * 23 * DAY).segments >= 2);
        place.assert_clean(BEGIN + 18 * 23 * DAY);
    }

    #[test]
    fn a_segment_is_removed_by_what_is_in_it_and_not_by_a_header_alone() {
        let place = Place::new();
        place.segment(BEGIN, DAYS);
        // As if what was before couldn't have been read when it was begun.
        let mut survey = survey(&place.directory, &place.keys, DAYS).unwrap();
        (survey.start.time, survey.start.newest) = (5, 0);
        place.begin(&survey);
        place.segment(BEGIN + DAY, DAYS);
        assert_eq!(place.enforce(DAYS, BEGIN + 2 * DAY).segments, 0);
    }

    /// As a daemon that is started on a machine whose clock was never set, or was set wrong.
    #[test]
    fn a_start_with_a_clock_that_is_far_ahead_erases_nothing_and_says_so() {
        let place = Place::new();
        let now = nanoseconds(SystemTime::now());
        // The log's clock was right, then: it's this start that is years ahead.
        place.segment(now - 3650 * DAY, DAYS);
        for _ in 0..2 {
            let log = Log::open(Settings::new(place.directory.path(), place.master())).unwrap();
            log.append_and_wait(Event::operation("last", "")).unwrap();
            log.close();
        }
        let mut names = Vec::new();
        let mut each = |entry: crate::read::Entry| {
            names.push(entry.event.name().to_owned());
            core::ops::ControlFlow::Continue(())
        };
        let _ = Reader::new(place.directory.path(), &place.keys).read(&Filter::default(), &mut each).unwrap();
        let many = |name: &str| names.iter().filter(|one| *one == name).count();
        assert_eq!((many("kept"), many("audit-clock-ahead"), many("audit-erased")), (3, 2, 0), "{names:?}");
        // Once it has stayed there, it's believed.
        place.segment(now + DAY + DAY / 2, DAYS);
        let erased = place.enforce(DAYS, now + 2 * DAY);
        assert_eq!((erased.records, erased.ahead), (3, None));
        place.assert_clean(now + 2 * DAY);
    }

    #[test]
    fn a_term_that_was_shorter_for_a_while_excuses_what_was_erased_by_it_and_no_more() {
        let place = Place::new();
        let (short, later) = ([366, 184, 0], BEGIN + DAY);
        place.segment(BEGIN, DAYS);
        place.segment(BEGIN + DAY / 3, short);
        assert_eq!(place.enforce(short, BEGIN + DAY / 3 + 1).records, 1);
        place.segment(BEGIN + DAY / 2, short);
        place.assert_clean(later);
        place.segment(later, DAYS);
        place.segment(later + DAY, DAYS);
        place.assert_clean(later + DAY);
        // The writer with the short term could have erased what was before its last segment, and nothing behind that.
        for (segment, is_clean) in [(2, true), (3, false), (4, false)] {
            let begun = later - DAY;
            assert_eq!(thin(&place.directory, segment, begun, short, later + DAY).unwrap(), 1);
            for report in place.verify(later + DAY) {
                assert_eq!(report.is_clean(), is_clean, "segment {segment}: {:?}", report.findings);
            }
        }
    }

    proptest! {
        #[test]
        fn a_clock_that_goes_on_is_believed(steps in proptest::collection::vec(0..=FAR, 0..20), last in 0..=FAR) {
            let mut now = BEGIN;
            let begun: Vec<u64> = core::iter::once(BEGIN).chain(steps.iter().map(|step| { now += step; now })).collect();
            prop_assert_eq!(believed(begun, now + last), now + last);
        }

        #[test]
        fn however_often_it_is_begun_with_a_clock_that_is_ahead_it_is_not_believed_within_a_day(
            ahead in FAR + DAY..BEGIN, later in proptest::collection::vec(0..DAY, 0..9),
        ) {
            let begun = core::iter::once(BEGIN).chain(later.iter().map(|later| BEGIN + ahead + later));
            prop_assert_eq!(believed(begun, BEGIN + ahead), BEGIN);
        }
    }

    #[test]
    fn a_clock_that_leaps_ahead_is_believed_once_it_has_stayed_there() {
        let years = BEGIN + 3650 * DAY;
        let is = |begun: &[u64], now: u64| believed(begun.iter().copied(), now).min(now);
        assert_eq!(is(&[], years), years, "there is nothing to erase");
        assert_eq!(is(&[BEGIN], BEGIN + FAR), BEGIN + FAR);
        assert_eq!(is(&[BEGIN], years), BEGIN, "a first start with it, or a leap while the log is open");
        assert_eq!(is(&[BEGIN, years], years + 5), BEGIN, "segments that were begun with it");
        assert_eq!(
            is(&[BEGIN, years, years + 1, years + 2], years + DAY - 1),
            BEGIN,
            "one start after another"
        );
        assert_eq!(is(&[BEGIN, years], years + DAY), years + DAY, "a machine that was off for years");
        assert_eq!(is(&[BEGIN, years, years + DAY], years + 3 * DAY), years + 3 * DAY);
        assert_eq!(is(&[BEGIN, years], BEGIN + DAY), BEGIN + DAY, "it was put right");
        assert_eq!(is(&[BEGIN, years, BEGIN + DAY], years + 2 * DAY), BEGIN + DAY, "and is wrong again");
        assert_eq!(is(&[5, BEGIN], BEGIN + 2 * DAY), BEGIN + 2 * DAY, "a first start in 1970");
    }
}
