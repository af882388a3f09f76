//! Reads the tree into types, section by section, and collects what is wrong instead of stopping at it.
//!
//! A value that is wrong leaves its default in its place, so that reading goes on; the whole is thrown away in the
//! end. Kinds, defaults and known keys come from the reference; a setting that is not in it can't be read.

use super::nearest::nearest;
use super::place::{Fault, Place};
use super::reference::{self, Absent, Kind, listed};
use super::tree::{Member, Node, Origin, Value, join};
use super::{scalar, yaml};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a file is for, as far as telling about it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Its path may be told.
    Public,
    /// Somebody might have put the secret itself where its path belongs: not told.
    Secret,
}

/// A file that must be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NeededFile {
    pub(super) path: PathBuf,
    pub(super) content: Content,
    pub(super) setting: String,
    pub(super) place: Place,
}

/// What a reading gathers.
#[derive(Debug)]
pub(super) struct Reader {
    /// Relative paths in the file start here.
    base: PathBuf,
    faults: RefCell<Vec<Fault>>,
    files: RefCell<Vec<NeededFile>>,
}

impl Reader {
    pub(super) fn new(base: PathBuf) -> Self {
        Self { base, faults: RefCell::default(), files: RefCell::default() }
    }

    pub(super) fn finish(self) -> (Vec<Fault>, Vec<NeededFile>) {
        (self.faults.into_inner(), self.files.into_inner())
    }

    /// The whole file.
    pub(super) fn root<'a>(&'a self, root: &'a Node) -> Section<'a> {
        Section::open(self, String::new(), String::new(), &root.place, root)
    }
}

/// One section of the file, perhaps absent and then without members.
pub(super) struct Section<'a> {
    reader: &'a Reader,
    path: String,
    row: String,
    place: &'a Place,
    members: &'a [Member],
}

impl<'a> Section<'a> {
    fn open(reader: &'a Reader, path: String, row: String, place: &'a Place, node: &'a Node) -> Self {
        let members: &[Member] = match &node.value {
            Value::Map(members) => members,
            Value::Null => &[],
            Value::Scalar(_) | Value::List(_) => {
                let message = format!("expected a section, found {}", node.value.describe());
                reader.faults.borrow_mut().push(Fault::new(node.place.clone(), path.clone(), message));
                &[]
            }
        };
        let section = Self { reader, path, row, place, members };
        section.refuse_unknown_keys();
        section
    }

