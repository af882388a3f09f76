//! Private files on disk: made once, replaced whole.

use crate::token::Secret;
use std::ffi::OsString;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Writes a new file, durably and readable by its owner alone. An existing one is never overwritten.
pub(super) fn create(path: &Path, content: &Secret) -> io::Result<()> {
    write_new(path, content)?.sync_all()?;
    directory_of(path)?.sync_all()
}

/// The sole right to replace files in a directory, until dropped.
///
/// The lock is on the directory itself, which stays what it is while files in it come and go, and needs no lock file that
/// a crash would leave behind.
pub(super) struct Exclusive {
    directory: File,
}

impl Exclusive {
    /// `None`: another process has it.
    pub(super) fn beside(path: &Path) -> io::Result<Option<Self>> {
        let directory = directory_of(path)?;
        match directory.try_lock() {
            Ok(()) => Ok(Some(Self { directory })),
            Err(std::fs::TryLockError::WouldBlock) => Ok(None),
            Err(std::fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Puts new content in a file's place, durably, with the old one's owner and mode: readers see the old content or
    /// the new.
    pub(super) fn replace(&self, path: &Path, content: &Secret) -> io::Result<()> {
        let next = next_to(path);
        // Left by a process that died between writing and renaming; the lock says that nobody is at it now.
        match std::fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let old = std::fs::metadata(path)?;
        let file = write_new(&next, content)?;
        let new = file.metadata()?;
        if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        file.sync_all()?;
        std::fs::rename(&next, path)?;
        self.directory.sync_all()
    }
}

fn write_new(path: &Path, content: &Secret) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content.expose())?;
    Ok(file)
}

fn directory_of(path: &Path) -> io::Result<File> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent),
        Some(_) | None => File::open("."),
    }
}

fn next_to(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".next");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.into())
    }

    #[test]
    fn a_new_file_is_its_owner_s_alone_and_an_existing_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        create(&path, &secret("first")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let refused = create(&path, &secret("second")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "first");
    }

    #[test]
    fn a_replaced_file_keeps_its_mode_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        create(&path, &secret("old")).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        std::fs::write(dir.path().join(".keys.json.next"), "left by a crash").unwrap();
        Exclusive::beside(&path).unwrap().unwrap().replace(&path, &secret("new")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_one_at_a_time_may_replace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let first = Exclusive::beside(&path).unwrap();
        assert!(Exclusive::beside(&path).unwrap().is_none());
        drop(first);
        assert!(Exclusive::beside(&path).unwrap().is_some());
    }
}
