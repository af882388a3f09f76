//! A server and a namespace in it, and sidecars that share them.

use crate::engines::{Postgres, PostgresOptions, Redis, RedisOptions, fresh_namespace};
use crate::support::{Home, Sidecar};
use countersign::clock::Clock;
use countersign::config::{self, Overlay};
use std::time::Duration;

/// A server of a test's own, to be stopped and broken.
pub(crate) enum Server {
    Redis(Redis),
    Postgres(Postgres),
}

/// A server, a namespace, and a home with keys that all sidecars of a test share.
pub(crate) struct Store {
    pub(crate) server: Server,
    pub(crate) namespace: String,
    pub(crate) home: Home,
}

impl Store {
    pub(crate) fn redis() -> Self {
        Self::on(Server::Redis(Redis::start()))
    }

    pub(crate) fn postgres() -> Self {
        Self::postgres_with(&["log_connections=on"])
    }

    pub(crate) fn redis_with(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::on(Server::Redis(Redis::with(RedisOptions { arguments })))
    }

    pub(crate) fn postgres_with(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        Self::on(Server::Postgres(Postgres::with(PostgresOptions { settings })))
    }

    fn on(server: Server) -> Self {
        Self { server, namespace: fresh_namespace(), home: Home::new() }
    }

    pub(crate) fn url(&self) -> String {
        match &self.server {
            Server::Redis(server) => server.url(),
            Server::Postgres(server) => server.url(),
        }
    }

    /// A configuration for a sidecar of this fleet, with these policies, and these further settings of the store.
    pub(crate) fn config(&self, policies: &str, more: &str) -> String {
        let password = match &self.server {
            Server::Redis(_) => String::new(),
            Server::Postgres(server) => format!(", password_file: {}", server.password_file().display()),
        };
        let (url, namespace) = (self.url(), &self.namespace);
        let own = self.home.own(policies);
        self.home.config(&format!(
            "api: {{tcp: \"127.0.0.1:0\", workers: 1, serve: [verify, refresh, revoke, sessions, jwks]}}\n{own}\
             store: {{url: \"{url}\", namespace: {namespace}{password}{more}}}\n"
        ))
    }

    pub(crate) async fn migrate(&self) {
        let file = self.write("migrate.yaml", &self.config("", ""));
        let config = config::load(Some(&file), &Overlay::default()).unwrap();
        countersign::app::migrate(&config).await.unwrap();
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> std::path::PathBuf {
        let file = self.home.path(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Sidecars that are ready, after a migration.
    pub(crate) async fn fleet<const N: usize>(&self, policies: &str) -> [Sidecar; N] {
        self.migrate().await;
        let mut sidecars = Vec::new();
        for _ in 0..N {
            sidecars.push(self.sidecar(policies).await);
        }
        sidecars.try_into().ok().unwrap()
    }

    pub(crate) async fn sidecar(&self, policies: &str) -> Sidecar {
        Sidecar::start(&self.config(policies, ""), Clock::system(), &self.home.path("")).await
    }

    pub(crate) fn signal(&self, name: &str) {
        match &self.server {
            Server::Redis(server) => server.process().signal(name),
            // Its children hold the connections: all of them are stopped, and go on.
            Server::Postgres(server) => {
                let pid = server.process().pid();
                let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
                for pid in children.split_whitespace().chain([pid.to_string().as_str()]) {
                    // One may have ended meanwhile.
                    let _ = std::process::Command::new("kill").args([&format!("-{name}"), pid]).status();
                }
            }
        }
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        match &mut self.server {
            Server::Redis(server) => server.kill(),
            Server::Postgres(server) => server.kill(),
        }
    }

    pub(crate) fn restart(&mut self) {
        match &mut self.server {
            Server::Redis(server) => server.restart(),
            Server::Postgres(server) => server.restart(),
        }
    }
}

/// A policy of this staleness bound, the default.
pub(crate) fn bound(bound: Duration) -> String {
    format!(
        "    medium: {{preset: medium, staleness_bound: {}ms}}\n    careful: {{preset: high}}\n",
        bound.as_millis()
    )
}
