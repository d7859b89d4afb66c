//! The redactor as a whole: every cut of a text, every form, values in every coat, flushes at any time.

use core::time::Duration;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::forms::expanded;
use super::stream::MAX_FOLLOWED;
use super::values::Form;
use super::{FLUSH_AFTER, Forms, HELD_OF_VALUE, MAX_SPAN, MIN_VALUE, Redactor, Secret};

static SHIPPED: LazyLock<Arc<Forms>> =
    LazyLock::new(|| Arc::new(Forms::shipped_and_tried().unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))));

const VALUE: &[u8] = b"c0rrect-horse/battery";
const OTHER: &[u8] = b"battery+staple";

fn redactor() -> Redactor {
    let secrets = [("API", VALUE), ("DB", OTHER)].map(|(name, value)| Secret::new(name, value).unwrap());
    Redactor::new(Arc::clone(&SHIPPED), secrets.into())
}

/// Through a redactor in these pieces.
fn through<'a>(mut redactor: Redactor, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        redactor.feed(Duration::ZERO, piece, &mut out);
    }
    redactor.finish(&mut out);
    out
}

fn whole(text: &[u8]) -> Vec<u8> {
    through(redactor(), [text])
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&whole(text)).into_owned()
}

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Texts of all sorts, with tokens, values, and beginnings of both in between.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let tokens = [
        "ghp_<36>",
        "ghp_<20>",
        "AKIA<16:upper>",
        "eyJ<30>.eyJ<40>.<43>",
        "eyJ<30>.",
        "postgres://app:<12>@db/",
        "https://example.com/<5>",
        "-----BEGIN RSA PRIVATE KEY-----\n<64>\n-----END RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----\n<200>",
        "-----BEGIN CERT",
        "xoxb-<12:digit>-<24>",
        "sk-<48>",
        "sk-ant-<30>",
    ];
    let part = prop_oneof![
        3 => prop::sample::select(tokens.to_vec()).prop_map(|text| expanded(text).into_bytes()),
        2 => prop::sample::select(vec![VALUE.to_vec(), OTHER.to_vec()]),
        1 => (1usize..VALUE.len()).prop_map(|long| VALUE[..long].to_vec()),
        // Two values that overlap: the end of one is the beginning of the other.
        1 => Just([VALUE, &OTHER[7..]].concat()),
        2 => prop::collection::vec(any::<u8>(), 0..30),
        2 => "[a-z0-9 ./:@_-]{0,40}".prop_map(String::into_bytes),
        1 => prop::sample::select(vec![b"\n".to_vec(), b" ".to_vec(), "ü".as_bytes().to_vec(), b"\\n".to_vec()]),
    ];
    prop::collection::vec(part, 0..40).prop_map(|parts| {
        let mut text = parts.concat();
        text.truncate(1_024);
        text
    })
}

/// 4 KiB with some of everything.
fn long_text() -> Vec<u8> {
    let parts = "line 1 ghp_<36> and AKIA<16:upper>, c0rrect-horse/battery; eyJ<30>.eyJ<40>.<43>\n\
                 https://example.com/x postgres://app:<12>@db/ YzBycmVjdC1ob3JzZS9iYXR0ZXJ5 c0rrect-horse/bat\n\
                 -----BEGIN RSA PRIVATE KEY-----\n<64>\n<64>\n-----END RSA PRIVATE KEY----- -----BEGIN CERTIFICATE-----\n\
                 xoxb-<12:digit>-<24> sk-<48> ghp_<20> c0rrect-horse/battery+staple glpat-<20> eyJ<30>. ";
    let mut text = expanded(parts).into_bytes().repeat(8);
    text.truncate(4_096);
    text
}

#[test]
fn for_all_cuts_of_4_kib_the_output_is_the_same_and_nothing_known_is_missed() {
    let text = long_text();
    assert_eq!(text.len(), 4_096);
    let expected = whole(&text);
    for part in [VALUE, OTHER, expanded("<36>").as_bytes(), b"YzBycmVjdC1ob3JzZS9iYXR0ZXJ5", b"aB3dE5gH7jK9@"]
    {
        assert!(!has(&expected, part), "{}", String::from_utf8_lossy(part));
    }
    let start = redactor();
    for cut in 0..=text.len() {
        let (one, other) = text.split_at(cut);
        assert!(through(start.clone(), [one, other]) == expected, "cut at {cut}");
    }
    assert!(through(start, text.chunks(1)) == expected);
}

