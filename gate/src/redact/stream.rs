//! Output through the redactor, piece by piece.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::redact::forms::Forms;
use crate::redact::pattern::{At, BEGINNING, Pattern};
use crate::redact::sought::Sought;
use crate::redact::values::{Form, Secret};

/// Bytes are held back for so long at most, but for the beginnings of known values.
pub const FLUSH_AFTER: Duration = Duration::from_millis(50);
/// From so many bytes on the beginning of a known value never goes out before it's clear that it isn't one.
pub const HELD_OF_VALUE: usize = 4;
/// So many candidates that are further than the beginnings by which they are found are followed at once: each costs a step for each
/// byte. What begins beside them is hidden unseen, as far as it could reach: too much is right where it isn't known.
pub(super) const MAX_FOLLOWED: usize = 32;
/// Longer pieces are taken in parts, so that what is held is bounded.
const PIECE: usize = 64 * 1024;

/// What was hidden.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counts {
    /// Marks, by their names.
    pub marks: BTreeMap<String, u64>,
    /// Of these so many stand for the rest of something whose beginning had gone out when it was flushed.
    pub late: u64,
}

/// The redactor of one stream of one run. Its memory is bounded: the longest span, a piece, and what is followed.
#[derive(Debug, Clone)]
pub struct Redactor {
    sought: Arc<Sought>,
    candidates: Vec<Candidate>,
    /// What is hidden and hasn't gone out.
    spans: Vec<Span>,
    /// What came and hasn't gone out: up to `end`.
    held: Vec<u8>,
    /// When the oldest of it came.
    since: Option<Duration>,
    /// Bytes that came, went out or are hidden, and went out up to the end of the last mark.
    end: u64,
    out: u64,
    covered: u64,
    last: Option<u8>,
    marks: Vec<u64>,
    late: u64,
    /// Up to which place each value's form was looked at: what begins before that its one candidate knows of.
    seen: Vec<u64>,
}

/// Something that may be a secret.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    start: u64,
    number: usize,
    going: Going,
    /// The end of its longest match so far.
    end: Option<u64>,
    /// Beside too many others: once it's further than its beginning it isn't followed but hidden.
    is_crowded: bool,
}

#[derive(Debug, Clone, Copy)]
enum Going {
    Form(At),
    /// So many bytes of the value, the most that the text ends with. What begins within them and may be the value, too, follows
    /// from the value alone: a form of a value has one candidate.
    Value(usize),
}

/// What is hidden.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    end: u64,
    number: usize,
}

/// Whether a candidate goes on, the end of a match of it, and how far it has come.
struct Step {
    going: Option<Going>,
    end: Option<u64>,
    upto: u64,
}

/// A form's candidate while a piece is taken, once it's further than its beginning: where it began, and up to where it is one in this
/// piece.
#[derive(Clone, Copy)]
struct Followed {
    start: u64,
    upto: u64,
}

impl Redactor {
    /// For a run with these secrets.
    #[must_use]
    pub fn new(forms: Arc<Forms>, secrets: Vec<Secret>) -> Self {
        Self::of(Arc::new(Sought::new(forms, secrets)))
    }

    /// For a stream in which this is looked for.
    #[must_use]
    pub fn of(sought: Arc<Sought>) -> Self {
        let marks = vec![0; sought.forms.len() + sought.secrets.len()];
        let seen = vec![0; sought.values.len()];
        Self {
            sought,
            candidates: Vec::new(),
            spans: Vec::new(),
            held: Vec::new(),
            since: None,
            end: 0,
            out: 0,
            covered: 0,
            last: None,
            marks,
            late: 0,
            seen,
        }
    }

    /// Takes what came at an uptime, and adds to `out` what may go out.
    pub fn feed(&mut self, now: Duration, text: &[u8], out: &mut Vec<u8>) {
        for piece in text.chunks(PIECE) {
            self.take(piece);
            let before = self.end - length(piece);
            self.give(self.frontier(), piece, out);
            self.since = match self.since {
                _ if self.held.is_empty() => None,
                Some(since) if self.out < before => Some(since),
                _ => Some(now),
            };
        }
    }

    /// The uptime at which [`Redactor::flush`] is to be called, unless something comes before; `None`: nothing is held, or only
    /// the beginning of a known value.
    #[must_use]
    pub fn flush_at(&self) -> Option<Duration> {
        let is_free = self.out < self.end.min(self.held_for_values());
        self.since.filter(|_| is_free).map(|since| since.saturating_add(FLUSH_AFTER))
    }

