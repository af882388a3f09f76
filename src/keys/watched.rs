//! A file that is read again and again, whole and by path, so that whatever an operator or a kubelet does to it (an
//! edit, a rename over it, the swap of a `..data` link above it) is seen at the next look.

use crate::keys::verifying::sha256;
use crate::token::Secret;
use aws_lc_rs::digest;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often key files are looked at.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Reads a whole file of at most `most` bytes.
pub(super) fn read_whole(path: &Path, most: usize) -> io::Result<Secret> {
    let file = File::open(path)?;
    // With room to spare the buffer does not move while it fills, so no copy of a secret is left behind.
    let room = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).min(most);
    let mut bytes = Vec::with_capacity(room.saturating_add(64));
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = file.take(limit).read_to_end(&mut bytes);
    let secret = Secret::new(bytes);
    if read? > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "the file is too large for what it should hold",
        ));
    }
    Ok(secret)
}

/// Looks at a file and tells when it reads otherwise than at the last look.
pub(super) struct Watched {
    path: PathBuf,
    most: usize,
    every: Duration,
    last: Option<Seen>,
}

#[derive(PartialEq, Eq)]
enum Seen {
    Content([u8; 32]),
    Fault(io::ErrorKind),
}

impl Watched {
    /// Nothing was seen yet: the first look always finds a change.
    pub(super) fn new(path: PathBuf, most: usize) -> Self {
        Self { path, most, every: LOOK_EVERY, last: None }
    }

    /// Reads the file off the async threads. `None`: as at the last look, be it good or bad.
    pub(super) async fn look(&mut self) -> Option<io::Result<Secret>> {
        let (path, most) = (self.path.clone(), self.most);
        let read = tokio::task::spawn_blocking(move || read_whole(&path, most)).await;
        let read = read.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
        let seen = match &read {
            Ok(content) => {
                let mut context = digest::Context::new(&digest::SHA256);
                context.update(content.expose());
                Seen::Content(sha256(context))
            }
            Err(error) => Seen::Fault(error.kind()),
        };
        if self.last.as_ref() == Some(&seen) {
            return None;
        }
        self.last = Some(seen);
        Some(read)
    }
}

/// Looks at a file now and every [`LOOK_EVERY`], and hands over what it reads whenever that changed. Never returns.
pub(super) async fn follow(mut watched: Watched, mut changed: impl FnMut(io::Result<Secret>)) {
    loop {
        if let Some(read) = watched.look().await {
            changed(read);
        }
        tokio::time::sleep(watched.every).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn text(look: Option<io::Result<Secret>>) -> Option<Result<String, io::ErrorKind>> {
        look.map(|read| match read {
            Ok(content) => Ok(String::from_utf8(content.expose().to_vec()).unwrap()),
            Err(error) => Err(error.kind()),
        })
    }

    #[tokio::test]
    async fn each_change_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        let mut watched = Watched::new(path.clone(), 10);
        assert_eq!(text(watched.look().await), Some(Err(io::ErrorKind::NotFound)));
        assert_eq!(text(watched.look().await), None, "still missing");
        std::fs::write(&path, "one").unwrap();
        assert_eq!(text(watched.look().await), Some(Ok("one".into())));
        assert_eq!(text(watched.look().await), None);
        std::fs::write(&path, "far too much").unwrap();
        assert_eq!(text(watched.look().await), Some(Err(io::ErrorKind::FileTooLarge)));
    }

    #[tokio::test]
    async fn a_swapped_data_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        for (version, content) in [("v1", "old"), ("v2", "new")] {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("keys"), content).unwrap();
        }
        symlink("v1", dir.path().join("..data")).unwrap();
        symlink("..data/keys", dir.path().join("keys")).unwrap();
        let mut watched = Watched::new(dir.path().join("keys"), 10);
        assert_eq!(text(watched.look().await), Some(Ok("old".into())));
        symlink("v2", dir.path().join("..data_tmp")).unwrap();
        std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        assert_eq!(text(watched.look().await), Some(Ok("new".into())));
    }

    #[tokio::test]
    async fn a_followed_file_is_looked_at_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys");
        std::fs::write(&path, "one").unwrap();
        let mut watched = Watched::new(path.clone(), 10);
        watched.every = Duration::from_millis(1);
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let following = follow(watched, |read| tell.send(text(Some(read))).unwrap());
        let steps = async {
            assert_eq!(told.recv().await, Some(Some(Ok("one".into()))));
            std::fs::remove_file(&path).unwrap();
            assert_eq!(told.recv().await, Some(Some(Err(io::ErrorKind::NotFound))));
            std::fs::write(dir.path().join("new"), "two").unwrap();
            std::fs::rename(dir.path().join("new"), &path).unwrap();
            assert_eq!(told.recv().await, Some(Some(Ok("two".into()))));
        };
        tokio::select! { () = following => {}, () = steps => {} }
    }
}