#[test]
fn every_form_finds_its_cases_and_no_other_text() {
    // Reading them tries all cases of each by itself; here through all forms together.
    for (text, mark) in [
        ("token: ghp_<36>\n", "token: [redacted:github-token]\n"),
        (
            "AKIA<16:upper> and AKIA<15:upper>",
            &format!("[redacted:aws-access-key-id] and {}", expanded("AKIA<15:upper>")),
        ),
        ("redis://:<10>@cache:6379", "[redacted:connection-string]cache:6379"),
        ("Authorization: Bearer eyJ<30>.eyJ<40>.<43>", "[redacted:authorization-header]"),
        ("a -----BEGIN PRIVATE KEY-----\n<64>\n-----END PRIVATE KEY-----\nb", "a [redacted:private-key]\nb"),
        ("sk-ant-api03-<95>", "[redacted:anthropic-key]"),
    ] {
        assert_eq!(shown(expanded(text).as_bytes()), mark, "{text}");
    }
    assert!(SHIPPED.len() >= 60, "{}", SHIPPED.len());
}

#[test]
fn a_form_without_a_source_or_a_case_of_each_kind_is_not_shipped() {
    let text = include_str!("forms.toml");
    let forms: Vec<&str> = text.split("\n[forms.").skip(1).collect();
    assert_eq!(forms.len(), SHIPPED.len());
    for form in forms {
        for key in ["source = ", "pattern = ", "matches = [", "misses = ["] {
            assert!(form.contains(&format!("\n{key}")), "[forms.{form} has no {key}");
        }
    }
}

#[test]
fn values_are_hidden_in_every_coat() {
    assert_eq!(shown(b"it is c0rrect-horse/battery!"), "it is [redacted:API]!");
    assert_eq!(shown(b"c0rrect-horse%2Fbattery c0rrect-horse%2fbattery"), "[redacted:API] [redacted:API]");
    assert_eq!(shown(b"battery%2Bstaple"), "[redacted:DB]");
    assert_eq!(shown(b"YzBycmVjdC1ob3JzZS9iYXR0ZXJ5"), "[redacted:API]");
    // `user:` before it: a character that says something of its neighbour, too, stays.
    assert_eq!(shown(b"dXNlcjpjMHJyZWN0LWhvcnNlL2JhdHRlcnk="), "dXNlcjp[redacted:API]k=");
    assert_eq!(shown(b"626174746572792b737461706c65"), "[redacted:DB]");
}

