//! Paths as policies write them: one variable or `/` at the front, then plain names.
//!
//! There are no path globs: `*` in a path can't be exact for names that come into being while a run goes on, and
//! a rule that is only roughly right is worse than none. `*`, `?` and `[` are refused with that reason.

use core::fmt;

use stockade_protocol::bounds::MAX_PATH;

use crate::said::Said;

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Base {
    /// `/`
    Root,
    /// `${workspace}`
    Workspace,
    /// `${home}`
    Home,
    /// `${tmp}`: `/tmp`.
    Tmp,
    /// `${cache}`: `${home}/.cache/stockade/<policy>`, made when it doesn't exist.
    Cache,
}

const BASES: [(&str, Base); 4] = [
    ("${workspace}", Base::Workspace),
    ("${home}", Base::Home),
    ("${tmp}", Base::Tmp),
    ("${cache}", Base::Cache),
];

/// What the variables stand for in one request. Absolute and normalised.
#[derive(Debug, Clone)]
pub(crate) struct Roots {
    pub(crate) workspace: Vec<u8>,
    pub(crate) home: Vec<u8>,
    pub(crate) cache: Vec<u8>,
}

impl Roots {
    fn of(&self, base: Base) -> &[u8] {
        match base {
            Base::Root => b"/",
            Base::Workspace => &self.workspace,
            Base::Home => &self.home,
            Base::Tmp => b"/tmp",
            Base::Cache => &self.cache,
        }
    }
}

/// A path rule: a base and plain names below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    base: Base,
    /// Names joined by `/`; empty for the base itself.
    rest: Said,
}

impl Place {
    /// Parses an absolute place (`read`, `write`, `execute`).
    pub(crate) fn absolute(text: &str) -> Result<Self, String> {
        let place = Self::parse(text)?;
        place.ok_or_else(|| format!("`{text}` doesn't begin with `/` or a variable"))
    }

    /// Parses a place of `deny` or `protect`; a relative one is below `${workspace}`.
    pub(crate) fn guarded(text: &str) -> Result<Self, String> {
        if text.starts_with('~') {
            return Err(format!("`{text}`: write `${{home}}` for the home directory"));
        }
        let place = match Self::parse(text)? {
            Some(place) => place,
            None => Self { base: Base::Workspace, rest: plain(text, text)? },
        };
        if place.rest.is_empty() {
            return Err(format!("`{text}` would take the whole of it away; leave it out of the other lists"));
        }
        Ok(place)
    }

    fn parse(text: &str) -> Result<Option<Self>, String> {
        if text.is_empty() {
            return Err("the path is empty".into());
        }
        if text.starts_with('~') {
            return Err(format!("`{text}`: write `${{home}}` for the home directory"));
        }
        if let Some(rest) = text.strip_prefix('/') {
            return Ok(Some(Self { base: Base::Root, rest: plain(rest, text)? }));
        }
        if !text.starts_with('$') {
            return Ok(None);
        }
        for (name, base) in BASES {
            if let Some(rest) = text.strip_prefix(name) {
                if !rest.is_empty() && !rest.starts_with('/') {
                    return Err(format!("`{text}`: `/` must follow `{name}`"));
                }
                return Ok(Some(Self { base, rest: plain(rest, text)? }));
            }
        }
        Err(format!("`{text}`: the variables are `${{workspace}}`, `${{home}}`, `${{tmp}}` and `${{cache}}`"))
    }

    /// As the others, of a shipped policy's text: a test holds that it's what parsing gives.
    pub(crate) fn built(text: &'static str) -> Self {
        let place = |base, rest: &'static str| Self { base, rest: Said::Built(rest.trim_start_matches('/')) };
        if text.starts_with('/') {
            return place(Base::Root, text);
        }
        let variable = |(name, base)| text.strip_prefix(name).map(|rest| place(base, rest));
        let named = if text.starts_with('$') { BASES.into_iter().find_map(variable) } else { None };
        named.unwrap_or_else(|| place(Base::Workspace, text))
    }

    pub(crate) fn is_root(&self) -> bool {
        self.base == Base::Root && self.rest.is_empty()
    }

    /// Whether this is `base` itself.
    pub(crate) fn is_base(&self, base: Base) -> bool {
        self.base == base && self.rest.is_empty()
    }

    /// Whether this lies beneath `base`.
    pub(crate) fn is_below(&self, base: Base) -> bool {
        self.base == base && !self.rest.is_empty()
    }

