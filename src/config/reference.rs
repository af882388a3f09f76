//! The reference of every setting: one table that the reader takes kinds, defaults and known keys from, that the
//! nearest-key search looks into, and that the documentation is printed from. What is not in it can't be set.

use super::table::TABLE;
use std::fmt::Write as _;

/// What kind of value a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A section of settings.
    Section,
    /// A list of sections.
    Sections,
    /// Sections by names that the operator chooses.
    Named,
    /// A text.
    Text,
    /// A list of texts.
    Texts,
    /// `true` or `false`.
    Switch,
    /// A whole number.
    Count,
    /// A number from 0 to 1.
    Fraction,
    /// A duration with its unit.
    Duration,
    /// An IP address with a port.
    Address,
    /// A file's path.
    Path,
    /// A list of files' paths.
    Paths,
    /// A URL.
    Url,
    /// A claim's top-level name, or a JSON Pointer (RFC 6901) when it begins with `/`.
    Claim,
    /// A list of such.
    Claims,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of these words.
    Choices(&'static [&'static str]),
}

impl Kind {
    /// The words of a choice; none for other kinds.
    #[must_use]
    pub const fn words(self) -> &'static [&'static str] {
        if let Self::Choice(words) | Self::Choices(words) = self { words } else { &[] }
    }

    /// What a fault says was expected.
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Section => "a section".to_owned(),
            Self::Sections => "a list of sections".to_owned(),
            Self::Named => "sections by name".to_owned(),
            Self::Text => "a text".to_owned(),
            Self::Texts => "a list of texts".to_owned(),
            Self::Switch => "`true` or `false`".to_owned(),
            Self::Count => "a whole number".to_owned(),
            Self::Fraction => "a number from 0 to 1".to_owned(),
            Self::Duration => "a duration with its unit, such as `30s` or `15m`".to_owned(),
            Self::Address => "an IP address with a port, such as `127.0.0.1:50051`".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Paths => "a list of paths".to_owned(),
            Self::Url => "a URL".to_owned(),
            Self::Claim => "a claim's name, or a JSON Pointer that begins with `/`".to_owned(),
            Self::Claims => "a claim's name or JSON Pointer, or a list of them".to_owned(),
            Self::Choice(words) => format!("one of {}", listed(words)),
            Self::Choices(words) => format!("a list of {}", listed(words)),
        }
    }
}

/// Words in backticks, with commas.
pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// What holds when a setting is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// This value, as it would be written in the file. The reader reads it from here.
    Value(&'static str),
    /// It can't be left out where its section is there.
    Required,
    /// Nothing: the feature is off, or another setting decides.
    Unset,
    /// Decided at start, as told.
    Computed(&'static str),
}

/// One setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its path: `[]` stands for any item of a list, `<name>` for any name.
    pub path: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// What holds without it.
    pub absent: Absent,
    /// What it means, with its bounds.
    pub doc: &'static str,
}

impl Key {
    /// The last part of the path, as it is written in the file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or(self.path, |(_, name)| name)
    }

    fn parent(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(parent, _)| parent)
    }
}

/// Every setting, in the order of the documentation.
#[must_use]
pub const fn reference() -> &'static [Key] {
    TABLE
}

/// The reference as Markdown: a heading and a table for each section.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::new();
    let mut before = "";
    for key in TABLE {
        let top = key.path.split(['.', '[']).next().unwrap_or_default();
        let is_heading = key.path == top && matches!(key.kind, Kind::Section | Kind::Sections | Kind::Named);
        if top != before {
            let about = if is_heading { format!("{}\n\n", key.doc) } else { String::new() };
            let _ = write!(out, "\n### `{top}`\n\n{about}");
            out.push_str("| setting | takes | default | meaning |\n|---|---|---|---|\n");
            before = top;
        }
        if is_heading {
            continue;
        }
        let absent = match key.absent {
            Absent::Value(value) => format!("`{value}`"),
            Absent::Required => "required".to_owned(),
            Absent::Unset => "–".to_owned(),
            Absent::Computed(how) => how.to_owned(),
        };
        let _ = writeln!(out, "| `{}` | {} | {absent} | {} |", key.path, key.kind.expected(), key.doc);
    }
    out.trim_start().to_owned()
}

/// The setting named `name` in the section at table path `section`.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Key> {
    children(section).find(|key| key.name() == name)
}

/// The setting at a table path.
pub(super) fn row(path: &str) -> Option<&'static Key> {
    TABLE.iter().find(|key| key.path == path)
}

/// The settings of the section at table path `section`.
pub(super) fn children(section: &str) -> impl Iterator<Item = &'static Key> {
    TABLE.iter().filter(move |key| key.parent() == section)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_setting_is_there_twice_and_each_is_documented() {
        let mut seen = HashSet::new();
        for key in reference() {
            assert!(seen.insert(key.path), "{}", key.path);
            assert!(key.doc.ends_with('.') && key.doc.len() > 10, "{}: {:?}", key.path, key.doc);
            assert!(!key.doc.contains('|'), "{} would break the table", key.path);
        }
    }

    #[test]
    fn every_setting_lies_in_a_section_of_the_table() {
        let parents: HashSet<_> = reference()
            .iter()
            .filter_map(|key| {
                let children = [
                    (Kind::Section, key.path.to_owned()),
                    (Kind::Sections, format!("{}[]", key.path)),
                    (Kind::Named, format!("{}.<name>", key.path)),
                ];
                children.into_iter().find(|(kind, _)| *kind == key.kind).map(|(_, path)| path)
            })
            .collect();
        for key in reference() {
            let parent = key.parent();
            assert!(parent.is_empty() || parents.contains(parent), "{parent}");
        }
    }

    #[test]
    fn names_have_no_double_underscore_for_variables_split_there() {
        for key in reference() {
            assert!(!key.name().contains("__"), "{}", key.path);
            assert_eq!(key.name(), key.name().to_lowercase());
        }
    }

    #[test]
    fn the_reference_prints_as_tables() {
        let text = markdown();
        assert!(text.contains("### `issuers`"));
        assert!(text.contains("| `issuers[].leeway` | a duration"));
        for line in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(line.matches('|').count(), 5, "{line}");
        }
    }
}
