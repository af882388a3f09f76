//! The house's own rules: imports go downward, files stay small.

use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first. A room may import those below its own floor, and itself.
const FLOORS: &[&[&str]] = &[
    &["token", "clock", "members"],
    &["ops"],
    &["keys", "revocation"],
    &["verify", "session"],
    &["grpc", "store", "oauth"],
    &["config"],
    &["app"],
    &["cli"],
];

fn sources() -> Vec<PathBuf> {
    below(&["src"])
}

fn below(these: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<_> =
        these.iter().map(|folder| Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 30, "the sources were found");
    found
}

fn room_of(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

/// The rooms named after each `crate::` in a line of code, one or several in braces.
fn imported(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap();
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    code.split("crate::").skip(1).map(name).collect()
}

#[test]
fn imports_go_downward_only() {
    let mut upward = Vec::new();
    for path in sources() {
        let room = room_of(&path);
        let Some(floor) = floor_of(&room) else { continue };
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            assert!(!line.contains("use crate::{"), "{}: name one room a line", path.display());
            for other in imported(line) {
                let same = other == room;
                if !same && floor_of(&other).is_some_and(|other| other >= floor) {
                    upward.push(format!("{}:{}: {room} imports {other}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn no_source_file_outgrows_a_reader() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|path| (fs::read_to_string(&path).unwrap().lines().count(), path))
        .filter(|(lines, _)| *lines > 450)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

/// ARCHITECTURE.md names the tests that hold each rule; a renamed one must not leave a rule without.
#[test]
fn every_test_that_the_rules_name_is_there() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let rules = text.split("## The rules").nth(1).unwrap().split("## ").next().unwrap();
    let is_name = |word: &&str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c))
    };
    let named: Vec<&str> = rules.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(named.len() > 50, "{named:?}");
    let code: String =
        below(&["src", "tests"]).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("{name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for rule in 1..=12 {
        let of_rule = rules.split(&format!("\n{rule}. **")).nth(1).unwrap().split("\n\n").next().unwrap();
        assert!(
            of_rule.split('`').skip(1).step_by(2).any(|name| is_name(&name)),
            "rule {rule} names no test"
        );
    }
}
