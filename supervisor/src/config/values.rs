//! What a key's value can be. Each type holds only what makes sense, reads itself from TOML and from a command line's
//! option, and says in words what belongs there.

use core::fmt;
use core::str::FromStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stockade_policies::amount::{SIZE_EXPECTED, Size, TIME_EXPECTED, Time};
use stockade_policies::reader::Section;
use stockade_policies::{Located, Mistake, quoted};
use stockade_protocol::bounds::MAX_PARKED;

use crate::metrics::Endpoint;
use crate::traces::Collector;

/// The longest path, or name of a group, that a key may have: the kernel's own bound on paths.
const MAX_LENGTH: usize = 4096;

/// How many runs there may be at once.
pub type Slots = Count<1, 65_536>;
/// How many requests may wait.
pub type Queue = Count<0, 1_048_576>;
/// How many workers may be kept ready for one user, policy and workspace: as many as the launcher keeps at all.
pub type Parked = Count<0, { MAX_PARKED }>;

/// A value of a key.
pub trait Value: Sized {
    /// What belongs there, with its unit.
    fn expected() -> String;

    /// Reads the key, if it's there.
    ///
    /// # Errors
    /// What stands there instead.
    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake>;

    /// As a file says it.
    fn toml(&self) -> String;
}

/// A whole number from `LOW` to `HIGH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count<const LOW: u32, const HIGH: u32>(u32);

impl<const LOW: u32, const HIGH: u32> Count<LOW, HIGH> {
    /// The nearest there is.
    #[must_use]
    pub const fn nearest(number: u32) -> Self {
        Self(if number < LOW { LOW } else { limited(number, HIGH) })
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The number, of things in memory.
    #[must_use]
    pub const fn count(self) -> usize {
        self.0 as usize
    }
}

const fn limited(number: u32, most: u32) -> u32 {
    if number > most { most } else { number }
}

impl<const LOW: u32, const HIGH: u32> Value for Count<LOW, HIGH> {
    fn expected() -> String {
        format!("a whole number from {LOW} to {HIGH}")
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        let number = section.number(key, LOW.into(), HIGH.into())?;
        Ok(number.map(|Located { value, at }| {
            let value = Self::nearest(u32::try_from(value).unwrap_or(HIGH));
            Located { value, at }
        }))
    }

    fn toml(&self) -> String {
        self.0.to_string()
    }
}

impl<const LOW: u32, const HIGH: u32> FromStr for Count<LOW, HIGH> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number) if (LOW..=HIGH).contains(&number) => Ok(Self(number)),
            _ => Err(format!("expected {}", Self::expected())),
        }
    }
}

/// A size from `LOW` to `HIGH` MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space<const LOW: u32, const HIGH: u32>(Size);

impl<const LOW: u32, const HIGH: u32> Space<LOW, HIGH> {
    /// The nearest there is.
    #[must_use]
    pub const fn mebibytes(count: u32) -> Self {
        Self(Size::mebibytes(if count < LOW { LOW } else { limited(count, HIGH) }))
    }

    /// In bytes of memory.
    #[must_use]
    pub fn bytes(self) -> usize {
        usize::try_from(self.0.bytes()).unwrap_or(usize::MAX)
    }
}

impl<const LOW: u32, const HIGH: u32> Value for Space<LOW, HIGH> {
    fn expected() -> String {
        let (low, high) = (Size::mebibytes(LOW), Size::mebibytes(HIGH));
        format!("{SIZE_EXPECTED}, from {low} to {high}")
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        section.text(key, &Self::expected(), |text| {
            let size = Size::parse(text)?;
            let within = (Size::mebibytes(LOW)..=Size::mebibytes(HIGH)).contains(&size);
            if within { Ok(Self(size)) } else { Err(format!("`{size}` is out of range")) }
        })
    }

    fn toml(&self) -> String {
        quoted(self.0)
    }
}

/// A length of time that isn't nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(Time);

impl Span {
    /// So many seconds, at least one.
    #[must_use]
    pub const fn seconds(count: u32) -> Self {
        Self(Time::seconds(if count == 0 { 1 } else { count }))
    }

    /// In milliseconds.
    #[must_use]
    pub const fn milliseconds(self) -> u64 {
        self.0.milliseconds()
    }

    /// As the standard library has it.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.milliseconds())
    }
}

impl Value for Span {
    fn expected() -> String {
        TIME_EXPECTED.to_owned()
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        section.text(key, TIME_EXPECTED, |text| match Time::parse(text)? {
            time if time.milliseconds() == 0 => Err("no time at all is too short".to_owned()),
            time => Ok(Self(time)),
        })
    }

    fn toml(&self) -> String {
        quoted(self.0)
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Time::parse(text) {
            Ok(time) if time.milliseconds() > 0 => Ok(Self(time)),
            Ok(_) => Err("no time at all is too short".to_owned()),
            Err(reason) => Err(format!("{reason}; expected {TIME_EXPECTED}")),
        }
    }
}

