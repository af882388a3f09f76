//! What the commands print: plain when piped, coloured only on a terminal that wants it.

use std::io::{IsTerminal, Write};

/// Where a command writes.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    colour: bool,
}

/// What a line is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tone {
    Good,
    Bad,
    Unsure,
}

impl Output {
    /// Standard output; coloured on a terminal unless NO_COLOR is set.
    pub(crate) fn standard() -> Self {
        Self { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    /// A line.
    pub(crate) fn line(&self, text: &str) {
        let mut out = std::io::stdout().lock();
        // A closed pipe is the reader's choice, not a fault.
        let _ = writeln!(out, "{text}");
    }

    /// Bytes as they are.
    pub(crate) fn raw(&self, bytes: &[u8]) {
        let _ = std::io::stdout().lock().write_all(bytes);
    }

    /// The headline of an answer.
    pub(crate) fn headline(&self, tone: Tone, word: &str, rest: &str) {
        let word = if self.colour {
            let code = match tone {
                Tone::Good => 32,
                Tone::Bad => 31,
                Tone::Unsure => 33,
            };
            format!("\u{1b}[1;{code}m{word}\u{1b}[0m")
        } else {
            word.to_owned()
        };
        self.line(format!("{word}  {rest}").trim_end());
    }

    /// A named value; nothing where it is empty.
    pub(crate) fn field(&self, name: &str, value: &str) {
        if !value.is_empty() {
            self.line(&format!("  {name:<12} {value}"));
        }
    }

    /// A fault, on standard error; returns its exit code.
    pub(crate) fn fault(&self, text: &str) -> u8 {
        let _ = writeln!(std::io::stderr().lock(), "countersign: {text}");
        super::USAGE
    }

    /// What can't be told now, on standard error; returns its exit code.
    pub(crate) fn undecided(&self, text: &str) -> u8 {
        let _ = writeln!(std::io::stderr().lock(), "countersign: {text}");
        super::UNDECIDED
    }
}

/// What a stranger wrote, safe to show on a terminal: control characters are replaced.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
