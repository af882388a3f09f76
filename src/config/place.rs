//! Where a setting was written, and what is wrong with it there.

use std::fmt;
use std::sync::Arc;

/// Where a setting was written.
///
/// Ordered as faults are told: the file from top to bottom, then variables, then flags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the configuration file.
    File {
        /// The file, as it was named to us.
        file: Arc<str>,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
    },
    /// In an environment variable of this name.
    Variable(Arc<str>),
    /// In a flag of this name.
    Flag(Arc<str>),
    /// Nowhere: a default, or there is no file.
    Nowhere,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

/// One thing wrong with the configuration. Reads `file.yaml:12:5: issuers[0].leway: unknown key; did you mean …?`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// Where it was written.
    pub place: Place,
    /// The setting's path, such as `issuers[0].leeway`; empty for the file as a whole.
    pub path: String,
    /// What is wrong. Never holds a secret.
    pub message: String,
    /// What might have been meant, or what to write.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault without a hint.
    #[must_use]
    pub fn new(place: Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place, path: path.into(), message: message.into(), hint: None }
    }

    /// The same fault with a hint.
    #[must_use]
    pub fn hinting(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The line in the file, from 1, where the fault is in the file.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        match &self.place {
            Place::File { line, .. } => Some(*line),
            Place::Variable(_) | Place::Flag(_) | Place::Nowhere => None,
        }
    }

    /// The column in the file, in characters from 1, where the fault is in the file.
    #[must_use]
    pub const fn column(&self) -> Option<usize> {
        match &self.place {
            Place::File { column, .. } => Some(*column),
            Place::Variable(_) | Place::Flag(_) | Place::Nowhere => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Everything wrong with the configuration, in the file's order; displays one fault a line.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Puts faults in order.
    #[must_use]
    pub fn new(mut faults: Vec<Fault>) -> Self {
        faults.sort();
        faults.dedup();
        Self(faults)
    }

    /// The faults, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Fault] {
        &self.0
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// These faults, if there is one.
    pub fn unless<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(vec![fault])
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(line: usize, column: usize) -> Place {
        Place::File { file: "a.yaml".into(), line, column }
    }

    #[test]
    fn a_fault_reads_as_compilers_write_them() {
        let fault =
            Fault::new(at(12, 5), "issuers[0].leway", "unknown key").hinting("did you mean `leeway`?");
        assert_eq!(fault.to_string(), "a.yaml:12:5: issuers[0].leway: unknown key; did you mean `leeway`?");
        assert_eq!((fault.line(), fault.column()), (Some(12), Some(5)));
    }

    #[test]
    fn faults_come_in_the_file_s_order_then_variables_then_flags() {
        let faults = Faults::new(vec![
            Fault::new(Place::Flag("--tcp".into()), "", "e"),
            Fault::new(Place::Variable("COUNTERSIGN_STORE".into()), "", "d"),
            Fault::new(at(10, 1), "", "c"),
            Fault::new(at(9, 9), "", "b"),
            Fault::new(at(9, 2), "", "a"),
        ]);
        let order: Vec<_> = faults.as_slice().iter().map(|fault| fault.message.as_str()).collect();
        assert_eq!(order, ["a", "b", "c", "d", "e"]);
        assert_eq!(faults.to_string().lines().count(), 5);
    }

    #[test]
    fn no_fault_lets_the_value_through() {
        assert_eq!(Faults::default().unless(7), Ok(7));
        assert!(Faults::from(Fault::new(Place::Nowhere, "", "no")).unless(7).is_err());
    }
}
