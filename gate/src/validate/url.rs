//! The format `url`: which schemes, which hosts, and never a private or local address, however it's spelt.
//!
//! Stricter than the standards on purpose: whoever fetches the URL afterwards may read it otherwise than we do, so what two readers
//! could read differently is refused: other characters than printable ASCII, backslashes, a user before the host, a host that ends
//! with a dot, numbers for an address in any form but four plain decimals.
//!
//! What it can't know is where a name leads: a public name may resolve to a private address, and to another a moment later. What
//! keeps a run off a network is its policy.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

/// The longest URL, in bytes.
const MAX_URL: usize = 2_048;
/// The longest host name, and the longest part of one, in bytes (RFC 1035).
const MAX_HOST: usize = 253;
const MAX_LABEL: usize = 63;
/// The most schemes or hosts of a list.
const MAX_LISTED: usize = 64;
/// Names that are local by their last part (RFC 6761, RFC 6762, RFC 8375, and habit).
const LOCAL: [&str; 9] =
    ["localhost", "local", "localdomain", "internal", "intranet", "lan", "home", "corp", "arpa"];

/// What a schema says of URLs: `x-stockade-url = { schemes = ["https"], hosts = ["example.com", "*.example.org"] }`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    schemes: Vec<String>,
    /// `None`: any that isn't private.
    hosts: Option<Vec<Host>>,
}

/// A host, or all below one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Host {
    name: String,
    is_below: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self { schemes: vec!["https".into()], hosts: None }
    }
}

impl Rules {
    /// As a schema says them.
    ///
    /// # Errors
    /// What is wrong.
    pub fn of(said: &Value) -> Result<Self, String> {
        let object = said.as_object().ok_or("it is a table with `schemes` and `hosts`")?;
        if let Some(other) = object.keys().find(|key| !["schemes", "hosts"].contains(&key.as_str())) {
            return Err(format!("no key is named `{}`; there are: schemes, hosts", other.escape_debug()));
        }
        let mut rules = Self::default();
        if let Some(schemes) = object.get("schemes") {
            rules.schemes = list(schemes, "schemes", scheme)?;
        }
        if let Some(hosts) = object.get("hosts") {
            rules.hosts = Some(list(hosts, "hosts", host)?);
        }
        Ok(rules)
    }

