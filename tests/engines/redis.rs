//! redis-server, or valkey-server where `TEST_REDIS_SERVER` names it.

use super::{Guarded, find, free_port, wait_until};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// How a server is to be set up.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Further arguments, such as `--appendonly`, `yes`.
    pub arguments: Vec<String>,
}

/// A running server.
#[derive(Debug)]
pub struct Redis {
    process: Guarded,
    directory: TempDir,
    port: u16,
    options: RedisOptions,
}

impl Redis {
    /// With an append-only file, fsynced each second: what a careful operator runs.
    #[must_use]
    pub fn start() -> Self {
        Self::with(RedisOptions::default())
    }

    #[must_use]
    pub fn with(options: RedisOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for _ in 0..10 {
            let port = free_port();
            if let Some(process) = launch(&directory, port, &options) {
                return Self { process, directory, port, options };
            }
        }
        panic!("redis-server does not start");
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where its files are.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Its append-only file: from 7.0 on a folder.
    #[must_use]
    pub fn append_only(&self) -> PathBuf {
        let folder = self.directory.path().join("appendonlydir");
        if folder.is_dir() { folder } else { self.directory.path().join("appendonly.aof") }
    }

    /// Its Unix socket, for benches.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("redis.sock")
    }

    #[must_use]
    pub fn process(&self) -> &Guarded {
        &self.process
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after it ended, on the same port and files.
    pub fn restart(&mut self) {
        for _ in 0..50 {
            if let Some(process) = launch(&self.directory, self.port, &self.options) {
                self.process = process;
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("redis-server does not start again");
    }

    /// Sends one inline command and returns its reply: a bulk string's text, or a line such as `+OK`.
    #[must_use]
    pub fn command(&self, line: &str) -> String {
        ask(self.port, line).unwrap()
    }
}

fn launch(directory: &TempDir, port: u16, options: &RedisOptions) -> Option<Guarded> {
    let program = std::env::var_os("TEST_REDIS_SERVER")
        .map_or_else(|| find("redis-server", &[], "redis-server"), PathBuf::from);
    let log = directory.path().join("log");
    let own = [
        ("--port", port.to_string()),
        ("--bind", "127.0.0.1".to_owned()),
        ("--dir", directory.path().display().to_string()),
        ("--unixsocket", directory.path().join("redis.sock").display().to_string()),
        ("--appendonly", "yes".to_owned()),
        ("--save", String::new()),
        ("--repl-diskless-sync-delay", "0".to_owned()),
    ];
    let own = own.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
    let arguments: Vec<_> = own.chain(options.arguments.iter().cloned()).collect();
    let process = Guarded::start(&program, &arguments, &log);
    // An answer of any kind, an error for want of a password included; another process's server on that port is not ours.
    let ready =
        || ask(port, "PING").is_some_and(|reply| reply.starts_with("+PONG") || reply.starts_with("-NOAUTH"));
    wait_until(&process, &log, ready).then_some(process)
}

fn ask(port: u16, line: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("{line}\r\n").as_bytes()).ok()?;
    let mut reply = BufReader::new(stream);
    let mut head = String::new();
    reply.read_line(&mut head).ok().filter(|read| *read > 0)?;
    let head = head.trim_end().to_owned();
    // A bulk string's head tells its length, its end not counted.
    let Some(length) = head.strip_prefix('$').and_then(|length| length.parse().ok()) else {
        return Some(head);
    };
    let mut body = vec![0; length];
    reply.read_exact(&mut body).ok()?;
    Some(String::from_utf8_lossy(&body).into_owned())
}
