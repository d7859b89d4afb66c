//! Whatever is done to a log is told, and by its right name, with keys and without; and nothing of it verifies clean.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;
use stockade_audit::{Check, Log, MasterKey, Report, Tampering, backup, verify};

use crate::ground::{Ground, copy_all, cut_up, fill, segments};

/// Bytes of a record before its body, and behind it.
const FIXED: usize = 32;
const CHAIN: usize = 32;
const BEHIND: usize = 64;

/// A log of so many events that was ended in order, or copied while it was open.
fn log_of(many: usize, segment_bytes: u64, ended: bool) -> (Ground, PathBuf) {
    let ground = Ground::new();
    let mut settings = ground.settings();
    settings.segment_bytes = segment_bytes;
    // Now and then, as it is with a second and many events.
    settings.head_every = Duration::from_millis(20);
    settings.copy = Some(ground.copies());
    let log = Log::open(settings).unwrap();
    fill(&log, many);
    if ended {
        log.close();
        let path = ground.log();
        return (ground, path);
    }
    let path = ground.path("copy");
    backup(&ground.log(), &path).unwrap();
    drop(log);
    // Heads of what was written after the copy would show that the copy ends too early.
    fs::remove_file(ground.copies()).unwrap();
    (ground, path)
}

fn check(ground: &Ground, path: &Path, with_key: bool, with_copies: bool) -> Report {
    let master = with_key.then(|| MasterKey::read(&ground.key()).unwrap());
    let copies = if with_copies { vec![ground.copies()] } else { Vec::new() };
    verify(path, &Check { master, copies, ..Check::default() }).unwrap()
}

fn assert_told(ground: &Ground, path: &Path, expected: Tampering) -> Result<(), TestCaseError> {
    for with_key in [true, false] {
        let report = check(ground, path, with_key, false);
        let first = report.findings.first().map(|finding| finding.tampering);
        prop_assert_eq!(first, Some(expected), "with key {}: {:?}", with_key, report.findings);
    }
    Ok(())
}

/// A segment, to be changed and written again.
struct Opened {
    path: PathBuf,
    header: Vec<u8>,
    records: Vec<Vec<u8>>,
}

impl Opened {
    fn of(path: &Path) -> Self {
        let (header, records) = cut_up(&fs::read(path).unwrap());
        Self { path: path.to_owned(), header, records }
    }

    fn write(&self) {
        fs::write(&self.path, [self.header.clone(), self.records.concat()].concat()).unwrap();
    }

    /// Makes numbers and chain fit again, as anybody can.
    fn fit(&mut self) {
        let first = u64::from_le_bytes(self.header[40..48].try_into().unwrap());
        let mut before = self.header[self.header.len() - 128..][..64].to_vec();
        for (at, record) in self.records.iter_mut().enumerate() {
            record[16..24].copy_from_slice(&(first + at as u64).to_le_bytes());
            let end = record.len() - BEHIND;
            let body = sha256(&[&record[FIXED..end]]);
            let chain = sha256(&[b"record", &before, &record[8..11], &record[12..32], &body]);
            record[end..end + CHAIN].copy_from_slice(&chain);
            before = record[end..].to_vec();
        }
    }
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().into()
}