    /// Whether a text is a URL that these let pass.
    ///
    /// # Errors
    /// What was expected instead.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
        if text.len() > MAX_URL || !plain {
            return Err(format!(
                "a URL of at most {MAX_URL} printable ASCII characters, without backslashes"
            ));
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(format!("a URL that begins with {}", self.schemes_listed()));
        };
        if !self.schemes.iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
            return Err(format!("a URL that begins with {}", self.schemes_listed()));
        }
        let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
        if authority.contains('@') {
            return Err("a URL without a user before its host".into());
        }
        let host = without_port(authority)?;
        let name = public(host)?;
        match &self.hosts {
            Some(hosts) if !hosts.iter().any(|allowed| allowed.is(&name)) => {
                Err(format!("a URL of a host that the tool lists: {}", self.hosts_listed()))
            }
            _ => Ok(()),
        }
    }

    fn schemes_listed(&self) -> String {
        self.schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ")
    }

    fn hosts_listed(&self) -> String {
        let hosts = self.hosts.iter().flatten().take(8);
        hosts
            .map(|host| if host.is_below { format!("*.{}", host.name) } else { host.name.clone() })
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Host {
    /// `*.example.org` is what ends with `.example.org`: not `evil-example.org`, and not `example.org` itself.
    fn is(&self, name: &str) -> bool {
        if !self.is_below {
            return self.name == name;
        }
        name.strip_suffix(self.name.as_str()).is_some_and(|front| front.len() > 1 && front.ends_with('.'))
    }
}

fn list<T>(value: &Value, key: &str, parse: fn(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let texts = value.as_array().ok_or_else(|| format!("`{key}` is a list"))?;
    if texts.is_empty() || texts.len() > MAX_LISTED {
        return Err(format!("`{key}` lists 1 to {MAX_LISTED}: none would let nothing pass"));
    }
    texts
        .iter()
        .map(|text| parse(text.as_str().ok_or_else(|| format!("`{key}` is a list of texts"))?))
        .collect()
}

fn scheme(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    if text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= 32
        && text.bytes().all(plain)
    {
        Ok(text.to_owned())
    } else {
        Err(format!("`{}` is no scheme: it is written as in \"https\"", text.escape_debug()))
    }
}

fn host(text: &str) -> Result<Host, String> {
    let (name, is_below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
    let public = public(name).map_err(|_| {
        format!(
            "`{}` is no public host name, as in \"example.com\" or \"*.example.com\"",
            text.escape_debug()
        )
    })?;
    if public != name || (is_below && name.contains(':')) {
        return Err(format!("`{}` is written in lower case, as in \"{public}\"", text.escape_debug()));
    }
    Ok(Host { name: public, is_below })
}

fn without_port(authority: &str) -> Result<&str, String> {
    // The last colon, unless it is within the brackets of an address.
    let Some(at) = authority.rfind(':').filter(|at| !authority[*at..].contains(']')) else {
        return Ok(authority);
    };
    let (host, port) = (&authority[..at], &authority[at + 1..]);
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(1..) if digits => Ok(host),
        _ => Err("a URL whose port is a number from 1 to 65535".into()),
    }
}

/// A host that isn't private, in its one spelling: lower case.
fn public(host: &str) -> Result<String, String> {
    if let Some(address) = host.strip_prefix('[') {
        let address = address.strip_suffix(']').and_then(|address| address.parse::<Ipv6Addr>().ok());
        return match address {
            Some(address) if is_public_v6(address) => Ok(format!("[{address}]")),
            Some(_) => Err("a URL of a public address".into()),
            None => Err("a URL of a host name or an address".into()),
        };
    }
    if ends_in_number(host) {
        // One, two or three numbers, octal, hexadecimal: readers differ on what they mean, so they mean nothing here.
        return match host.parse::<Ipv4Addr>() {
            Ok(address) if address.to_string() == host && is_public_v4(address) => Ok(host.to_owned()),
            Ok(_) => Err("a URL of a public address".into()),
            Err(_) => Err("a URL whose address is four decimal numbers".into()),
        };
    }
    let name = host.to_ascii_lowercase();
    let labels: Vec<&str> = name.split('.').collect();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let fits = |label: &&str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(plain)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if name.len() > MAX_HOST || !labels.iter().all(fits) {
        return Err("a URL of a host name with letters, digits, `-` and `.`, not at its end".into());
    }
    let last = labels.last().copied().unwrap_or_default();
    if labels.len() < 2 || LOCAL.contains(&last) {
        return Err("a URL of a public host, with its domain".into());
    }
    Ok(name)
}

/// Whether a host would be read as an address: by the URL standard its last part is a number, decimal, octal or hexadecimal.
fn ends_in_number(host: &str) -> bool {
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (!last.is_empty() && digits(last))
        || hexadecimal.is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Of the special-purpose registry (RFC 6890 and what followed) nothing, nor groups, nor what is reserved.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = matches!(
        address.octets(),
        [0 | 10 | 127 | 224..=255, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [172, 16..=31, ..]
            | [192, 168, ..]
            | [198, 18..=19, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
    );
    !is_special
}

/// Global unicast (2000::/3) without what carries another address in it or is for documents. So neither mapped nor translated
/// IPv4 (::/96, ::ffff:0:0/96, 64:ff9b::/96), nor local addresses (fc00::/7, fe80::/10), nor groups.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Teredo and other protocols' (2001::/23), documents' (2001:db8::/32).
        [0x2001, 0x0..=0x1ff | 0xdb8, ..] => false,
        // 6to4 (2002::/16), documents' (3fff::/20).
        [0x2002, ..] | [0x3fff, 0x0..=0xfff, ..] => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn any_host() -> Rules {
        Rules::of(&json!({ "schemes": ["https", "http"] })).unwrap()
    }

    const PRIVATE: &str = "
        127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001
        0x7F.0x0.0x0.0x1 127.0.0.1. 127.000.000.001 0 0.0.0.0 10.0.0.1 10.1 172.16.0.1
        172.31.255.255 192.168.1.1 169.254.169.254 2852039166 0xa9fea9fe 0251.0376.0251.0376
        169.254.43518 100.64.0.1 198.18.0.1 224.0.0.1 255.255.255.255 240.0.0.1 192.0.0.1 [::1]
        [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1]
        [64:ff9b::169.254.169.254] [2002:7f00:1::] [2001::1] [fe80::1] [fe80::1%25eth0]
        [fe80::1%eth0] [fc00::1] [fd00:ec2::254] [ff02::1] [2001:db8::1] localhost LOCALHOST
        localhost. a.localhost foo.local printer metadata.google.internal router.lan
        1.0.0.127.in-addr.arpa 0x7f.1. 1.2.3.4.5 08.1.1.1 256.1.1.1 1.1.1.0x 0x
    ";

    #[test]
    fn private_addresses_are_refused_in_every_spelling() {
        for host in PRIVATE.split_whitespace() {
            assert!(any_host().check(&format!("http://{host}/")).is_err(), "{host}");
            assert!(any_host().check(&format!("http://{host}:80/")).is_err(), "{host}");
        }
        for host in [
            "8.8.8.8",
            "1.1.1.1",
            "[2606:4700:4700::1111]",
            "example.com",
            "EXAMPLE.com",
            "xn--mnchen-3ya.de",
            "172.32.0.1",
            "a.b.c.example",
        ] {
            assert!(any_host().check(&format!("http://{host}/")).is_ok(), "{host}");
        }
    }

    #[test]
    fn what_readers_read_differently_is_refused() {
        for url in [
            "http://user@example.com/",
            "http://example.com@127.0.0.1/",
            "http://127.0.0.1#@example.com/",
            "http://example.com\\@127.0.0.1/",
            "http:\\\\127.0.0.1",
            "http:/example.com",
            "http:example.com",
            "//example.com",
            "example.com",
            "http://",
            "http:///etc/passwd",
            "http://example.com:0/",
            "http://example.com:99999/",
            "http://example.com:/",
            "http://example.com:8a/",
            "http://example.com:+80/",
            "http://example.com./",
            "http://.example.com/",
            "http://exa mple.com/",
            "http://example.com/\n",
            "\nhttp://example.com/",
            "http://ex\u{ff41}mple.com/",
            "http://\u{ff11}27.0.0.1/",
            "http://127\u{3002}0.0.1/",
            "http://ex%61mple.com/",
            "http://%31%32%37.0.0.1/",
            "http://[::1",
            "http://::1/",
            "http://[1.2.3.4]/",
            "http://exa_mple.com/",
            "http://-a.com/",
            "http://a..com/",
            "http://example.com\0.evil.com/",
            "http://[v1.a]/",
        ] {
            assert!(any_host().check(url).is_err(), "{url}");
        }
        assert!(any_host().check(&format!("http://example.com/{}", "a".repeat(MAX_URL))).is_err());
    }

    #[test]
    fn schemes_and_hosts_are_those_that_are_listed() {
        let rules = Rules::of(&json!({ "hosts": ["example.com", "*.example.org"] })).unwrap();
        for url in [
            "https://example.com",
            "https://EXAMPLE.COM:8443/x?y#z",
            "HTTPS://a.example.org/",
            "https://a.b.example.org",
        ] {
            assert!(rules.check(url).is_ok(), "{url}");
        }
        for url in [
            "http://example.com",
            "https://example.org",
            "https://evil-example.org",
            "https://evilexample.com",
            "https://example.com.evil.net",
            "https://x.example.com",
            "https://.example.org",
            "file:///etc/passwd",
            "javascript://example.com/",
            "gopher://example.com/",
            "https://example.com@evil.net",
        ] {
            assert!(rules.check(url).is_err(), "{url}");
        }
    }

    #[test]
    fn an_empty_list_is_no_list() {
        for wrong in [
            json!({ "hosts": [] }),
            json!({ "schemes": [] }),
            json!({ "hosts": ["127.0.0.1"] }),
            json!({ "hosts": ["*"] }),
            json!({ "hosts": ["*.com."] }),
            json!({ "host": ["a.b"] }),
            json!({ "hosts": "example.com" }),
            json!([]),
            json!({ "schemes": ["HTTP"] }),
            json!({ "hosts": ["Example.com"] }),
            json!({ "hosts": ["a.*.com"] }),
            json!({ "hosts": ["localhost"] }),
        ] {
            assert!(Rules::of(&wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_private_address_passes_however_its_numbers_are_written(
            address in prop_oneof![Just(0x7f00_0001_u32), 0x0a00_0000_u32..0x0b00_0000, 0xa9fe_0000_u32..0xa9ff_0000, 0xc0a8_0000_u32..0xc0a9_0000, 0xac10_0000_u32..0xac20_0000],
            parts in 1..=4_usize, radix in prop::collection::vec(0..3_u8, 4), dot in any::<bool>(), zeros in 0..3_usize,
        ) {
            let bytes = address.to_be_bytes();
            let mut numbers: Vec<u64> = bytes[..parts - 1].iter().map(|byte| u64::from(*byte)).collect();
            numbers.push(bytes[parts - 1..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
            let zeros = "0".repeat(zeros);
            let written: Vec<String> = numbers.iter().zip(&radix).map(|(number, radix)| match radix {
                0 => number.to_string(),
                1 => format!("0{zeros}{number:o}"),
                _ => format!("0x{zeros}{number:X}"),
            }).collect();
            let host = format!("{}{}", written.join("."), if dot { "." } else { "" });
            prop_assert!(any_host().check(&format!("http://{host}/")).is_err(), "{}", host);
        }

        #[test]
        fn no_text_panics_and_hosts_that_pass_are_plain(text in "(https?://)?[a-z0-9.:@\\[\\]/#?%\\\\-]{0,24}") {
            if any_host().check(&text).is_ok() {
                let host = text.split("://").nth(1).unwrap().split(['/', '?', '#']).next().unwrap();
                prop_assert!(!host.contains(['@', '\\', '%']));
            }
        }
    }
}