    /// Whether this literally is `path` (absolute, normalised) or lies beneath it.
    pub(crate) fn is_literally_within(&self, path: &str) -> bool {
        self.base == Base::Root
            && self
                .rest
                .strip_prefix(path.trim_start_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The absolute path in a request; `None` when it is longer than the kernel takes.
    pub(crate) fn expand(&self, roots: &Roots) -> Option<Vec<u8>> {
        let base = roots.of(self.base);
        let mut path = Vec::with_capacity(base.len() + 1 + self.rest.len());
        path.extend_from_slice(base);
        if !self.rest.is_empty() {
            if path != b"/" {
                path.push(b'/');
            }
            path.extend_from_slice(self.rest.as_bytes());
        }
        (path.len() <= MAX_PATH).then_some(path)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = BASES.iter().find(|(_, base)| *base == self.base).map_or("", |(name, _)| name);
        match (self.base, self.rest.is_empty()) {
            (Base::Root, _) => write!(f, "/{}", self.rest),
            (_, true) => f.write_str(base),
            (_, false) => write!(f, "{base}/{}", self.rest),
        }
    }
}

/// Names without `.`, empty ones, `..`, variables, globs and NUL.
fn plain(rest: &str, text: &str) -> Result<Said, String> {
    if text.len() > MAX_PATH {
        return Err(format!("a path of {} bytes is over the limit of {MAX_PATH}", text.len()));
    }
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    if is_plain(rest) {
        return Ok(rest.into());
    }
    if text.contains('\0') {
        return Err("the path has a NUL in it".into());
    }
    if let Some(glob) = rest.chars().find(|character| matches!(character, '*' | '?' | '[')) {
        return Err(format!(
            "`{text}`: `{glob}` is no pattern in a path, because it couldn't be exact for names yet to come; \
             name the directory"
        ));
    }
    if rest.contains("${") {
        return Err(format!("`{text}`: a variable stands only at the front of a path"));
    }
    let names: Vec<&str> = rest.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.contains(&"..") {
        return Err(format!(
            "`{text}`: `..` can lead anywhere once a link is on the way; write the path out"
        ));
    }
    Ok(names.join("/").into())
}

/// Whether [`plain`] has nothing to refuse and nothing to leave out, as with nearly every path there is.
fn is_plain(rest: &str) -> bool {
    let mut names = rest.as_bytes().split(|byte| *byte == b'/');
    !rest.bytes().any(|byte| matches!(byte, 0 | b'*' | b'?' | b'[' | b'$'))
        && names.all(|name| !matches!(name, b"" | b"." | b".."))
}

/// Replaces every variable in the value of an environment entry.
pub(crate) fn expand_text(text: &str, roots: &Roots) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    'text: while !rest.is_empty() {
        for (name, base) in BASES {
            if let Some(after) = rest.strip_prefix(name) {
                out.extend_from_slice(roots.of(base));
                rest = after;
                continue 'text;
            }
        }
        let next = rest.char_indices().nth(1).map_or(rest.len(), |(offset, _)| offset);
        out.extend_from_slice(&rest.as_bytes()[..next]);
        rest = &rest[next..];
    }
    out
}

/// Whether `path` is `root` or lies beneath it. Both absolute and normalised.
pub(crate) fn is_within(path: &[u8], root: &[u8]) -> bool {
    match path.get(root.len()) {
        // Looked at first, because most paths differ here already.
        Some(b'/') => path.starts_with(root),
        None => path == root,
        Some(_) => root == b"/",
    }
}

/// How many names a normalised absolute path has.
pub(crate) fn depth(path: &[u8]) -> usize {
    if path == b"/" { 0 } else { path.iter().filter(|byte| **byte == b'/').count() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> Roots {
        Roots {
            workspace: b"/w".to_vec(),
            home: b"/home/u".to_vec(),
            cache: b"/home/u/.cache/stockade/p".to_vec(),
        }
    }

    #[test]
    fn places_expand_and_normalise() {
        for (text, path) in [
            ("/usr//lib/./x/", "/usr/lib/x"),
            ("${workspace}", "/w"),
            ("${workspace}/a b", "/w/a b"),
            ("${home}/.cargo", "/home/u/.cargo"),
            ("${tmp}/x", "/tmp/x"),
            ("${cache}", "/home/u/.cache/stockade/p"),
        ] {
            assert_eq!(Place::absolute(text).unwrap().expand(&roots()).unwrap(), path.as_bytes(), "{text}");
        }
        assert_eq!(Place::guarded(".git/hooks").unwrap().expand(&roots()).unwrap(), b"/w/.git/hooks");
        let slash = Roots { home: b"/".to_vec(), ..roots() };
        assert_eq!(Place::absolute("${home}/x").unwrap().expand(&slash).unwrap(), b"/x");
    }

    #[test]
    fn places_that_are_not_exact_are_refused() {
        for text in [
            "",
            "usr",
            "~/x",
            "/a/../b",
            "/a/*.c",
            "/a?",
            "/[ab]",
            "$HOME/x",
            "${hoem}/x",
            "${home}x",
            "/x/${home}",
            "/a\0b",
        ] {
            assert!(Place::absolute(text).is_err(), "{text:?}");
        }
        for text in ["/", ".", "${workspace}", "", "../x", "~/x", "*.env"] {
            assert!(Place::guarded(text).is_err(), "{text:?}");
        }
        assert!(Place::absolute(&format!("/{}", "a".repeat(MAX_PATH))).is_err());
    }

    #[test]
    fn within_is_by_names_not_by_letters() {
        assert!(is_within(b"/usr", b"/usr") && is_within(b"/usr/x", b"/usr") && is_within(b"/x", b"/"));
        assert!(!is_within(b"/usrx", b"/usr") && !is_within(b"/us", b"/usr"));
        assert!(is_within(b"/", b"/") && !is_within(b"/", b"/x") && !is_within(b"/usr/x", b"/lib"));
        assert_eq!([&b"/"[..], b"/usr", b"/usr/x"].map(depth), [0, 1, 2]);
        assert!(Place::absolute("/proc/x").unwrap().is_literally_within("/proc"));
        assert!(!Place::absolute("/process").unwrap().is_literally_within("/proc"));
    }

    #[test]
    fn values_expand_variables_anywhere() {
        assert_eq!(expand_text("a:${home}/b:${workspace}:$x", &roots()), b"a:/home/u/b:/w:$x");
        assert_eq!(expand_text("ü${tmp}", &roots()), "ü/tmp".as_bytes());
    }
}