fn cases() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    ProptestConfig {
        cases: if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { 24 },
        ..config
    }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_log_that_nobody_touched_is_clean(many in 0usize..60, ended in any::<bool>(), large in any::<bool>()) {
        let (ground, path) = log_of(many, if large { 1 << 20 } else { 4096 }, ended);
        for with_key in [true, false] {
            let report = check(&ground, &path, with_key, ended);
            prop_assert!(report.is_clean() && report.unfinished.is_none(), "{:?}", report.findings);
        }
    }

    #[test]
    fn any_bit_that_was_changed_is_told_as_changed(
        many in 2usize..40, ended in any::<bool>(), flips in proptest::collection::vec((any::<Index>(), any::<Index>(), 0u8..8), 8),
    ) {
        let (ground, path) = log_of(many, 4096, ended);
        for (segment, byte, bit) in flips {
            let paths = segments(&path);
            let path_of_it = segment.get::<PathBuf>(&paths);
            let bytes = fs::read(path_of_it).unwrap();
            let mut changed = bytes.clone();
            let at = byte.index(bytes.len());
            changed[at] ^= 1 << bit;
            fs::write(path_of_it, changed).unwrap();
            let report = check(&ground, &path, true, false);
            let first = report.findings.first().map(|finding| finding.tampering);
            prop_assert_eq!(first, Some(Tampering::Changed), "byte {}: {:?}", at, report.findings);
            let report = check(&ground, &path, false, false);
            let first = report.findings.first().map(|finding| finding.tampering);
            // Where no head was signed for the last record only a key shows that its MAC was changed.
            let is_unseen = first.is_none()
                && !ended
                && paths.last() == Some(path_of_it)
                && is_last_mac(&bytes, cut_up(&bytes).0.len(), at);
            prop_assert!(is_unseen || first == Some(Tampering::Changed), "byte {}: {:?}", at, report.findings);
            fs::write(path_of_it, bytes).unwrap();
        }
    }

    #[test]
    fn a_record_that_was_taken_out_is_told_as_dropped(many in 4usize..40, ended in any::<bool>(), segment in any::<Index>(), record in any::<Index>()) {
        let (ground, path) = log_of(many, 4096, ended);
        let paths = segments(&path);
        let mut opened = Opened::of(segment.get::<PathBuf>(&paths));
        let is_last = paths.last() == Some(&opened.path);
        // The last of all is for another test.
        let most = opened.records.len().saturating_sub(usize::from(is_last));
        prop_assume!(most > 0);
        opened.records.remove(record.index(most));
        opened.write();
        assert_told(&ground, &path, Tampering::Dropped)?;
    }

    #[test]
    fn records_in_another_order_are_told_as_reordered(many in 6usize..40, segment in any::<Index>(), one in any::<Index>(), other in any::<Index>(), twice in any::<bool>()) {
        let (ground, path) = log_of(many, 4096, true);
        let mut opened = Opened::of(segment.get::<PathBuf>(&segments(&path)));
        // Behind a segment's end nothing is in order.
        let most = opened.records.len() - 1;
        prop_assume!(most > 1);
        let (one, other) = (one.index(most), other.index(most));
        prop_assume!(one != other);
        if twice {
            let again = opened.records[one.min(other)].clone();
            opened.records.insert(one.max(other), again);
        } else {
            opened.records.swap(one, other);
        }
        opened.write();
        assert_told(&ground, &path, Tampering::Reordered)?;
    }

    #[test]
    fn an_end_that_is_missing_is_told_as_cut_up_to_the_last_head(many in 2usize..40, at in any::<Index>(), whole in any::<bool>()) {
        let (ground, path) = log_of(many, 4096, true);
        let last = segments(&path).pop().unwrap();
        let bytes = fs::read(&last).unwrap();
        let mut length = at.index(bytes.len());
        if whole {
            let (header, records) = cut_up(&bytes);
            length = header.len() + records[..at.index(records.len())].iter().map(Vec::len).sum::<usize>();
        }
        fs::write(&last, &bytes[..length]).unwrap();
        assert_told(&ground, &path, Tampering::Cut)?;
        // Whoever can cut the log can take the head away that lies beside it. The copies he can't.
        fs::remove_file(path.join("head")).unwrap();
        for with_key in [true, false] {
            let report = check(&ground, &path, with_key, true);
            prop_assert_eq!(report.findings.first().map(|finding| finding.tampering), Some(Tampering::Cut));
        }
    }

    #[test]
    fn a_segment_that_is_missing_or_in_anothers_place_is_told(many in 40usize..60, which in any::<Index>(), swap in any::<bool>()) {
        let (ground, path) = log_of(many, 4096, true);
        let paths = segments(&path);
        let at = which.index(paths.len());
        if swap {
            let other = &paths[(at + 1) % paths.len()];
            let aside = path.join("aside");
            fs::rename(&paths[at], &aside).unwrap();
            fs::rename(other, &paths[at]).unwrap();
            fs::rename(&aside, other).unwrap();
            assert_told(&ground, &path, Tampering::Reordered)?;
        } else {
            fs::remove_file(&paths[at]).unwrap();
            let is_last = at + 1 == paths.len();
            assert_told(&ground, &path, if is_last { Tampering::Cut } else { Tampering::Dropped })?;
        }
    }

    /// Whoever writes to the files and has no key makes numbers and chain fit again: the keys tell what he did, and without
    /// them the signatures tell that something was done.
    #[test]
    fn a_chain_that_was_made_to_fit_again_is_told_by_keys_and_by_signatures(
        many in 8usize..40, what in 0u8..3, segment in any::<Index>(), one in any::<Index>(), other in any::<Index>(),
    ) {
        let (ground, path) = log_of(many, 4096, true);
        let paths = segments(&path);
        let mut opened = Opened::of(segment.get::<PathBuf>(&paths));
        // Neither the last event nor the segment's end: somebody would have to be there whose place is taken.
        let most = opened.records.len().saturating_sub(2);
        prop_assume!(most > 1);
        let (one, other) = (one.index(most), other.index(most));
        prop_assume!(one != other);
        let expected = match what {
            0 => {
                let middle = opened.records[one].len() - BEHIND - 20;
                opened.records[one][middle] ^= 1;
                Tampering::Changed
            }
            1 => {
                opened.records.remove(one);
                Tampering::Dropped
            }
            _ => {
                opened.records.swap(one, other);
                Tampering::Reordered
            }
        };
        opened.fit();
        opened.write();
        let report = check(&ground, &path, true, false);
        prop_assert_eq!(report.findings.first().map(|finding| finding.tampering), Some(expected), "{:?}", report.findings);
        let report = check(&ground, &path, false, false);
        prop_assert!(!report.is_clean(), "by signatures alone");
    }
}

/// Whether a byte is part of the last MAC of a segment.
fn is_last_mac(bytes: &[u8], header: usize, at: usize) -> bool {
    if bytes.len() == header { (header - 96..header - 64).contains(&at) } else { at >= bytes.len() - 32 }
}

