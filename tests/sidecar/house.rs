//! The house's own rules: imports go downward, files stay small.

use std::fs;
use std::path::{Path, PathBuf};

/// The floors, lowest first. A room may import those below its own floor, and itself.
const FLOORS: &[&[&str]] = &[
    &["token", "clock"],
    &["ops"],
    &["keys", "revocation"],
    &["verify", "session"],
    &["grpc", "store"],
    &["config"],
    &["app"],
    &["cli"],
];

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
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
