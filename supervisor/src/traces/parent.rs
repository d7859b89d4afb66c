//! The client's `traceparent`, as the environment carries it: the variable `TRACEPARENT` of the request.
//!
//! `00-TRACE-SPAN-FLAGS`, in lower-case hexadecimal: <https://www.w3.org/TR/trace-context/#traceparent-header>. What isn't that
//! is no parent, and no error: it is the client's environment before it is anything else.

use stockade_protocol::Bytes;

/// The variable.
const NAME: &[u8] = b"TRACEPARENT";
/// Whether the trace is recorded at all.
const SAMPLED: u8 = 1;

/// A span of the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(super) trace: [u8; 16],
    pub(super) span: [u8; 8],
    pub(super) is_sampled: bool,
}

impl Parent {
    /// What a request's environment says.
    pub(crate) fn of(environment: &[(Bytes, Bytes)]) -> Option<Self> {
        let value = environment.iter().rev().find(|(name, _)| name.0 == NAME).map(|(_, value)| value)?;
        Self::read(core::str::from_utf8(value).ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let version: [u8; 1] = hex(parts.next()?)?;
        let (trace, span) = (hex(parts.next()?)?, hex(parts.next()?)?);
        let [flags]: [u8; 1] = hex(parts.next()?)?;
        // Later versions may have more behind; this one may not.
        let is_known = version != [0xff] && (version != [0] || parts.next().is_none());
        let is_named = trace != [0; 16] && span != [0; 8];
        (is_known && is_named).then_some(Self { trace, span, is_sampled: flags & SAMPLED != 0 })
    }
}

#[cfg(feature = "fuzzing")]
impl Parent {
    /// As the variable says it, in the version that is written here.
    pub(crate) fn to_text(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        format!("00-{}-{}-{:02x}", hex(&self.trace), hex(&self.span), u8::from(self.is_sampled))
    }
}

fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let plain = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    if digits.len() != 2 * N || !plain {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_variable_is_read_as_the_standard_has_it() {
        let environment =
            |value: &str| [("PATH".into(), "/bin".into()), ("TRACEPARENT".into(), value.into())];
        let parent = Parent::of(&environment(GOOD)).unwrap();
        assert_eq!((parent.trace[0], parent.trace[15]), (0x0a, 0x9c));
        assert_eq!((parent.span[0], parent.span[7], parent.is_sampled), (0xb7, 0x31, true));
        assert!(!Parent::of(&environment(&GOOD.replace("-01", "-00"))).unwrap().is_sampled);
        assert!(Parent::read(&(GOOD.replacen("00", "01", 1) + "-more")).is_some(), "a later version");
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            &GOOD.replace("b7ad", "b7a"),
            &GOOD.replace("b7ad", "+7ad"),
            &GOOD.replace("b7ad", "b7aé"),
        ] {
            assert_eq!(Parent::of(&environment(bad)), None, "{bad}");
        }
        assert_eq!(Parent::of(&[]), None);
    }
}