#[test]
fn what_overlaps_is_hidden_together() {
    let text = [VALUE, &OTHER[7..]].concat();
    assert_eq!(shown(&text), "[redacted:API]");
    assert_eq!(shown(&[OTHER, OTHER].concat()), "[redacted:DB][redacted:DB]");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Every cut into two, and every cut into equal pieces of any size up to a few hundred bytes.
    #[test]
    fn for_all_cuts_of_a_text_the_output_is_the_same(text in text()) {
        let expected = whole(&text);
        let start = redactor();
        for cut in 0..=text.len() {
            let (one, other) = text.split_at(cut);
            prop_assert!(through(start.clone(), [one, other]) == expected, "cut at {}", cut);
        }
        for size in [1, 2, 3, 5, 7, 11, 64, 255] {
            prop_assert!(through(start.clone(), text.chunks(size)) == expected, "pieces of {}", size);
        }
    }

    /// Any cuts, pieces of nothing among them.
    #[test]
    fn for_random_cuts_of_a_text_the_output_is_the_same(text in text(), cuts in prop::collection::vec(0usize..4_096, 0..40)) {
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]);
        prop_assert_eq!(through(redactor(), pieces), whole(&text));
    }

    /// Nothing known is missed, whatever stands around it and however it's cut; only a beginning that goes out with a flush may
    /// be seen, and of a known value no more than the bound says.
    #[test]
    fn nothing_known_comes_out_flushed_or_not(
        text in text(),
        behind in text(),
        cuts in prop::collection::vec((0usize..4_096, prop::bool::ANY), 0..20),
    ) {
        let text = [&text[..], VALUE, &behind].concat();
        prop_assert!(!has(&whole(&text), VALUE) && !has(&whole(&text), OTHER));
        let mut cuts: Vec<(usize, bool)> = cuts.into_iter().map(|(cut, flush)| (cut.min(text.len()), flush)).collect();
        cuts.push((text.len(), false));
        cuts.sort_unstable();
        let (mut redactor, mut out, mut from) = (redactor(), Vec::new(), 0);
        for (cut, flush) in cuts {
            redactor.feed(Duration::ZERO, &text[from..cut], &mut out);
            from = cut;
            if flush {
                redactor.flush(&mut out);
                prop_assert!(redactor.flush_at().is_none(), "there is something left to flush");
            }
        }
        redactor.finish(&mut out);
        prop_assert!(!has(&out, VALUE) && !has(&out, OTHER));
        prop_assert_eq!(redactor.held(), 0);
    }

    /// What has no secret in it comes out byte for byte, and nothing counts.
    #[test]
    fn text_without_secrets_passes_unchanged(
        text in prop::collection::vec(prop_oneof!["[A-Za-z ]{0,20}", "[0-9 .,:;=+-]{0,20}", "\\PC{0,5}"], 0..60),
        size in 1usize..80,
    ) {
        let text = text.concat().into_bytes();
        let mut redactor = redactor();
        let mut out = Vec::new();
        for piece in text.chunks(size) {
            redactor.feed(Duration::ZERO, piece, &mut out);
        }
        redactor.finish(&mut out);
        if redactor.counts().marks.is_empty() {
            prop_assert_eq!(out, text);
        } else {
            // Chance has made one: then it's that which is missing and nothing else.
            prop_assert!(has(&out, b"[redacted:"));
        }
    }

    /// What is held is bounded by the longest span, and a byte goes out as soon as nothing that it may be of is possible.
    #[test]
    fn what_is_held_is_bounded(text in text(), size in 1usize..500) {
        let mut redactor = redactor();
        let mut out = Vec::new();
        for piece in text.repeat(8).chunks(size) {
            redactor.feed(Duration::ZERO, piece, &mut out);
            prop_assert!(redactor.held() <= MAX_SPAN);
        }
    }
}

#[test]
fn only_what_may_be_a_secret_is_held_and_no_longer_than_it_may_be() {
    let mut redactor = redactor();
    let mut out = Vec::new();
    redactor.feed(Duration::from_secs(1), b"hello ghp_abc", &mut out);
    assert_eq!((out.as_slice(), redactor.held()), (&b"hello "[..], 7));
    assert_eq!(redactor.flush_at(), Some(Duration::from_secs(1) + FLUSH_AFTER));
    redactor.feed(Duration::from_secs(2), b"def", &mut out);
    assert_eq!(redactor.flush_at(), Some(Duration::from_secs(1) + FLUSH_AFTER), "the oldest byte counts");
    redactor.feed(Duration::from_secs(2), b" and AKIA", &mut out);
    assert_eq!((out.as_slice(), redactor.held()), (&b"hello ghp_abcdef and "[..], 4));
    assert_eq!(redactor.flush_at(), Some(Duration::from_secs(2) + FLUSH_AFTER));
}

#[test]
fn a_flush_lets_a_beginning_out_and_hides_the_rest() {
    let token = expanded("ghp_<36>");
    let mut redactor = redactor();
    let mut out = Vec::new();
    redactor.feed(Duration::ZERO, &token.as_bytes()[..10], &mut out);
    redactor.flush(&mut out);
    assert_eq!(out, token.as_bytes()[..10]);
    redactor.feed(Duration::ZERO, &token.as_bytes()[10..], &mut out);
    redactor.feed(Duration::ZERO, b" done", &mut out);
    assert_eq!(String::from_utf8_lossy(&out), format!("{}[redacted:github-token] done", &token[..10]));
    assert_eq!(redactor.counts().late, 1);
}

#[test]
fn a_flush_in_the_middle_of_a_private_key_shows_nothing_of_it() {
    let key = expanded("-----BEGIN PRIVATE KEY-----\n<64>\n<64>\n-----END PRIVATE KEY-----");
    let mut redactor = redactor();
    let mut out = Vec::new();
    // The first line comes whole: what is written in the middle of that is a beginning like any other.
    for piece in std::iter::once(&key.as_bytes()[..30]).chain(key.as_bytes()[30..].chunks(9)) {
        redactor.feed(Duration::ZERO, piece, &mut out);
        redactor.flush(&mut out);
    }
    redactor.finish(&mut out);
    let out = String::from_utf8(out).unwrap();
    assert!(!out.contains("aB3dE5"), "{out}");
    assert_eq!(redactor.counts().marks.values().sum::<u64>(), 1);
}

