//! The table of answers: what each service said, whether that is what it should have said, and after how long.

use crate::client::reason;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tonic::{Code, Status};

const GREEN: u8 = 32;
const RED: u8 = 31;
const YELLOW: u8 = 33;

/// What a service answered.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Which service.
    pub(crate) service: &'static str,
    /// A word about the result, or the refusal.
    pub(crate) said: Result<String, Status>,
    /// After how long.
    pub(crate) took: Duration,
}

/// What it should have answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// OK.
    Accepted,
    /// This code and reason.
    Refused(Code, &'static str),
}

impl Expected {
    /// A denied token.
    pub(crate) const fn denied(reason: &'static str) -> Self {
        Self::Refused(Code::Unauthenticated, reason)
    }

    fn is_met_by(self, said: &Result<String, Status>) -> bool {
        match (self, said) {
            (Self::Accepted, Ok(_)) => true,
            (Self::Refused(code, why), Err(refused)) => refused.code() == code && reason(refused) == why,
            (Self::Accepted, Err(_)) | (Self::Refused(..), Ok(_)) => false,
        }
    }

    fn text(self) -> String {
        match self {
            Self::Accepted => "OK".to_owned(),
            Self::Refused(code, reason) => format!("{} {reason}", name(code)),
        }
    }
}

/// Printed row by row, as the answers come.
#[derive(Debug)]
pub(crate) struct Table {
    scene: Option<String>,
    scenes: u32,
    answers: u32,
    unexpected: u32,
    coloured: bool,
}

impl Table {
    /// With its head.
    ///
    /// # Errors
    /// When standard output is gone.
    pub(crate) fn begin() -> io::Result<Self> {
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let table = Self { scene: None, scenes: 0, answers: 0, unexpected: 0, coloured };
        table.line("scene", "step", "service", "answer", "ms", None)?;
        Ok(table)
    }

    /// From here on the rows are of this scene.
    pub(crate) fn scene(&mut self, title: &str) {
        self.scenes += 1;
        self.scene = Some(format!("{} {title}", self.scenes));
    }

    /// An answer.
    ///
    /// # Errors
    /// When standard output is gone.
    pub(crate) fn row(&mut self, step: &str, expected: Expected, answer: &Answer) -> io::Result<()> {
        let (text, colour) = match &answer.said {
            Ok(word) => (format!("OK {word}").trim_end().to_owned(), GREEN),
            Err(refused) => {
                let colour = if refused.code() == Code::Unavailable { YELLOW } else { RED };
                (format!("{} {}", name(refused.code()), reason(refused)).trim_end().to_owned(), colour)
            }
        };
        let scene = self.scene.take().unwrap_or_default();
        if !scene.is_empty() {
            writeln!(io::stdout())?;
        }
        let ms = format!("{:.2}", answer.took.as_secs_f64() * 1000.0);
        self.line(&scene, step, answer.service, &text, &ms, Some(colour))?;
        self.answers += 1;
        if !expected.is_met_by(&answer.said) {
            self.unexpected += 1;
            writeln!(io::stdout(), "{:26}  ^ UNEXPECTED, this should be: {}", "", expected.text())?;
        }
        Ok(())
    }

    /// The last line. True where every answer was the expected one.
    ///
    /// # Errors
    /// When standard output is gone.
    pub(crate) fn end(&self) -> io::Result<bool> {
        let Self { scenes, answers, unexpected, .. } = self;
        writeln!(
            io::stdout(),
            "\n\"refused since\" counts from when the call that ended it was answered OK"
        )?;
        writeln!(io::stdout(), "{scenes} scenes, {answers} answers, {unexpected} unexpected")?;
        Ok(*unexpected == 0)
    }

    fn line(
        &self,
        scene: &str,
        step: &str,
        service: &str,
        answer: &str,
        ms: &str,
        colour: Option<u8>,
    ) -> io::Result<()> {
        // Padded before it is coloured: escapes have no width.
        let answer = format!("{answer:<36}");
        let answer = match colour.filter(|_| self.coloured) {
            Some(colour) => format!("\u{1b}[{colour}m{answer}\u{1b}[0m"),
            None => answer,
        };
        writeln!(io::stdout(), "{scene:<26}  {step:<44}  {service:<7}  {answer}  {ms:>8}")
    }
}

/// A code as the gRPC specification spells it.
fn name(code: Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