    /// Adds to `out` what is held, but for the beginning of a known value. What is hidden by now goes out as its mark.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        let upto = self.held_for_values();
        for at in 0..self.candidates.len() {
            let candidate = self.candidates[at];
            if candidate.start < upto {
                self.end_span(&candidate);
            }
        }
        self.give(upto.max(self.out), &[], out);
        self.since = None;
    }

    /// Adds to `out` all that is left: nothing comes any more. The beginning of a known value that would still be held is
    /// hidden: the rest of it may have been cut off by a limit, or come another way.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        for candidate in std::mem::take(&mut self.candidates) {
            match candidate.going {
                Going::Value(had) if had >= HELD_OF_VALUE => {
                    let (start, number) = (candidate.start, candidate.number);
                    self.spans.push(Span { start, end: self.end, number });
                }
                _ => self.end_span(&candidate),
            }
        }
        self.give(self.end, &[], out);
        (self.since, self.last) = (None, None);
    }

    /// How many bytes are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// How many candidates are followed.
    #[cfg(test)]
    pub(super) fn followed(&self) -> usize {
        self.candidates.len()
    }

    /// What was hidden so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut marks = BTreeMap::new();
        for (which, count) in self.marks.iter().enumerate().filter(|(_, count)| **count > 0) {
            *marks.entry(self.sought.name(which).to_owned()).or_insert(0) += count;
        }
        Counts { marks, late: self.late }
    }

    /// Counts from here on: what was hidden so far nobody was shown.
    pub fn recount(&mut self) {
        self.marks.fill(0);
        self.late = 0;
    }

    /// How many marks of forms there were, and how many of values.
    #[must_use]
    pub fn marks(&self) -> [u64; 2] {
        let (forms, values) = self.marks.split_at(self.sought.forms.len());
        [forms.iter().sum(), values.iter().sum()]
    }

    fn pattern(&self, number: usize) -> &Pattern {
        &self.sought.forms.forms[number].pattern
    }

    fn is_form(&self, number: usize) -> bool {
        number < self.sought.forms.len()
    }

    /// Goes on with every candidate, and finds those that begin here.
    fn take(&mut self, piece: &[u8]) {
        let sought = Arc::clone(&self.sought);
        let base = self.end;
        let mut followed = Vec::new();
        let mut candidates = std::mem::take(&mut self.candidates);
        candidates.retain_mut(|candidate| self.go_on(candidate, piece, base, &mut followed));
        let (mut from, mut numbers) = (0, Vec::new());
        while let Some(place) = sought.finder.next(piece, from) {
            let before = place.checked_sub(1).map_or(self.last, |before| Some(piece[before]));
            let start = base + length(&piece[..place]);
            sought.forms.finder.at(&piece[place..], &mut numbers);
            sought.finder.at(&piece[place..], &mut numbers);
            let first = sought.forms.len();
            numbers.retain(|number| number.checked_sub(first).is_none_or(|value| self.seen[value] <= start));
            // Of what has come several beginnings of one form can be: it is one candidate.
            if numbers.len() > 1 {
                numbers.sort_unstable();
                numbers.dedup();
            }
            for number in numbers.drain(..) {
                let going = if self.is_form(number) {
                    self.pattern(number).start(before).map(Going::Form)
                } else {
                    Some(Going::Value(0))
                };
                let Some(going) = going else { continue };
                let is_crowded = self.is_form(number) && is_crowd(&mut followed, start);
                let mut candidate = Candidate { start, number, going, end: None, is_crowded };
                if self.go_on(&mut candidate, &piece[place..], start, &mut followed) {
                    candidates.push(candidate);
                }
            }
            from = place + 1;
        }
        self.candidates = candidates;
        self.end = base + length(piece);
        self.last = piece.last().copied().or(self.last);
    }

    /// Whether a candidate goes on behind these bytes, of which the first has this place.
    fn go_on(
        &mut self,
        candidate: &mut Candidate,
        bytes: &[u8],
        base: u64,
        followed: &mut Vec<Followed>,
    ) -> bool {
        let at = match candidate.going {
            Going::Form(at) => at,
            Going::Value(had) => return self.go_on_with_value(candidate, had, bytes, base),
        };
        let start = candidate.start;
        let found = start + length_of(BEGINNING);
        let part = match usize::try_from(found.saturating_sub(base)) {
            Ok(left) if candidate.is_crowded => &bytes[..bytes.len().min(left)],
            _ => bytes,
        };
        let step = self.step(candidate, at, part, base);
        candidate.end = step.end.or(candidate.end);
        match step.going {
            Some(_) if candidate.is_crowded && step.upto >= found => {
                let end = start + length_of(self.pattern(candidate.number).longest);
                self.spans.push(Span { start, end, number: candidate.number });
                return false;
            }
            Some(going) => candidate.going = going,
            None => self.spans.extend(candidate.end.map(|end| Span { start, end, number: candidate.number })),
        }
        if !candidate.is_crowded && step.upto > found {
            followed.push(Followed { start, upto: step.upto });
        }
        step.going.is_some()
    }

    fn step(&self, candidate: &Candidate, at: At, bytes: &[u8], base: u64) -> Step {
        let pattern = self.pattern(candidate.number);
        let left = length_of(pattern.longest).saturating_sub(base - candidate.start);
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let part = &bytes[..bytes.len().min(left)];
        let taken = pattern.take(at, part);
        let end = taken.end.map(|end| base + length(&bytes[..end]));
        let upto = base + length_of(taken.taken);
        match taken.at {
            // As long as it may be: as if nothing came behind it.
            Some(at) if part.len() == left && pattern.ends(at) => {
                Step { going: None, end: Some(base + length(part)), upto }
            }
            Some(_) if part.len() == left => Step { going: None, end, upto },
            at => Step { going: at.map(Going::Form), end, upto },
        }
    }

    /// The same for a value (Knuth, Morris, Pratt, 1977): each byte is taken once, and gone back from no oftener than it was taken,
    /// however the value repeats itself.
    fn go_on_with_value(&mut self, candidate: &mut Candidate, had: usize, bytes: &[u8], base: u64) -> bool {
        let value = candidate.number - self.sought.forms.len();
        let (secret, form) = self.sought.values[value];
        let Form { bytes: form, borders } = &self.sought.secrets[secret].forms[form];
        let (mut had, mut taken) = (had, 0);
        loop {
            let (missing, rest) = (&form[had..], &bytes[taken..]);
            let common = missing.iter().zip(rest).take_while(|(one, other)| one == other).count();
            (had, taken) = (had + common, taken + common);
            if had == form.len() {
                let end = base + length_of(taken);
                self.spans.push(Span { start: end - length_of(had), end, number: candidate.number });
            } else if taken == bytes.len() {
                break;
            }
            if had == 0 {
                // Where it begins next the finder knows.
                taken += 1;
                break;
            }
            had = usize::from(borders[had - 1]);
        }
        let upto = base + length_of(taken);
        self.seen[value] = upto;
        (candidate.start, candidate.going) = (upto - length_of(had), Going::Value(had));
        had > 0
    }

    /// What a candidate is, if nothing more comes.
    fn end_span(&mut self, candidate: &Candidate) {
        let ends_here = matches!(candidate.going, Going::Form(at) if self.pattern(candidate.number).ends(at));
        if let Some(end) = if ends_here { Some(self.end) } else { candidate.end } {
            self.spans.push(Span { start: candidate.start, end, number: candidate.number });
        }
    }

    /// Behind it nothing is decided. Of what has begun in what went out, what comes now is waited for all the same.
    fn frontier(&self) -> u64 {
        let starts = self.candidates.iter().map(|candidate| candidate.start);
        starts.min().unwrap_or(self.end).max(self.out)
    }

    /// Where the beginning of a known value is that isn't to go out.
    fn held_for_values(&self) -> u64 {
        let is_value =
            |candidate: &&Candidate| matches!(candidate.going, Going::Value(had) if had >= HELD_OF_VALUE);
        self.candidates.iter().filter(is_value).map(|candidate| candidate.start).min().unwrap_or(self.end)
    }

    /// Has go out what stands before a place: bytes, and a mark for what is hidden. `piece` came behind what is held.
    fn give(&mut self, upto: u64, piece: &[u8], out: &mut Vec<u8>) {
        let mut held = std::mem::take(&mut self.held);
        // Mostly nothing is held, and nothing is copied but what goes out.
        let text = if held.is_empty() {
            piece
        } else {
            held.extend_from_slice(piece);
            &held
        };
        let base = self.end - length(text);
        let part = |from: u64, to: u64| {
            let index = |place: u64| usize::try_from(place.saturating_sub(base)).unwrap_or(0).min(text.len());
            &text[index(from)..index(to).max(index(from))]
        };
        let forms = self.sought.forms.len();
        self.spans.sort_by_key(|span| (span.start, Reverse(span.end), span.number < forms, span.number));
        let decided = self.spans.partition_point(|span| span.start < upto);
        for span in self.spans.drain(..decided) {
            if span.end <= self.out {
                continue;
            }
            // What overlaps a mark is of it.
            if span.start >= self.covered {
                out.extend_from_slice(part(self.out, span.start));
                let which = self.sought.which(span.number);
                self.marks[which] += 1;
                self.late += u64::from(span.start < self.out);
                out.extend_from_slice(b"[redacted:");
                out.extend_from_slice(self.sought.name(which).as_bytes());
                out.push(b']');
            }
            (self.out, self.covered) = (span.end, span.end);
        }
        if self.out < upto {
            out.extend_from_slice(part(self.out, upto));
            self.out = upto;
        }
        let rest = part(self.out, self.end).len();
        if held.is_empty() {
            held.extend_from_slice(&piece[piece.len() - rest..]);
        } else {
            held.drain(..held.len() - rest);
        }
        self.held = held;
    }
}

/// Whether so many are followed at a place that no other is. Whatever is decided here has to be so however the text is cut up: those
/// count that are further than any beginning, which some are only until the next piece comes.
fn is_crowd(followed: &mut Vec<Followed>, place: u64) -> bool {
    followed.retain(|one| one.upto > place);
    let is_far = |one: &&Followed| one.start + length_of(BEGINNING) <= place;
    followed.len() >= MAX_FOLLOWED && followed.iter().filter(is_far).count() >= MAX_FOLLOWED
}

fn length(bytes: &[u8]) -> u64 {
    length_of(bytes.len())
}

fn length_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