#[test]
fn the_beginning_of_a_known_value_waits_for_what_comes_and_for_the_end() {
    for long in 1..VALUE.len() {
        let mut redactor = redactor();
        let mut out = Vec::new();
        redactor.feed(Duration::ZERO, b"> ", &mut out);
        redactor.feed(Duration::ZERO, &VALUE[..long], &mut out);
        redactor.flush(&mut out);
        let held = if long >= HELD_OF_VALUE { long } else { 0 };
        assert_eq!((redactor.held(), redactor.flush_at()), (held, None), "{long}");
        let mut cut = redactor.clone();
        redactor.feed(Duration::ZERO, &VALUE[long..], &mut out);
        redactor.feed(Duration::ZERO, b"!", &mut out);
        let before = &VALUE[..long - held];
        assert_eq!(out, [b"> ", before, b"[redacted:API]!"].concat());
        let mut out = Vec::new();
        cut.finish(&mut out);
        let hidden: &[u8] = if held > 0 { b"[redacted:API]" } else { b"" };
        assert_eq!(out, hidden, "the rest may have been cut off");
    }
}

#[test]
fn an_operators_forms_are_tried_when_they_are_read_and_take_the_place_of_known_ones() {
    assert!(!Forms::with("redact.toml", "").unwrap().by_default());
    assert!(Forms::with("redact.toml", "by-default = true\n").unwrap().by_default());
    let text = "[forms.acme]\npattern = 'acme-[a-z]{8}'\nmatches = [\"acme-<8:lower>\"]\n\
                [forms.github-token]\npattern = 'ghp-[a-z]{4}'\n";
    let forms = Arc::new(Forms::with("redact.toml", text).unwrap());
    assert_eq!(forms.len(), SHIPPED.len() + 1);
    let out =
        through(Redactor::new(forms, Vec::new()), [expanded("acme-abcdefgh ghp-abcd ghp_<36>").as_bytes()]);
    let expected = format!("[redacted:acme] [redacted:github-token] {}", expanded("ghp_<36>"));
    assert_eq!(String::from_utf8_lossy(&out), expected);

    let text = "[forms.a]\npattern = 'a+'\n[forms.b]\nmatches = []\n[forms.c]\npattern = 'cc'\nmatches = [\"d\"]\n\
                misses = [\"xccx\"]\n[forms.d]\npattern = '.*'\npatern = ''\n";
    let mistakes = Forms::with("redact.toml", text).unwrap_err();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let expected = [
        (2, "it matches more than 10240 bytes"),
        (3, "`pattern`: it isn't there"),
        (7, "the pattern finds nothing in it"),
        (8, "the pattern finds something in it"),
        (10, "it matches more than 10240 bytes"),
        (11, "unknown key `patern` in [forms.NAME]; did you mean `pattern`?"),
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, (line, part)) in told.iter().zip(expected) {
        assert!(told.starts_with(&format!("redact.toml:{line}:")) && told.contains(part), "{told}");
    }
}

#[test]
fn counts_are_by_name() {
    let mut redactor = redactor();
    let text = expanded("ghp_<36> AKIA<16:upper> gho_<36> c0rrect-horse/battery");
    redactor.feed(Duration::ZERO, text.as_bytes(), &mut Vec::new());
    redactor.finish(&mut Vec::new());
    let counts = redactor.counts();
    let marks: Vec<(&str, u64)> = counts.marks.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    assert_eq!(marks, [("API", 1), ("aws-access-key-id", 1), ("github-token", 2)]);
    assert_eq!(counts.late, 0);
    assert!(Secret::new("short", &VALUE[..MIN_VALUE - 1]).is_err());
}

/// Forms of letters after which there may be many more, as an operator writes them.
static GREEDY: LazyLock<Arc<Forms>> = LazyLock::new(|| {
    let text = "[forms.key]\npattern = 'k-[a-z-]{40,600}!'\n[forms.word]\npattern = 'w_[a-z_-]{9,90}[.]'\n";
    Arc::new(Forms::with("redact.toml", text).unwrap())
});

