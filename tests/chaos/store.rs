//! The store under test: the file or the server, and what can happen to it.

use crate::engines::{Postgres, PostgresOptions, Redis, RedisOptions, fresh_namespace};
use crate::proxy::{Mode, Proxy};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Engine {
    Sqlite,
    Redis,
    Postgres,
}

/// How the store is set up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Setup {
    /// On a file system so small that it can be filled.
    pub(crate) small_disk: bool,
    /// Redis: with a replica.
    pub(crate) replica: bool,
    /// Redis: a write is acknowledged when the replica has it.
    pub(crate) confirmed: bool,
    /// Redis: each write is on disk before it is answered.
    pub(crate) fsync_always: bool,
}

pub(crate) struct Store {
    server: Server,
    proxies: Vec<Proxy>,
    setup: Setup,
    namespace: String,
    copy: Option<TempDir>,
    // Unmounted before the directory below it goes.
    disk: Option<SmallDisk>,
    directory: TempDir,
}

enum Server {
    Sqlite(PathBuf),
    Redis { primary: Redis, replica: Option<Redis> },
    Postgres(Postgres),
}

impl Store {
    /// Starts it, with a proxy for each sidecar where it is a server; `None` where this machine can't set it up so.
    pub(crate) async fn start(engine: Engine, setup: Setup, sidecars: usize) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut server = tokio::task::block_in_place(|| Server::start(engine, setup, directory.path()));
        let disk = if setup.small_disk { Some(server.move_to_small_disk()?) } else { None };
        let mut proxies = Vec::new();
        if let Some(port) = server.port() {
            for _ in 0..sidecars {
                proxies.push(Proxy::start(port).await);
            }
        }
        let namespace = fresh_namespace();
        Some(Self { server, proxies, setup, namespace, copy: None, disk, directory })
    }

    /// The sidecar's `store` section.
    pub(crate) fn section(&self, sidecar: usize) -> String {
        let port = self.proxies.get(sidecar).map_or(0, Proxy::port);
        let durability = if self.setup.confirmed { "replicated:1" } else { "acknowledged" };
        let common = format!(
            "  namespace: {}\n  durability: {durability}\n  migrate: true\n  answer_within: 1s\n  connections: 4\n",
            self.namespace
        );
        match &self.server {
            Server::Sqlite(file) => format!("store: sqlite:{}\n", file.display()),
            Server::Redis { .. } => format!("store:\n  url: redis://127.0.0.1:{port}\n{common}"),
            Server::Postgres(postgres) => format!(
                "store:\n  url: postgres://countersign@127.0.0.1:{port}/postgres\n  password_file: {}\n{common}",
                postgres.password_file().display()
            ),
        }
    }

    pub(crate) fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        match &mut self.server {
            Server::Sqlite(_) => {}
            Server::Redis { primary, .. } => primary.kill(),
            Server::Postgres(postgres) => postgres.kill(),
        }
    }

    /// Ends it as an operator would; `at_once` without writing what it has in memory.
    pub(crate) fn stop(&mut self, at_once: bool) {
        match &mut self.server {
            Server::Sqlite(_) => {}
            Server::Redis { primary, .. } => primary.kill(),
            Server::Postgres(postgres) if at_once => postgres.stop_immediately(),
            Server::Postgres(postgres) => postgres.stop(),
        }
    }

    pub(crate) fn restart(&mut self) {
        match &mut self.server {
            Server::Sqlite(_) => {}
            Server::Redis { primary, .. } => primary.restart(),
            Server::Postgres(postgres) => postgres.restart(),
        }
    }

    /// Whether it is there, as it should be.
    pub(crate) fn runs(&self) -> bool {
        match &self.server {
            Server::Sqlite(_) => true,
            Server::Redis { primary, .. } => primary.process().runs(),
            Server::Postgres(postgres) => postgres.process().runs(),
        }
    }

    /// Stops (`STOP`) or goes on with (`CONT`) all its processes.
    pub(crate) fn signal(&self, name: &str) {
        let process = match &self.server {
            Server::Sqlite(_) => return,
            Server::Redis { primary, .. } => primary.process(),
            Server::Postgres(postgres) => postgres.process(),
        };
        process.signal(name);
        let pid = process.pid();
        let children =
            std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for child in children.split_whitespace() {
            // It may just have ended.
            let _ = Command::new("kill").args([&format!("-{name}"), child]).stderr(Stdio::null()).status();
        }
    }

    /// FLUSHALL.
    pub(crate) fn flush(&self) {
        if let Server::Redis { primary, .. } = &self.server {
            assert_eq!(primary.command("FLUSHALL"), "+OK");
        }
    }

    /// Keeps a copy of its files as they are. Postgres is down meanwhile.
    pub(crate) fn keep_copy(&mut self) {
        let copy = tempfile::tempdir().unwrap();
        match &mut self.server {
            Server::Sqlite(file) => {
                let open = rusqlite::Connection::open(&*file).unwrap();
                open.busy_timeout(Duration::from_secs(5)).unwrap();
                let to = copy.path().join("store.db").display().to_string();
                open.execute("VACUUM INTO ?1", [to]).unwrap();
            }
            Server::Redis { primary, .. } => {
                run(Command::new("cp")
                    .arg("-a")
                    .arg(primary.directory().join("appendonlydir"))
                    .arg(copy.path()));
            }
            Server::Postgres(postgres) => {
                postgres.stop();
                run(Command::new("cp").arg("-a").arg(postgres.directory().join("data")).arg(copy.path()));
                postgres.restart();
            }
        }
        self.copy = Some(copy);
    }

    /// Puts the copy in the place of its files, as an operator would: a server is down meanwhile.
    pub(crate) fn put_copy_back(&mut self) {
        let Some(copy) = self.copy.take() else { return };
        match &mut self.server {
            Server::Sqlite(file) => {
                for suffix in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
                }
                let there = file.with_extension("new");
                std::fs::copy(copy.path().join("store.db"), &there).unwrap();
                std::fs::rename(there, file).unwrap();
            }
            Server::Redis { primary, .. } => {
                primary.kill();
                replace(&copy.path().join("appendonlydir"), primary.directory());
                primary.restart();
            }
            Server::Postgres(postgres) => {
                postgres.stop_immediately();
                replace(&copy.path().join("data"), postgres.directory());
                postgres.restart();
            }
        }
    }

    /// The primary is killed, the replica promoted, and sidecars find it at the old address.
    pub(crate) fn fail_over(&mut self) {
        let Server::Redis { primary, replica } = &mut self.server else { return };
        let Some(successor) = replica.take() else { return };
        primary.kill();
        assert_eq!(successor.command("REPLICAOF NO ONE"), "+OK");
        for proxy in &self.proxies {
            proxy.point_to(successor.port());
        }
        *primary = successor;
        if self.setup.confirmed {
            // Without one no write would be confirmed any more.
            *replica = Some(replica_of(primary));
        }
    }

    /// From here on the replica hears of nothing.
    pub(crate) fn detach_replica(&self) {
        if let Server::Redis { replica: Some(replica), .. } = &self.server {
            assert_eq!(replica.command("REPLICAOF NO ONE"), "+OK");
        }
    }

    pub(crate) fn fill_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.fill();
        }
    }

    pub(crate) fn free_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.free();
        }
    }

    /// Everything as it should be again; starts a server that gave up.
    pub(crate) fn heal(&mut self) {
        self.free_disk();
        for proxy in &self.proxies {
            proxy.set(Mode::Pass);
        }
        if !self.runs() {
            self.restart();
        }
    }

    /// One command or statement, past the proxies.
    pub(crate) fn ask(&self, what: &str) -> String {
        match &self.server {
            Server::Sqlite(_) => String::new(),
            Server::Redis { primary, .. } => primary.command(what),
            Server::Postgres(postgres) => postgres.sql(what),
        }
    }

    /// Bytes that the small disk has left.
    pub(crate) fn disk_room(&self) -> u64 {
        let about = self.disk.as_ref().map(|disk| rustix::fs::statvfs(&disk.directory).unwrap());
        about.map_or(u64::MAX, |about| about.f_bavail * about.f_frsize)
    }

    pub(crate) fn log(&self) -> String {
        let directory = match &self.server {
            Server::Sqlite(_) => self.directory.path(),
            Server::Redis { primary, .. } => primary.directory(),
            Server::Postgres(postgres) => postgres.directory(),
        };
        std::fs::read_to_string(directory.join("log")).unwrap_or_default()
    }
}