/// Nothing that is left is wrong in itself then; without this it would all verify.
#[test]
fn a_log_that_was_taken_away_as_a_whole_is_told_as_cut() {
    let (ground, path) = log_of(40, 4096, true);
    let public = {
        let hex = check(&ground, &path, false, false).public;
        let byte = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        core::array::from_fn(byte)
    };
    let checks = || {
        let copies = vec![ground.copies()];
        let master = Some(MasterKey::read(&ground.key()).unwrap());
        [
            Check::default(),
            Check { public: Some(public), ..Check::default() },
            Check { copies, ..Check::default() },
            Check { master, ..Check::default() },
        ]
    };
    // All segments; the rest of them but the keys, from which alone one could go on; and the keys.
    let mut names: Vec<String> = segments(&path).iter().map(|path| path.display().to_string()).collect();
    names.extend(["head", "mac", "keys"].map(|name| path.join(name).display().to_string()));
    for name in names {
        fs::remove_file(&name).unwrap();
        if !segments(&path).is_empty() {
            continue;
        }
        for (at, check) in checks().iter().enumerate() {
            let report = verify(&path, check).unwrap();
            let first = report.findings.first().map(|finding| finding.tampering);
            assert_eq!(first, Some(Tampering::Cut), "{at}, {name} gone: {:?}", report.findings);
        }
    }
}

#[test]
fn a_file_without_a_head_is_compared_with_nothing_and_that_is_said() {
    let (ground, path) = log_of(10, 4096, true);
    let empty = ground.path("empty");
    fs::write(&empty, "Nov 22 10:00:00 host stockade[7]: ready\n").unwrap();
    let copies = vec![ground.copies(), empty.clone()];
    let report = verify(&path, &Check { copies, ..Check::default() }).unwrap();
    assert_eq!((report.findings[0].tampering, report.wrong), (Tampering::Changed, 1));
    assert!(report.findings[0].text.contains(empty.to_str().unwrap()), "{}", report.findings[0]);
    let large = fs::File::create(&empty).unwrap();
    large.set_len(1 << 30).unwrap();
    assert!(verify(&path, &Check { copies: vec![empty], ..Check::default() }).is_err());
}

#[test]
fn a_wrong_key_is_told_as_that_and_the_rest_is_checked() {
    let (ground, path) = log_of(10, 4096, true);
    let other = MasterKey::create(&ground.path("other")).unwrap();
    let report = verify(&path, &Check { master: Some(other), ..Check::default() }).unwrap();
    assert_eq!((report.findings[0].tampering, report.wrong), (Tampering::WrongKey, 1));
    assert!(report.records > 10 && !report.opened && !report.macs);
}

/// A whole log in the place of another one, each clean in itself: told by whoever knows whose signatures must stand there.
#[test]
fn another_log_in_its_place_and_an_older_one_are_told_by_the_copies() {
    let (ground, path) = log_of(10, 4096, true);
    let (other, others) = log_of(10, 4096, true);
    assert!(check(&other, &others, true, false).is_clean());
    let copies = vec![ground.copies()];
    let report = verify(&others, &Check { copies, ..Check::default() }).unwrap();
    assert_eq!(report.findings[0].tampering, Tampering::Changed, "{:?}", report.findings);
    let older = ground.path("older");
    copy_all(&path, &older);
    let mut settings = ground.settings();
    settings.copy = Some(ground.copies());
    let log = Log::open(settings).unwrap();
    fill(&log, 4);
    drop(log);
    assert!(check(&ground, &path, true, true).is_clean());
    for with_key in [true, false] {
        let report = check(&ground, &older, with_key, true);
        assert_eq!(report.findings[0].tampering, Tampering::Cut, "{:?}", report.findings);
        // What nobody can find out without a copy from elsewhere.
        assert!(check(&ground, &older, with_key, false).is_clean());
    }
}

#[test]
fn a_body_that_was_erased_before_its_time_is_told_as_dropped() {
    // What is written to isn't erased from: there has to be a segment behind.
    let (ground, path) = log_of(40, 4096, true);
    let mut opened = Opened::of(&segments(&path)[0]);
    let record = &mut opened.records[1];
    let end = record.len() - BEHIND;
    let body = sha256(&[&record[FIXED..end]]);
    let mut erased = [&record[..FIXED], &body, &record[end..]].concat();
    let length = u32::try_from(erased.len()).unwrap();
    erased[4..8].copy_from_slice(&length.to_le_bytes());
    erased[11] = 1;
    *record = erased;
    opened.write();
    for with_key in [true, false] {
        let report = check(&ground, &path, with_key, false);
        assert_eq!((report.findings[0].tampering, report.wrong), (Tampering::Dropped, 1));
        // Fifty years on it had its time.
        let now = std::time::SystemTime::now() + Duration::from_secs(50 * 365 * 24 * 3600);
        let report = verify(&path, &Check { now, ..Check::default() }).unwrap();
        assert!(report.is_clean() && report.erased == 1, "{:?}", report.findings);
    }
}