fn greedy() -> Redactor {
    Redactor::new(Arc::clone(&GREEDY), Vec::new())
}

/// Beginnings in beginnings, with all that ends them.
fn crowded_text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        4 => (1usize..120).prop_map(|count| "k-".repeat(count)),
        2 => (1usize..60).prop_map(|count| "k-w_".repeat(count)),
        2 => "[a-z-]{0,30}",
        1 => "[-kw_!. ]{0,9}",
    ];
    prop::collection::vec(part, 1..12).prop_map(|parts| parts.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What isn't followed is hidden: never less than what the patterns say, and the same however it's cut up.
    #[test]
    fn beside_too_many_candidates_no_match_is_shown_and_cuts_change_nothing(text in crowded_text(), cuts in prop::collection::vec(0usize..2_000, 0..12)) {
        let expected = through(greedy(), [&text[..]]);
        for size in [1, 2, 3, 7, 8, 9, 64] {
            prop_assert!(through(greedy(), text.chunks(size)) == expected, "pieces of {}", size);
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        prop_assert_eq!(&through(greedy(), cuts.windows(2).map(|ends| &text[ends[0]..ends[1]])), &expected);
        let (mut redactor, mut out) = (greedy(), Vec::new());
        for piece in text.chunks(50) {
            redactor.feed(Duration::ZERO, piece, &mut out);
            prop_assert!(redactor.held() <= MAX_SPAN);
            redactor.flush(&mut out);
            prop_assert!(redactor.flush_at().is_none() && redactor.held() == 0);
        }
        // Every match ends with one of these, and a text with a match that isn't hidden has it behind what may be in one.
        let whole = regex::bytes::Regex::new("k-[a-z-]{40,600}!|w_[a-z_-]{9,90}[.]").unwrap();
        prop_assert!(!whole.is_match(&expected), "{}", String::from_utf8_lossy(&expected));
    }
}

#[test]
fn so_many_candidates_are_followed_and_what_begins_beside_them_is_hidden() {
    let followed = |text: &[u8]| {
        let (mut redactor, mut out, mut most) = (greedy(), Vec::new(), 0);
        for piece in text.chunks(7) {
            redactor.feed(Duration::ZERO, piece, &mut out);
            most = most.max(redactor.followed());
        }
        redactor.finish(&mut out);
        (most, out)
    };
    // None of them ends as it has to: as many as are followed are found not to be any.
    let few = "k-".repeat(MAX_FOLLOWED);
    assert_eq!(followed(few.as_bytes()).1, few.as_bytes());
    let (most, out) = followed("k-".repeat(2_000).as_bytes());
    // Beside them those of the last few bytes, of which it isn't clear yet that they begin.
    assert!(most <= MAX_FOLLOWED + 8, "{most}");
    assert!(String::from_utf8_lossy(&out).contains("[redacted:key]") && out.len() < 1_000, "{}", out.len());
    // What was hidden so ends: text behind it comes out.
    let mut text = "k-".repeat(2_000).into_bytes();
    text.extend_from_slice(" and a line. ".repeat(100).as_bytes());
    let (_, out) = followed(&text);
    assert!(String::from_utf8_lossy(&out).ends_with(&" and a line. ".repeat(50)));
}

/// What follows a place that is so far behind the beginning of an unknown text is right, whatever stood before.
#[test]
fn behind_the_reach_of_what_is_not_known_a_redactor_says_what_one_that_knows_says() {
    let sought = Arc::new(super::Sought::new(Arc::clone(&SHIPPED), vec![Secret::new("API", VALUE).unwrap()]));
    let reach = sought.reach();
    assert!(reach >= MAX_SPAN && reach <= super::MAX_FORM.max(MAX_SPAN));
    let text = long_text().repeat(reach / 4_096 + 3);
    for cut in (4_000..4_200).step_by(7) {
        let (mut knows, mut fresh) = (Redactor::of(Arc::clone(&sought)), Redactor::of(Arc::clone(&sought)));
        let (mut expected, mut out, mut unseen) = (Vec::new(), Vec::new(), Vec::new());
        let (gap, zone) = (&text[..cut], &text[cut..cut + reach]);
        knows.feed(Duration::ZERO, gap, &mut unseen);
        knows.feed(Duration::ZERO, zone, &mut unseen);
        fresh.feed(Duration::ZERO, zone, &mut unseen);
        for (redactor, out) in [(&mut knows, &mut expected), (&mut fresh, &mut out)] {
            redactor.feed(Duration::ZERO, &text[cut + reach..], out);
            redactor.finish(out);
        }
        assert!(expected == out, "behind a gap of {cut}");
    }
}

/// Values that repeat themselves: as they are, in hexadecimal, and one in another.
fn periodic(long: usize) -> Vec<Secret> {
    let raw = [vec![b'a'; long], b"b".to_vec()].concat();
    let in_hex = [vec![0xaa; long], vec![0x0b]].concat();
    let twice = [b"aab".repeat(long / 3 + 2), b"aaa".to_vec()].concat();
    let whole = vec![b'a'; long + 6];
    [raw, in_hex, twice, whole].map(|value| Secret::new("it", &value).unwrap()).into()
}

/// By looking at every place for every form: what is hidden, by what overlaps.
fn by_looking(secrets: &[Secret], text: &[u8]) -> Vec<u8> {
    let mut spans = Vec::new();
    for Form { bytes, .. } in secrets.iter().flat_map(|secret| &secret.forms) {
        let whole = (0..text.len()).filter(|at| text[*at..].starts_with(bytes));
        spans.extend(whole.map(|at| (at, at + bytes.len())));
        let begun =
            (0..text.len()).find(|at| bytes.len() > text.len() - at && bytes.starts_with(&text[*at..]));
        spans.extend(begun.filter(|at| text.len() - at >= HELD_OF_VALUE).map(|at| (at, text.len())));
    }
    spans.sort_unstable();
    let (mut out, mut shown, mut hidden) = (Vec::new(), 0, 0);
    for (start, end) in spans {
        if start >= hidden {
            out.extend_from_slice(&text[shown..start]);
            out.extend_from_slice(b"[redacted:it]");
        }
        hidden = hidden.max(end);
        shown = hidden;
    }
    out.extend_from_slice(&text[shown..]);
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// As looking at every place would, however it's cut; and one candidate a form is enough.
    #[test]
    fn values_that_repeat_themselves_are_found_wherever_they_begin(
        long in 6usize..40,
        parts in prop::collection::vec(prop_oneof![
            4 => (1usize..90).prop_map(|count| "a".repeat(count)),
            3 => (1usize..20).prop_map(|count| "aab".repeat(count)),
            2 => "[ab0]{0,9}",
            1 => (1usize..50).prop_map(|count| format!("{}0b", "aa".repeat(count))),
            1 => Just(" line\n".to_owned()),
        ], 1..12),
        cuts in prop::collection::vec(0usize..900, 0..12),
    ) {
        let (secrets, text) = (periodic(long), parts.concat().into_bytes());
        let forms: usize = secrets.iter().map(|secret| secret.forms.len()).sum();
        let expected = by_looking(&secrets, &text);
        let start = Redactor::new(Arc::new(Forms::none()), secrets);
        for size in [1, 2, 3, 7, 8, 9, 64, 4_096] {
            prop_assert_eq!(&through(start.clone(), text.chunks(size)), &expected, "pieces of {}", size);
        }
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let (mut redactor, mut out) = (start, Vec::new());
        for piece in cuts.windows(2).map(|ends| &text[ends[0]..ends[1]]) {
            redactor.feed(Duration::ZERO, piece, &mut out);
            prop_assert!(redactor.followed() <= forms, "{} for {} forms", redactor.followed(), forms);
        }
        redactor.finish(&mut out);
        prop_assert_eq!(out, expected);
    }
}

#[test]
fn a_long_value_that_repeats_itself_has_one_candidate_in_a_piece() {
    let long = super::MAX_VALUE - 1;
    let secrets = vec![Secret::new("it", &[vec![b'a'; long], b"b".to_vec()].concat()).unwrap()];
    let mut redactor = Redactor::new(Arc::new(Forms::none()), secrets);
    let mut out = Vec::new();
    redactor.feed(Duration::ZERO, &vec![b'a'; 32 * 1024], &mut out);
    assert_eq!((redactor.followed(), redactor.held()), (1, long));
    redactor.feed(Duration::ZERO, b"b!", &mut out);
    assert!(out.ends_with(b"a[redacted:it]!") && out.len() == 32 * 1024 - long + b"[redacted:it]!".len());
}