    fn refuse_unknown_keys(&self) {
        if reference::row(&self.row).is_some_and(|row| row.kind == Kind::Named) {
            return;
        }
        let known = || reference::children(&self.row).map(|key| key.name());
        for member in self.members {
            if known().any(|name| name == member.key) {
                continue;
            }
            let hint = match nearest(&member.key, known()) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("known here: {}", listed(&known().collect::<Vec<_>>())),
            };
            let fault = Fault::new(member.place.clone(), self.path_of(&member.key), "unknown key");
            self.reader.faults.borrow_mut().push(fault.hinting(hint));
        }
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    fn member(&self, key: &str) -> Option<&'a Member> {
        self.members.iter().find(|member| member.key == key)
    }

    /// The value, `null` being the same as none.
    fn node(&self, key: &str) -> Option<&'a Node> {
        self.member(key).map(|member| &member.node).filter(|node| !matches!(node.value, Value::Null))
    }

    /// Whether the setting has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// Whether the section has such a setting at all.
    pub(super) fn knows(&self, key: &str) -> bool {
        reference::find(&self.row, key).is_some()
    }

    /// Whether the setting is there and says `null`.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.member(key).is_some_and(|member| matches!(member.node.value, Value::Null))
    }

    /// Reports a fault at a setting, or at the section where the setting is not there.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        self.report(key, message.into(), None);
    }

    /// The same with a hint.
    pub(super) fn fault_hinting(&self, key: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.report(key, message.into(), Some(hint.into()));
    }

    fn report(&self, key: &str, message: String, hint: Option<String>) {
        let place = self.member(key).map_or(self.place, |member| &member.node.place).clone();
        let path = if key.is_empty() { self.path.clone() } else { self.path_of(key) };
        self.reader.faults.borrow_mut().push(Fault { place, path, message, hint });
    }

    fn wrong(&self, key: &str, node: &Node, kind: Kind) {
        let message = format!("expected {}, found {}", kind.expected(), node.value.describe());
        let fault = Fault::new(node.place.clone(), self.path_of(key), message);
        self.reader.faults.borrow_mut().push(fault);
    }

    /// The setting's row. One that is missing is a defect of ours, which the test of a full file finds.
    fn kind(&self, key: &str) -> Option<(Kind, Absent)> {
        let row = reference::find(&self.row, key).map(|row| (row.kind, row.absent));
        if row.is_none() {
            self.fault(key, "read, but not in the reference: a defect in countersign");
        }
        row
    }

    fn default_node(absent: Absent) -> Option<Node> {
        let Absent::Value(text) = absent else { return None };
        yaml::parse(text, &Origin::Default).ok().map(|(node, _)| node)
    }

    /// One value of any kind: the setting's, or else its default's.
    fn read<T>(&self, key: &str, parse: impl Fn(&str, Kind) -> Result<T, String>) -> Option<T> {
        let (kind, absent) = self.kind(key)?;
        match self.node(key).map(|node| (node, &node.value)) {
            Some((_, Value::Scalar(text))) => match parse(text, kind) {
                Ok(value) => return Some(value),
                Err(why) => self.fault(key, why),
            },
            Some((node, Value::Null | Value::List(_) | Value::Map(_))) => self.wrong(key, node, kind),
            None if absent == Absent::Required => self.fault(key, "required, but not there"),
            None => {}
        }
        match Self::default_node(absent)?.value {
            Value::Scalar(text) => parse(&text, kind).ok(),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.read(key, |text, _| scalar::text(text))
    }

    pub(super) fn claim(&self, key: &str) -> String {
        self.read(key, |text, _| scalar::claim_path(text)).unwrap_or_default()
    }

    /// One claim path, or a list.
    pub(super) fn claims(&self, key: &str) -> Option<Vec<String>> {
        self.list_of(key, |text, _| scalar::claim_path(text))
    }

    pub(super) fn switch(&self, key: &str) -> Option<bool> {
        self.read(key, |text, kind| scalar::switch(text).ok_or_else(|| scalar::mismatch(text, kind)))
    }

    pub(super) fn duration(&self, key: &str, within: RangeInclusive<Duration>) -> Option<Duration> {
        self.read(key, |text, kind| scalar::duration(text, &within, kind))
    }

    pub(super) fn count<T: TryFrom<u64>>(&self, key: &str, within: RangeInclusive<u64>) -> Option<T> {
        self.read(key, |text, kind| {
            let count = scalar::count(text, &within, kind)?;
            T::try_from(count).map_err(|_| "too large for this machine".to_owned())
        })
    }

    /// Any value that has a parser of its own.
    pub(super) fn parsed<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        self.read(key, |text, _| parse(text))
    }

    /// One of the words the reference lists; `meaning` knows each.
    pub(super) fn choice<T>(&self, key: &str, meaning: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.read(key, |word, kind| scalar::word(word, kind, &meaning))
    }

    /// A list of such words; a single word is a list of one. `None` also when one of them is wrong.
    pub(super) fn choices<T>(&self, key: &str, meaning: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        self.list_of(key, |word, kind| scalar::word(word, kind, &meaning))
    }

    /// A list of texts; a single text is a list of one. `None` also when one of them is wrong.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<String>> {
        self.list_of(key, |text, _| scalar::text(text))
    }

    fn list_of<T>(&self, key: &str, parse: impl Fn(&str, Kind) -> Result<T, String>) -> Option<Vec<T>> {
        let (kind, absent) = self.kind(key)?;
        let usual = Self::default_node(absent);
        let given = self.node(key);
        if given.is_none() && absent == Absent::Required {
            self.fault(key, "required, but not there");
        }
        let node = given.or(usual.as_ref())?;
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            Value::Scalar(_) => std::slice::from_ref(node),
            Value::Null | Value::Map(_) => {
                self.wrong(key, node, kind);
                return None;
            }
        };
        let mut seen: Vec<&str> = Vec::new();
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let parsed = match &item.value {
                Value::Scalar(text) if seen.contains(&text.as_str()) => Err("there twice".to_owned()),
                Value::Scalar(text) => {
                    seen.push(text);
                    parse(text, kind)
                }
                Value::Null | Value::List(_) | Value::Map(_) => {
                    Err(format!("expected a single value, found {}", item.value.describe()))
                }
            };
            match parsed {
                Ok(value) => values.push(value),
                Err(why) => {
                    let path = match &node.value {
                        Value::List(_) => format!("{}[{index}]", self.path_of(key)),
                        Value::Scalar(_) | Value::Null | Value::Map(_) => self.path_of(key),
                    };
                    let fault = Fault::new(item.place.clone(), path, why);
                    self.reader.faults.borrow_mut().push(fault);
                }
            }
        }
        (values.len() == items.len()).then_some(values)
    }

    /// A path; one in the file that is relative starts at the file's directory.
    pub(super) fn path(&self, key: &str) -> Option<PathBuf> {
        let text = self.text(key)?;
        let in_file = matches!(self.node(key).map(|node| &node.place), Some(Place::File { .. }));
        Some(if in_file { self.resolve(Path::new(&text)) } else { PathBuf::from(text) })
    }

    /// `path`, seen from the file's directory.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        self.reader.base.join(path)
    }

    /// A path to a file that must be there when files are checked.
    pub(super) fn file(&self, key: &str, content: Content) -> Option<PathBuf> {
        let path = self.path(key)?;
        let place = self.node(key).map_or(self.place, |node| &node.place).clone();
        let needed = NeededFile { path: path.clone(), content, setting: self.path_of(key), place };
        self.reader.files.borrow_mut().push(needed);
        Some(path)
    }

    /// Paths to files that must be there when files are checked; a single path is a list of one.
    pub(super) fn files(&self, key: &str, content: Content) -> Option<Vec<PathBuf>> {
        let in_file = matches!(self.node(key).map(|node| &node.place), Some(Place::File { .. }));
        let path = |text: &str| scalar::text(text).map(PathBuf::from);
        let paths = self.list_of(key, |text, _| path(text))?;
        let paths: Vec<_> =
            paths.into_iter().map(|path| if in_file { self.resolve(&path) } else { path }).collect();
        let place = self.node(key).map_or(self.place, |node| &node.place);
        let needed = paths.iter().enumerate().map(|(index, path)| NeededFile {
            path: path.clone(),
            content,
            setting: format!("{}[{index}]", self.path_of(key)),
            place: place.clone(),
        });
        self.reader.files.borrow_mut().extend(needed);
        Some(paths)
    }

    /// A section that is there.
    pub(super) fn section(&self, key: &str) -> Option<Section<'a>> {
        self.kind(key)?;
        let member = self.member(key).filter(|member| !matches!(member.node.value, Value::Null))?;
        Some(self.within(key, member))
    }

    /// A section, without members when it is not there.
    pub(super) fn section_or_empty(&self, key: &str) -> Section<'a> {
        match self.member(key) {
            Some(member) => self.within(key, member),
            None => Section {
                reader: self.reader,
                path: self.path_of(key),
                row: join(&self.row, key),
                place: self.place,
                members: &[],
            },
        }
    }

    fn within(&self, key: &str, member: &'a Member) -> Section<'a> {
        Section::open(self.reader, self.path_of(key), join(&self.row, key), &member.place, &member.node)
    }

    /// The sections of a list.
    pub(super) fn sections(&self, key: &str) -> Vec<Section<'a>> {
        let Some(((kind, _), node)) = self.kind(key).zip(self.node(key)) else { return Vec::new() };
        let Value::List(items) = &node.value else {
            self.wrong(key, node, kind);
            return Vec::new();
        };
        let row = format!("{}[]", join(&self.row, key));
        let open = |(index, item): (usize, &'a Node)| {
            let path = format!("{}[{index}]", self.path_of(key));
            Section::open(self.reader, path, row.clone(), &item.place, item)
        };
        items.iter().enumerate().map(open).collect()
    }

    /// The sections under names that the operator chose.
    pub(super) fn named(&self, key: &str) -> Vec<(&'a str, Section<'a>)> {
        let all = self.section_or_empty(key);
        let row = format!("{}.<name>", all.row);
        let open = |member: &'a Member| {
            let path = all.path_of(&member.key);
            let section = Section::open(self.reader, path, row.clone(), &member.place, &member.node);
            (member.key.as_str(), section)
        };
        all.members.iter().map(open).collect()
    }
}