impl Server {
    fn start(engine: Engine, setup: Setup, directory: &Path) -> Self {
        match engine {
            Engine::Sqlite => {
                let directory = directory.join("store");
                std::fs::create_dir(&directory).unwrap();
                Self::Sqlite(directory.join("store.db"))
            }
            Engine::Redis => {
                let mut arguments = Vec::new();
                if setup.fsync_always {
                    arguments.extend(["--appendfsync".to_owned(), "always".to_owned()]);
                }
                let primary = Redis::with(RedisOptions { arguments });
                let replica = setup.replica.then(|| replica_of(&primary));
                Self::Redis { primary, replica }
            }
            Engine::Postgres => Self::Postgres(Postgres::with(PostgresOptions::default())),
        }
    }

    fn port(&self) -> Option<u16> {
        match self {
            Self::Sqlite(_) => None,
            Self::Redis { primary, .. } => Some(primary.port()),
            Self::Postgres(postgres) => Some(postgres.port()),
        }
    }

    fn move_to_small_disk(&mut self) -> Option<SmallDisk> {
        match self {
            Self::Sqlite(file) => SmallDisk::over(file.parent().unwrap(), "16m"),
            Self::Redis { primary, .. } => {
                primary.kill();
                let disk = SmallDisk::over(primary.directory(), "24m");
                primary.restart();
                disk
            }
            Self::Postgres(postgres) => {
                postgres.stop();
                let disk = SmallDisk::over(postgres.directory(), "160m");
                postgres.restart();
                disk
            }
        }
    }
}

