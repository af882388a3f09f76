//! From a path to a [`Config`]: reads the file, within bounds, and lays the environment and flags over it.

use super::place::{Fault, Faults, Place};
use super::tree::{Node, Origin, Value};
use super::{Config, Overlay, read, store, yaml};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The largest file read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Loads the configuration: the file if there is one, and `overlay` over it. Blocks on the file system.
///
/// Relative paths in the file start at its directory. Does not look at the files it names; see
/// [`Config::check_files`].
///
/// # Errors
/// Everything that is wrong, at once; of a file that can't be read or is no YAML, that alone.
pub fn load(path: Option<&Path>, overlay: &Overlay) -> Result<Config, Faults> {
    let Some(path) = path else {
        return parse(None, "", PathBuf::new(), overlay);
    };
    let name: Arc<str> = path.to_string_lossy().into();
    let text = text_of(path, &name)?;
    let base = path.parent().unwrap_or(Path::new("")).to_owned();
    parse(Some(name), &text, base, overlay)
}

/// The same from a text that is there already.
pub(super) fn parse(
    name: Option<Arc<str>>,
    text: &str,
    base: PathBuf,
    overlay: &Overlay,
) -> Result<Config, Faults> {
    let (mut root, mut faults) = match name {
        Some(name) => yaml::parse(text, &Origin::File(name))?,
        None => (Node { place: Place::Nowhere, value: Value::Null }, Vec::new()),
    };
    store::unfold(&mut root);
    faults.extend(overlay.apply(&mut root));
    store::unfold(&mut root);
    read(&root, base, faults)
}

fn text_of(path: &Path, name: &Arc<str>) -> Result<String, Fault> {
    let at = |line, column| Place::File { file: Arc::clone(name), line, column };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes))
        .map_err(|why| Fault::new(at(1, 1), "", format!("can't be read: {why}")))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > LARGEST {
        return Err(Fault::new(at(1, 1), "", "larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|why| {
        let good = why.as_bytes().get(..why.utf8_error().valid_up_to()).unwrap_or_default();
        let good = String::from_utf8_lossy(good);
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Fault::new(at(line, column), "", "not valid UTF-8")
    })
}
