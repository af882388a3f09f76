//! The file as a tree in which every value knows where it was written.
//!
//! Reading into a tree first, and only then into types, is what lets every fault be told at once: a deserializer
//! stops at the first.

use super::place::Place;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a text is a part of, and so how places in it are named.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// The file of this name.
    File(Arc<str>),
    /// The environment variable of this name.
    Variable(Arc<str>),
    /// The flag of this name.
    Flag(Arc<str>),
    /// A default of ours.
    Default,
}

impl Origin {
    /// A place in this text; column from 0.
    pub(super) fn at(&self, line: usize, column: usize) -> Place {
        match self {
            Self::File(file) => Place::File { file: Arc::clone(file), line: line.max(1), column: column + 1 },
            Self::Variable(name) => Place::Variable(Arc::clone(name)),
            Self::Flag(name) => Place::Flag(Arc::clone(name)),
            Self::Default => Place::Nowhere,
        }
    }
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) value: Value,
}

/// A YAML value. Whether a scalar is a number or a text is for its reader to say.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Member>),
}

impl Value {
    pub(super) const fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Scalar(_) => "a single value",
            Self::List(_) => "a list",
            Self::Map(_) => "a section",
        }
    }
}

/// A key, where it was written, and its value.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: Node,
}

/// The path of a member of `path`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Where every setting was written, by its path.
pub(super) fn places(root: &Node) -> BTreeMap<String, Place> {
    fn walk(path: &str, node: &Node, into: &mut BTreeMap<String, Place>) {
        into.insert(path.to_owned(), node.place.clone());
        match &node.value {
            Value::Null | Value::Scalar(_) => {}
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk(&format!("{path}[{index}]"), item, into);
                }
            }
            Value::Map(members) => {
                for member in members {
                    walk(&join(path, &member.key), &member.node, into);
                }
            }
        }
    }
    let mut into = BTreeMap::new();
    walk("", root, &mut into);
    into
}

/// How many values there are in and under `node`.
pub(super) fn size(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar(_) => 1,
        Value::List(items) => items.iter().map(size).sum::<usize>() + 1,
        Value::Map(members) => members.iter().map(|member| size(&member.node)).sum::<usize>() + 1,
    }
}