/// One that follows it, and has caught up.
fn replica_of(primary: &Redis) -> Redis {
    let of = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), primary.port().to_string()];
    let replica = Redis::with(RedisOptions { arguments: of.to_vec() });
    let deadline = Instant::now() + Duration::from_secs(10);
    while primary.command("WAIT 1 100") != ":1" {
        assert!(Instant::now() < deadline, "the replica follows");
        std::thread::sleep(Duration::from_millis(20));
    }
    replica
}

/// A small file system of its own over a directory, with the directory's files. Only root can have one.
struct SmallDisk {
    directory: PathBuf,
    /// Unmounts when its standard input ends: when this is dropped, and also when this process ends otherwise.
    guard: Child,
}

impl SmallDisk {
    fn over(directory: &Path, size: &str) -> Option<Self> {
        let aside = tempfile::tempdir().unwrap();
        run(Command::new("cp").arg("-a").arg(directory.join(".")).arg(aside.path()));
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(directory);
        if !mount.stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
            // Never silently left out where it is expected to work.
            let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
            assert!(
                !is_root || std::env::var_os("CHAOS_WITHOUT_MOUNT").is_some(),
                "a small disk can't be mounted; CHAOS_WITHOUT_MOUNT=1 leaves out the rounds that fill it"
            );
            return None;
        }
        run(Command::new("cp").arg("-a").arg(aside.path().join(".")).arg(directory));
        let guard = Command::new("sh")
            .args(["-c", "trap \"\" INT TERM HUP; cat >/dev/null; umount -l \"$0\""])
            .arg(directory)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        Some(Self { directory: directory.to_owned(), guard })
    }

    fn fill(&self) {
        // Until there is no room, which is an error and the point.
        let to = format!("of={}", self.directory.join("ballast").display());
        let mut fill = Command::new("dd");
        fill.args(["if=/dev/zero", "bs=4096", &to]).stderr(Stdio::null());
        let _ = fill.status();
    }

    fn free(&self) {
        let _ = std::fs::remove_file(self.directory.join("ballast"));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

/// Puts `from` into the directory, in the place of what has its name there.
fn replace(from: &Path, directory: &Path) {
    run(Command::new("rm").arg("-rf").arg(directory.join(from.file_name().unwrap())));
    run(Command::new("cp").arg("-a").arg(from).arg(directory));
}

fn run(command: &mut Command) {
    let status = command.status().unwrap();
    // A file of a running server may vanish while it is copied.
    assert!(status.code().is_some(), "{command:?}: {status}");
}
