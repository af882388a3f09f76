//! Where connections come from: loopback TCP, mutual TLS, a Unix socket.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::{TcpListener, UnixListener};

/// A bound listener.
#[derive(Debug)]
pub enum Listener {
    /// TCP; plaintext or TLS is the worker's business.
    Tcp(TcpListener),
    /// A Unix socket; its file is removed when this is dropped.
    Unix(UnixListener, SocketFile),
}

/// An accepted connection, not yet tied to a runtime.
#[derive(Debug)]
pub enum Accepted {
    /// From TCP.
    Tcp(std::net::TcpStream),
    /// From the Unix socket, with the peer's user id.
    Unix(std::os::unix::net::UnixStream, Option<u32>),
}

impl Listener {
    /// Binds TCP.
    ///
    /// # Errors
    /// What the system says, most often that the address is in use.
    pub async fn tcp(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self::Tcp)
    }

    /// Binds a Unix socket with mode 0660, replacing a stale one. The directory is made with mode 0770 if it is
    /// missing; one that stands is left as it is.
    ///
    /// # Errors
    /// When something other than a socket is in the way, another process still answers on it, or what the system says.
    pub fn unix(path: &Path, group: Option<u32>) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|directory| !directory.exists()) {
            fs::create_dir(directory)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o770))?;
            chown(directory, group)?;
        }
        remove_stale(path)?;
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        let file = SocketFile(path.to_owned());
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        chown(path, group)?;
        listener.set_nonblocking(true)?;
        Ok(Self::Unix(UnixListener::from_std(listener)?, file))
    }

    /// The address callers use: `127.0.0.1:50051` or `unix:/path`.
    #[must_use]
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => {
                listener.local_addr().map_or_else(|_| "unknown".to_owned(), |address| address.to_string())
            }
            Self::Unix(_, file) => format!("unix:{}", file.0.display()),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// What the system says; a full table of descriptors among it, which passes.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                stream.into_std().map(Accepted::Tcp)
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok(Accepted::Unix(stream.into_std()?, uid))
            }
        }
    }
}

/// Removes its socket's file when dropped.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next start removes a stale socket.
        let _ = fs::remove_file(&self.0);
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path is taken by something that is no socket",
        ));
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process answers on this socket"));
    }
    fs::remove_file(path)
}

fn chown(path: &Path, group: Option<u32>) -> io::Result<()> {
    match group {
        Some(group) => std::os::unix::fs::chown(path, None, Some(group)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/api.sock");
        let first = Listener::unix(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o770);
        assert_eq!(Listener::unix(&path, None).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // What kill -9 leaves behind: the file without a listener.
        let left_behind = directory.path().join("run/left");
        fs::rename(&path, &left_behind).unwrap();
        drop(first);
        fs::rename(&left_behind, &path).unwrap();
        drop(Listener::unix(&path, None).unwrap());
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert_eq!(Listener::unix(&path, None).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(path.exists());
    }
}
