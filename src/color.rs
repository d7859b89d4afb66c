//! Colours: on a terminal, and not where `NO_COLOR` is set (<https://no-color.org>) or `TERM` is `dumb`.

use std::io::IsTerminal;

/// Whether what is written to this stream may have colours.
pub(crate) fn wanted(stream: &impl IsTerminal) -> bool {
    Paint::to(stream).on
}

/// Paints, or doesn't.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// For what is written to this stream.
    pub(crate) fn to(stream: &impl IsTerminal) -> Self {
        Self::decide(stream.is_terminal(), |name| {
            std::env::var_os(name).is_some_and(|value| !value.is_empty())
        })
    }

    fn decide(terminal: bool, is_set: impl Fn(&str) -> bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { on: terminal && !dumb && !is_set("NO_COLOR") }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_terminal_or_no_color_means_no_colour() {
        assert_eq!(Paint::decide(false, |_| false).red("x"), "x");
        assert_eq!(Paint::decide(true, |name| name == "NO_COLOR").red("x"), "x");
    }

    #[test]
    fn a_painted_text_ends_with_a_reset() {
        assert_eq!(Paint { on: true }.green("yes"), "\x1b[32myes\x1b[0m");
    }
}
