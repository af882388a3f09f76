//! postgres, as the user `postgres` where this process is root, because it refuses to run as root.

use super::{Guarded, find, free_port, wait_until};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// The superuser's name and password, and the database's name.
const USER: &str = "countersign";
const PASSWORD: &str = "a password of the tests";

/// How a server is to be set up.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Settings as `-c` takes them, such as `synchronous_commit=off`.
    pub settings: Vec<String>,
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    process: Guarded,
    directory: TempDir,
    port: u16,
    options: PostgresOptions,
}

impl Postgres {
    #[must_use]
    pub fn start() -> Self {
        Self::with(PostgresOptions::default())
    }

    #[must_use]
    pub fn with(options: PostgresOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), mode).unwrap();
        let password = directory.path().join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        give_away(&data);
        let data = data.display().to_string();
        let mut initialise = as_server_user("initdb");
        initialise
            .args(["--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C", "-U", USER])
            .arg(format!("--pwfile={}", password.display()))
            .args(["-D", &data]);
        let done = initialise.stdin(Stdio::null()).output().unwrap();
        assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
        Self::over(directory, options)
    }

    fn over(directory: TempDir, options: PostgresOptions) -> Self {
        for _ in 0..10 {
            let port = free_port();
            if let Some(process) = launch(directory.path(), port, &options) {
                return Self { process, directory, port, options };
            }
        }
        let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
        panic!("postgres does not start:\n{log}");
    }

    /// A streaming standby of this server, from a base backup.
    #[must_use]
    pub fn standby(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(directory.path().join("password"), PASSWORD).unwrap();
        let data = directory.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
        give_away(&data);
        let done = as_server_user("pg_basebackup")
            .args(["-R", "-X", "stream", "-c", "fast", "-h", "127.0.0.1", "-U", USER])
            .args(["-p", &self.port.to_string(), "-D", &data.display().to_string()])
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&done.stderr));
        Self::over(directory, self.options.clone())
    }

    /// Copies the files of a server that was stopped.
    pub fn save(&self, name: &str) {
        let done = Command::new("cp")
            .args(["-a", "data", name])
            .current_dir(self.directory.path())
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Puts saved files in the place of a stopped server's.
    pub fn put_back(&self, name: &str) {
        std::fs::remove_dir_all(self.directory.path().join("data")).unwrap();
        let done = Command::new("cp")
            .args(["-a", name, "data"])
            .current_dir(self.directory.path())
            .status()
            .unwrap();
        assert!(done.success());
    }

    /// Makes the file one that only the server may read.
    pub fn keep_private(path: &Path) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        give_away(path);
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Without the password, which is in [`Self::password_file`].
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port)
    }

    #[must_use]
    pub fn password_file(&self) -> PathBuf {
        self.directory.path().join("password")
    }

    #[must_use]
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Where its files are; the cluster is in `data` below it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    #[must_use]
    pub fn process(&self) -> &Guarded {
        &self.process
    }

    /// A crash: kill -9 of the postmaster; its children end by themselves.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Immediate shutdown: no checkpoint, recovery at the next start.
    pub fn stop_immediately(&mut self) {
        self.process.end("QUIT");
    }

    /// Fast shutdown: sessions are cut, and everything is written.
    pub fn stop(&mut self) {
        self.process.end("INT");
    }

    /// Starts it again after it ended, on the same port and files.
    pub fn restart(&mut self) {
        for _ in 0..100 {
            if let Some(process) = launch(self.directory.path(), self.port, &self.options) {
                self.process = process;
                return;
            }
            // The children of a killed postmaster may still hold the files.
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        panic!("postgres does not start again:\n{log}");
    }

    /// Runs SQL through psql; what it prints, without headers.
    #[must_use]
    pub fn sql(&self, sql: &str) -> String {
        let psql = find("psql", &programs(), "postgresql-client");
        let done = Command::new(psql)
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-h",
                "127.0.0.1",
                "-U",
                USER,
                "-d",
                "postgres",
            ])
            .args(["-p", &self.port.to_string(), "-c", sql])
            .env("PGPASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(done.status.success(), "{sql}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }
}

fn launch(directory: &Path, port: u16, options: &PostgresOptions) -> Option<Guarded> {
    let log = directory.join("log");
    let data = directory.join("data");
    let command = as_server_user("postgres");
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        "unix_socket_directories=".to_owned(),
        "fsync=on".to_owned(),
        "log_min_messages=warning".to_owned(),
        "max_connections=200".to_owned(),
    ];
    settings.extend(options.settings.iter().cloned());
    let mut arguments: Vec<String> =
        command.get_args().map(|argument| argument.to_string_lossy().into_owned()).collect();
    arguments.extend(["-D".to_owned(), data.display().to_string(), "-p".to_owned(), port.to_string()]);
    for setting in settings {
        arguments.extend(["-c".to_owned(), setting]);
    }
    let process = Guarded::start(Path::new(command.get_program()), &arguments, &log);
    // The last line says `ready` once connections are taken; the port alone answers earlier. A killed server's file, which
    // says so, too, stays until another is in its place.
    let own = process.pid().to_string();
    let ready = || {
        std::fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|text| {
            let mut lines = text.lines();
            lines.next() == Some(own.as_str()) && lines.nth(6).is_some_and(|status| status.trim() == "ready")
        })
    };
    wait_until(&process, &log, ready).then_some(process)
}

/// A server program, to be run as a user that postgres accepts.
fn as_server_user(program: &str) -> Command {
    let program = find(program, &programs(), "postgresql");
    if !is_root() {
        return Command::new(program);
    }
    // Replaces itself by the program, so that the process id is the server's.
    let mut command = Command::new(find("setpriv", &[], "util-linux"));
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn give_away(path: &Path) {
    if is_root() {
        let done = Command::new("chown").arg("postgres:postgres").arg(path).status().unwrap();
        assert!(done.success(), "chown {}", path.display());
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Debian keeps the server's programs out of the path; the newest first.
fn programs() -> Vec<PathBuf> {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    versions.reverse();
    versions
}
