//! YAML text into a [`Node`] tree, within bounds.
//!
//! A syntax error stops everything: what comes after it can't be trusted. Aliases and `<<` are followed, and what
//! they multiply is counted, so that no small file becomes a large tree.

use super::place::{Fault, Place};
use super::tree::{Member, Node, Origin, Value, join, size};
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use std::collections::HashMap;

const DEPTH: usize = 24;
/// Values after aliases are replaced by what they name: a bomb of nested aliases ends here.
const NODES: usize = 100_000;

/// Reads one YAML document. Duplicate keys and tags are faults beside the tree.
///
/// # Errors
/// A syntax error, a second document, or a size past the bounds: the one fault.
pub(super) fn parse(text: &str, origin: &Origin) -> Result<(Node, Vec<Fault>), Fault> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let events = Parser::new_from_str_with_options(text, options);
    let mut builder =
        Builder { events, origin, anchors: HashMap::new(), nodes: 0, faults: Vec::new(), root: None };
    builder.document()?;
    let root = builder.root.unwrap_or(Node { place: origin.at(1, 0), value: Value::Null });
    Ok((root, builder.faults))
}

struct Builder<'a> {
    events: Parser<'a, StrInput<'a>>,
    origin: &'a Origin,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    faults: Vec<Fault>,
    root: Option<Node>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        loop {
            match self.events.next_event() {
                Some(Ok((Event::Comment(..) | Event::Anchor(..), _))) => {}
                Some(Ok(event)) => return Ok(event),
                Some(Err(error)) => return Err(self.syntax(&error)),
                None => return Ok((Event::StreamEnd, Span::default())),
            }
        }
    }

    fn syntax(&self, error: &ScanError) -> Fault {
        let place = self.origin.at(error.marker().line(), error.marker().col());
        Fault::new(place, "", format!("not valid YAML: {}", error.info()))
    }

    fn at(&self, span: &Span) -> Place {
        self.origin.at(span.start.line(), span.start.col())
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the parser's enum may grow; what is new is no node")]
    fn document(&mut self) -> Result<(), Fault> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) | Event::Alias(_) => {
                    if self.root.is_some() {
                        let place = self.at(&span);
                        return Err(Fault::new(place, "", "a second YAML document; only one is read"));
                    }
                    self.root = Some(self.node("", event, &span, 0)?);
                }
                _ => return Err(Fault::new(self.at(&span), "", "not valid YAML")),
            }
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "the parser's enum may grow; what is new is no node")]
    fn node(&mut self, path: &str, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Fault> {
        let place = self.at(span);
        self.spend(1, path, &place)?;
        if depth > DEPTH {
            return Err(Fault::new(place, "", format!("nested more than {DEPTH} levels deep")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = self.tag(path, &place, tag.as_deref()) || style != ScalarStyle::Plain;
                let is_null = !is_text && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (if is_null { Value::Null } else { Value::Scalar(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag(path, &place, tag.as_deref());
                (Value::List(self.items(path, depth)?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag(path, &place, tag.as_deref());
                (Value::Map(self.members(path, depth)?), anchor)
            }
            Event::Alias(id) => {
                let Some(named) = self.anchors.get(&id).cloned() else {
                    return Err(Fault::new(place, path, "an alias within what it names"));
                };
                self.spend(size(&named), path, &place)?;
                return Ok(named);
            }
            _ => return Err(Fault::new(place, path, "not valid YAML")),
        };
        let node = Node { place, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self, path: &str, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(items);
            }
            let path = format!("{path}[{}]", items.len());
            items.push(self.node(&path, event, &span, depth + 1)?);
        }
    }

    fn members(&mut self, path: &str, depth: usize) -> Result<Vec<Member>, Fault> {
        let mut members: Vec<Member> = Vec::new();
        let mut seen: HashMap<String, Place> = HashMap::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let place = self.at(&span);
            if event == Event::MappingEnd {
                break;
            }
            let Event::Scalar(key, style, ..) = event else {
                return Err(Fault::new(place, path, "a key must be a plain name"));
            };
            let (key, plain) = (key.into_owned(), style == ScalarStyle::Plain);
            let (event, span) = self.next()?;
            let path = join(path, &key);
            let node = self.node(&path, event, &span, depth + 1)?;
            if plain && key == "<<" {
                merged.push(node);
            } else if let Some(first) = seen.get(&key) {
                let fault = Fault::new(place, path, "this key is there twice");
                self.faults.push(fault.hinting(format!("first at {first}")));
            } else {
                seen.insert(key.clone(), place.clone());
                members.push(Member { key, place, node });
            }
        }
        for node in merged {
            self.merge(&mut members, &mut seen, node, path)?;
        }
        Ok(members)
    }

    /// `<<: *defaults`: members that are not there themselves come from the named section or sections.
    fn merge(
        &mut self,
        members: &mut Vec<Member>,
        seen: &mut HashMap<String, Place>,
        node: Node,
        path: &str,
    ) -> Result<(), Fault> {
        self.spend(size(&node), path, &node.place)?;
        match node.value {
            Value::Map(more) => {
                for member in more {
                    if !seen.contains_key(&member.key) {
                        seen.insert(member.key.clone(), member.place.clone());
                        members.push(member);
                    }
                }
            }
            Value::List(nodes) => {
                for node in nodes {
                    if matches!(node.value, Value::Map(_)) {
                        self.merge(members, seen, node, path)?;
                    } else {
                        self.faults.push(Fault::new(node.place, path, "`<<` takes sections only"));
                    }
                }
            }
            Value::Null | Value::Scalar(_) => {
                self.faults.push(Fault::new(node.place, path, "`<<` takes a section, by an alias"));
            }
        }
        Ok(())
    }

    /// Whether the tag says "text"; any other than the core schema's is a fault.
    fn tag(&mut self, path: &str, place: &Place, tag: Option<&Tag>) -> bool {
        match tag.map(|tag| (tag, tag.core_suffix())) {
            None => false,
            Some((_, Some(core))) => core == "str",
            Some((tag, None)) => {
                let message = format!("the tag `{}` has no meaning here", tag.original());
                self.faults.push(Fault::new(place.clone(), path, message));
                false
            }
        }
    }

    fn spend(&mut self, nodes: usize, path: &str, place: &Place) -> Result<(), Fault> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= NODES {
            return Ok(());
        }
        Err(Fault::new(place.clone(), path, format!("more than {NODES} values, aliases counted in full")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::places;
    use super::*;
    use std::fmt::Write as _;

    fn read(text: &str) -> Result<(Node, Vec<Fault>), Fault> {
        parse(text, &Origin::File("f.yaml".into()))
    }

    fn flat(node: &Node) -> String {
        match &node.value {
            Value::Null => "~".to_owned(),
            Value::Scalar(text) => text.clone(),
            Value::List(items) => format!("[{}]", items.iter().map(flat).collect::<Vec<_>>().join(",")),
            Value::Map(members) => {
                let member = |member: &Member| format!("{}={}", member.key, flat(&member.node));
                format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(","))
            }
        }
    }

    #[test]
    fn every_value_knows_its_place() {
        let (root, faults) = read("a: 1\nb:\n  - x: é\n    y: [~, 'null']\n").unwrap();
        assert!(faults.is_empty());
        assert_eq!(flat(&root), "{a=1,b=[{x=é,y=[~,null]}]}");
        let places = places(&root);
        let at = |path: &str| places[path].to_string();
        assert_eq!(at("a"), "f.yaml:1:4");
        assert_eq!(at("b[0]"), "f.yaml:3:5");
        assert_eq!(at("b[0].y[1]"), "f.yaml:4:12");
    }

    #[test]
    fn an_empty_file_and_one_of_comments_are_empty() {
        for text in ["", "# nothing\n", "---\n", "\u{feff}"] {
            assert_eq!(flat(&read(text).unwrap().0), "~", "{text:?}");
        }
    }

    #[test]
    fn a_syntax_error_is_one_fault_with_its_place() {
        let fault = read("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert!(fault.message.starts_with("not valid YAML"), "{fault}");
        assert!(fault.line().is_some_and(|line| line >= 2), "{fault}");
    }

    #[test]
    fn a_key_there_twice_is_a_fault_at_the_second() {
        let (_, faults) = read("a:\n  b: 1\n  b: 2\n").unwrap();
        assert_eq!(faults[0].to_string(), "f.yaml:3:3: a.b: this key is there twice; first at f.yaml:2:3");
    }

    #[test]
    fn aliases_and_merges_are_followed() {
        let (root, faults) = read("a: &d {x: 1, y: 2}\nb: {<<: *d, y: 3}\nc: *d\n").unwrap();
        assert!(faults.is_empty());
        assert_eq!(flat(&root), "{a={x=1,y=2},b={y=3,x=1},c={x=1,y=2}}");
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut text = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
        for level in 1..12 {
            let below = level - 1;
            writeln!(text, "a{level}: &a{level} [{}]", vec![format!("*a{below}"); 10].join(",")).unwrap();
        }
        assert!(read(&text).unwrap_err().message.contains("more than 100000 values"));
    }

    #[test]
    fn a_bomb_of_merges_is_refused() {
        let mut text = String::from("m: &m {a: 1}\n");
        let list = vec!["*m"; 30_000].join(",");
        write!(text, "b: {{<<: [{list}]}}\nc: {{<<: [{list}]}}\n").unwrap();
        assert!(read(&text).unwrap_err().message.contains("more than 100000 values"));
    }

    #[test]
    fn deep_nesting_is_refused() {
        let text = "[".repeat(40) + &"]".repeat(40);
        assert!(read(&text).unwrap_err().message.contains("levels deep"));
        assert!(read(&"[".repeat(100_000)).is_err());
    }

    #[test]
    fn an_alias_within_what_it_names_is_refused() {
        assert!(read("a: &a [1, *a]\n").is_err());
        assert!(read("a: *nowhere\n").is_err());
    }

    #[test]
    fn a_second_document_is_refused() {
        assert_eq!(
            read("a: 1\n---\nb: 2\n").unwrap_err().to_string(),
            "f.yaml:3:1: a second YAML document; only one is read"
        );
    }

    #[test]
    fn a_foreign_tag_is_a_fault() {
        let (_, faults) = read("a: !env HOME\nb: !!str null\n").unwrap();
        assert_eq!(faults.len(), 1);
        assert!(faults[0].message.contains("`!env`"), "{}", faults[0]);
    }
}
