//! Real Redis and Postgres servers for tests, benches and the example: each a process of its own on a free loopback
//! port with its data in a temporary directory, ended when dropped, and also when this process ends however it does.

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    missing_docs,
    unreachable_pub,
    reason = "each user needs a part of it, and a server that does not start fails the test"
)]

mod postgres;
mod redis;

pub use postgres::{Postgres, PostgresOptions};
pub use redis::{Redis, RedisOptions};

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take to start, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// A namespace nobody else in this process uses.
#[must_use]
pub fn fresh_namespace() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A server's process under a shell that ends it when this process is gone: the shell waits on a pipe that only this
/// process holds open. By process id, never by name.
#[derive(Debug)]
pub struct Guarded {
    shell: Child,
    pid: i32,
}

impl Guarded {
    /// Starts `program`; what it says goes to `log`.
    pub fn start(program: &Path, arguments: &[String], log: &Path) -> Self {
        // A word on the pipe means that its directory is still wanted; its bare end, that we are gone. Children that were
        // stopped have to go on to notice that their parent ended.
        let script = "log=$1; shift; \"$@\" >>\"$log\" 2>&1 </dev/null & child=$!; echo $child; \
                      exec >/dev/null 2>&1; read -r wanted; \
                      children=$(cat /proc/$child/task/$child/children); kill -9 $child; wait $child; \
                      for one in $children; do kill -CONT $one; done; \
                      [ \"$wanted\" ] || { sleep 1; rm -rf \"$(dirname \"$log\")\"; }";
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(log)
            .arg(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().parse().unwrap();
        Self { shell, pid }
    }

    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Sends it a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status().unwrap();
        assert!(sent.success(), "kill -{name} {}", self.pid);
    }

    /// Whether the process is still there (and not a zombie).
    #[must_use]
    pub fn runs(&self) -> bool {
        std::fs::read_to_string(format!("/proc/{}/stat", self.pid))
            .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z'))
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        // The shell does it when it reads a line, or its pipe closes.
        if let Some(mut pipe) = self.shell.stdin.take() {
            // It may have ended with its server.
            let _ = pipe.write_all(b"kill\n");
        }
        self.shell.wait().unwrap();
    }

    /// Asks it to end by this signal, and waits until it has.
    pub fn end(&mut self, signal: &str) {
        self.signal(signal);
        let deadline = Instant::now() + PATIENCE;
        while self.runs() {
            assert!(Instant::now() < deadline, "process {} does not end", self.pid);
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.shell.stdin.is_some() {
            self.kill();
        }
    }
}

/// A port that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until `ready`; `false` when the server ended first.
fn wait_until(server: &Guarded, log: &Path, ready: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        if !server.runs() {
            return false;
        }
        let told = || std::fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < deadline, "the server does not start:\n{}", told());
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Finds a program on the path or in one of these directories; which package has it is told where it is missing.
fn find(program: &str, directories: &[PathBuf], package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(directories.iter().cloned())
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{program} is not installed: `make test` installs it (package {package})"))
}