/// Whether something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switch {
    /// It is.
    On,
    /// It isn't.
    Off,
}

impl Switch {
    /// Whether it is.
    #[must_use]
    pub const fn is_on(self) -> bool {
        matches!(self, Self::On)
    }
}

impl Value for Switch {
    fn expected() -> String {
        "true or false".to_owned()
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        let read = section.truth(key)?;
        Ok(read.map(|Located { value, at }| Located { value: if value { Self::On } else { Self::Off }, at }))
    }

    fn toml(&self) -> String {
        self.is_on().to_string()
    }
}

/// Something that is named by a text of its own; empty: nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maybe<T>(Option<T>);

/// What can be named so.
pub trait Named: FromStr<Err: fmt::Display> + fmt::Display {
    /// What belongs there.
    const EXPECTED: &'static str;
}

impl Named for Endpoint {
    const EXPECTED: &'static str = "unix:PATH, 127.0.0.1:PORT or [::1]:PORT, or \"\"";
}

impl Named for Collector {
    const EXPECTED: &'static str = "http://ADDRESS:PORT, or \"\"";
}

impl<T> Maybe<T> {
    /// Nothing.
    #[must_use]
    pub const fn nothing() -> Self {
        Self(None)
    }

    /// What is named, if anything is.
    #[must_use]
    pub const fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> From<Option<T>> for Maybe<T> {
    fn from(value: Option<T>) -> Self {
        Self(value)
    }
}

impl<T: Named> Value for Maybe<T> {
    fn expected() -> String {
        T::EXPECTED.to_owned()
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        section.text(key, T::EXPECTED, |text| {
            let named = (!text.is_empty()).then(|| text.parse().map_err(|error: T::Err| error.to_string()));
            named.transpose().map(Self)
        })
    }

    fn toml(&self) -> String {
        quoted(self.0.as_ref().map(ToString::to_string).unwrap_or_default())
    }
}

/// Where something is; empty: at the usual place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Place(Option<PathBuf>);

impl Place {
    /// The path, if one is named.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.as_deref()
    }
}

impl From<PathBuf> for Place {
    fn from(path: PathBuf) -> Self {
        Self(Some(path).filter(|path| !path.as_os_str().is_empty()))
    }
}

impl Value for Place {
    fn expected() -> String {
        "an absolute path, or \"\"".to_owned()
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        section.text(key, &Self::expected(), |text| {
            if text.is_empty() { Ok(Self(None)) } else { absolute(text).map(|path| Self(Some(path))) }
        })
    }

    fn toml(&self) -> String {
        quoted(self.0.as_deref().unwrap_or(Path::new("")).display())
    }
}

fn absolute(text: &str) -> Result<PathBuf, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` isn't absolute"));
    }
    if text.contains('\0') || text.len() > MAX_LENGTH {
        return Err(format!("it is over {MAX_LENGTH} bytes, or has a NUL in it"));
    }
    Ok(PathBuf::from(text))
}

/// Directories, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Directories(Vec<PathBuf>);

impl Directories {
    /// The paths.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.0
    }
}

impl From<Vec<PathBuf>> for Directories {
    fn from(paths: Vec<PathBuf>) -> Self {
        Self(paths)
    }
}

impl Value for Directories {
    fn expected() -> String {
        "a list of absolute paths".to_owned()
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        let Some(at) = section.at(key) else { return Ok(None) };
        let paths = section.list(key, "an absolute path", absolute, PathBuf::from)?.unwrap_or_default();
        let value = Self(paths.into_iter().map(|path| path.value).collect());
        Ok(Some(Located { value, at }))
    }

    fn toml(&self) -> String {
        let paths: Vec<String> = self.0.iter().map(|path| quoted(path.display())).collect();
        format!("[{}]", paths.join(", "))
    }
}

/// A group of users; empty: none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group(Option<String>);

impl Group {
    /// Its name, if one is named.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == ':') || text.len() > MAX_LENGTH {
            return Err(format!("`{}` is no group's name", text.escape_debug()));
        }
        Ok(Self(Some(text.to_owned()).filter(|name| !name.is_empty())))
    }
}

impl Value for Group {
    fn expected() -> String {
        "a group's name, or \"\"".to_owned()
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        section.text(key, &Self::expected(), Self::from_str)
    }

    fn toml(&self) -> String {
        quoted(self.0.as_deref().unwrap_or_default())
    }
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// What went wrong.
    Error,
    /// And what may.
    Warn,
    /// And each run.
    Info,
    /// And what happens on the way.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.name() == text);
        found.ok_or_else(|| format!("`{}` is no level", text.escape_debug()))
    }
}

impl Value for LogLevel {
    fn expected() -> String {
        let names = Self::ALL.map(|level| format!("\"{level}\""));
        format!("one of {}", names.join(", "))
    }

    fn read(section: &Section<'_>, key: &str) -> Result<Option<Located<Self>>, Mistake> {
        section.text(key, &Self::expected(), Self::from_str)
    }

    fn toml(&self) -> String {
        quoted(self)
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
