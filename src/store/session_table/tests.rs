//! One suite over both databases, on the tables that Prisma makes of the models in Auth.js' documentation, and on those of
//! other adapters.

use super::*;
use crate::clock::Clock;
use crate::store::engines::{Postgres, fresh_namespace};
use crate::store::{Access, postgres};
use crate::token::Secret;
use crate::verify::{Bounds, Rows, SessionTable, TableError, session_id};
use rusqlite::Connection;
use std::sync::LazyLock;
use std::time::Duration;
use tempfile::TempDir;

static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

/// What `prisma migrate` makes of the models in the documentation of Auth.js' adapter (ISC licence), on Postgres.
const PRISMA_ON_POSTGRES: &str = r#"
CREATE TABLE "User" ("id" TEXT NOT NULL, "name" TEXT, "email" TEXT NOT NULL, "emailVerified" TIMESTAMP(3),
    "image" TEXT, "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" TIMESTAMP(3) NOT NULL,
    CONSTRAINT "User_pkey" PRIMARY KEY ("id"));
CREATE TABLE "Session" ("sessionToken" TEXT NOT NULL, "userId" TEXT NOT NULL, "expires" TIMESTAMP(3) NOT NULL,
    "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" TIMESTAMP(3) NOT NULL);
CREATE UNIQUE INDEX "User_email_key" ON "User"("email");
CREATE UNIQUE INDEX "Session_sessionToken_key" ON "Session"("sessionToken");
ALTER TABLE "Session" ADD CONSTRAINT "Session_userId_fkey" FOREIGN KEY ("userId") REFERENCES "User"("id")
    ON DELETE CASCADE ON UPDATE CASCADE;
"#;

/// The same on SQLite, where sessions have an id.
const PRISMA_ON_SQLITE: &str = r#"
CREATE TABLE "User" ("id" TEXT NOT NULL PRIMARY KEY, "name" TEXT, "email" TEXT, "emailVerified" DATETIME,
    "image" TEXT, "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, "updatedAt" DATETIME NOT NULL);
CREATE TABLE "Session" ("id" TEXT NOT NULL PRIMARY KEY, "sessionToken" TEXT NOT NULL, "userId" TEXT NOT NULL,
    "expires" DATETIME NOT NULL, "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updatedAt" DATETIME NOT NULL,
    CONSTRAINT "Session_userId_fkey" FOREIGN KEY ("userId") REFERENCES "User" ("id")
    ON DELETE CASCADE ON UPDATE CASCADE);
CREATE UNIQUE INDEX "User_email_key" ON "User"("email");
CREATE UNIQUE INDEX "Session_sessionToken_key" ON "Session"("sessionToken");
"#;

/// How a database writes an instant, from milliseconds.
type Written = fn(u64) -> String;

/// A database with a table of sessions, and what an application does there.
struct Base {
    site: Site,
    layout: Layout,
    written: Written,
}

enum Site {
    File(TempDir),
    /// By its schema.
    Server(String),
}

fn prisma() -> Layout {
    let users = Users {
        table: "User".to_owned(),
        key: "id".to_owned(),
        columns: ["email", "name"].map(str::to_owned).to_vec(),
    };
    Layout {
        schema: "public".to_owned(),
        table: "Session".to_owned(),
        token: "sessionToken".to_owned(),
        user: "userId".to_owned(),
        expires: "expires".to_owned(),
        created: Some("createdAt".to_owned()),
        users: Some(users),
        counts: true,
    }
}

impl Base {
    /// Prisma's on each database, and in SQLite in each form that Prisma has had for instants.
    fn all() -> Vec<Self> {
        let on_sqlite = |written| Self::sqlite(PRISMA_ON_SQLITE, prisma(), written);
        vec![
            Self::postgres(PRISMA_ON_POSTGRES, prisma(), |millis| {
                format!("(to_timestamp({millis} / 1000.0) AT TIME ZONE 'UTC')")
            }),
            on_sqlite(|millis| millis.to_string()),
            on_sqlite(|millis| {
                format!("strftime('%Y-%m-%dT%H:%M:%f', {millis} / 1000.0, 'unixepoch') || '+00:00'")
            }),
            on_sqlite(|millis| format!("strftime('%Y-%m-%dT%H:%M:%fZ', {millis} / 1000.0, 'unixepoch')")),
        ]
    }

    fn sqlite(ddl: &str, layout: Layout, written: Written) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Connection::open(directory.path().join("dev.db")).unwrap().execute_batch(ddl).unwrap();
        Self { site: Site::File(directory), layout, written }
    }

    /// In a schema of its own, and a database whose zone is not UTC.
    fn postgres(ddl: &str, layout: Layout, written: Written) -> Self {
        let schema = fresh_namespace();
        let _done = SERVER.sql(&format!("CREATE SCHEMA {schema}; SET search_path = {schema}; {ddl}"));
        Self { site: Site::Server(schema.clone()), layout: Layout { schema, ..layout }, written }
    }

    fn table(&self) -> Box<dyn SessionTable> {
        self.table_as(self.layout.clone())
    }

    fn table_as(&self, layout: Layout) -> Box<dyn SessionTable> {
        let patience = Duration::from_secs(20);
        match &self.site {
            Site::File(directory) => {
                Box::new(SqliteTable::new(directory.path().join("dev.db"), layout, patience))
            }
            Site::Server(_) => {
                let address = SERVER.url().parse::<postgres::Address>().unwrap();
                let password_file = Some(SERVER.password_file());
                let access = Access { password_file, answer_within: patience, ..Access::default() };
                Box::new(PostgresTable::new(address, access, layout).unwrap())
            }
        }
    }

    /// Does as the application would.
    fn sql(&self, sql: &str) -> String {
        match &self.site {
            Site::Server(schema) => {
                SERVER.sql(&format!("SET search_path = {schema}; SET TIME ZONE 'Asia/Tokyo'; {sql}"))
            }
            Site::File(directory) => {
                let connection = Connection::open(directory.path().join("dev.db")).unwrap();
                if sql.starts_with("SELECT") {
                    connection.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap_or_default()
                } else {
                    connection.execute_batch(sql).unwrap();
                    String::new()
                }
            }
        }
    }

    fn user(&self, name: &str) {
        let now = (self.written)(NOW);
        self.sql(&format!(
            r#"INSERT INTO "User" ("id", "email", "updatedAt") VALUES ('{name}', '{name}@example.com', {now})"#
        ));
    }

    fn login(&self, token: &str, user: &str, expires: u64, created: u64) {
        let [expires, created, now] = [expires, created, NOW].map(self.written);
        let (id_column, id) = match &self.site {
            Site::File(_) => (r#""id", "#, format!("'id-{token}', ")),
            Site::Server(_) => ("", String::new()),
        };
        self.sql(&format!(
            r#"INSERT INTO "Session" ({id_column}"sessionToken", "userId", "expires", "createdAt", "updatedAt")
               VALUES ({id}'{token}', '{user}', {expires}, {created}, {now})"#
        ));
    }

    /// How many sessions there are.
    fn count(&self) -> String {
        self.sql(r#"SELECT CAST(count(*) AS TEXT) FROM "Session""#)
    }
}

const NOW: u64 = 1_900_000_000_123;
const DAY: u64 = 86_400_000;
/// Counts every row that ends after now.
const LIVE: Bounds = Bounds { ended_by: Timestamp::from_millis(NOW), created_by: None };

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

async fn ends(table: &dyn SessionTable, token: &str) -> Option<u64> {
    table.find(token, LIVE).await.unwrap().map(|row| row.times.expires_at.as_millis())
}

fn token(text: &str) -> Rows {
    Rows::Token(Secret::new(text.as_bytes().to_vec()))
}

#[tokio::test]
async fn a_row_is_found_with_its_times_and_its_user() {
    for base in Base::all() {
        base.user("alice");
        base.login("t1", "alice", NOW + 30 * DAY, NOW - DAY);
        let table = base.table();
        table.look().await.unwrap();
        let row = table.find("t1", LIVE).await.unwrap().unwrap();
        assert_eq!(row.subject, "alice");
        assert_eq!(row.times.expires_at, at(NOW + 30 * DAY));
        assert_eq!((row.times.created_at, row.times.newer), (Some(at(NOW - DAY)), 0));
        let claims = [("email", r#""alice@example.com""#), ("name", "null")];
        assert_eq!(row.claims, claims.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for other in ["T1", "t1 ", "", "t1' OR '1'='1", "t\u{0}"] {
            // Postgres has no text with a NUL, and says so.
            assert!(
                matches!(table.find(other, LIVE).await, Ok(None) | Err(TableError::Unreachable(_))),
                "{other:?}"
            );
        }
        assert!(table.find("t1", LIVE).await.unwrap().is_some(), "and goes on");
    }
}

#[tokio::test]
async fn of_many_who_extend_at_once_one_writes_and_in_the_application_s_own_form() {
    for base in Base::all() {
        base.user("alice");
        base.login("t1", "alice", NOW + 2 * DAY, NOW - DAY);
        let tables: Vec<_> = (0..4).map(|_| base.table()).collect();
        let form = || base.sql(r#"SELECT CAST("expires" AS TEXT) FROM "Session""#);
        let before = form();
        // Each has read another instant, as sidecars' clocks differ.
        let extend = tables.iter().zip(0..).map(|(table, late)| {
            let to = at(NOW + 30 * DAY + late);
            table.extend("t1", to, at(NOW), at(NOW + 29 * DAY))
        });
        let done = futures_util::future::join_all(extend).await;
        assert_eq!(done.into_iter().filter(|moved| *moved.as_ref().unwrap()).count(), 1, "one writes");
        let after = ends(&*tables[0], "t1").await.unwrap();
        assert!((NOW + 30 * DAY..NOW + 30 * DAY + 4).contains(&after), "{after}");
        assert_eq!(form().len(), before.len(), "{before} became {}", form());
        tables[0].extend("t1", at(NOW + 31 * DAY), at(NOW), at(NOW + 29 * DAY)).await.unwrap();
        assert_eq!(ends(&*tables[0], "t1").await, Some(after), "it is not due again");
        tables[0].extend("t1", at(NOW + 70 * DAY), at(NOW + 40 * DAY), at(NOW + 69 * DAY)).await.unwrap();
        assert_eq!(ends(&*tables[0], "t1").await, Some(after), "what is over stays over");
    }
}

#[tokio::test]
async fn rows_are_deleted_by_token_and_id_and_as_they_were_listed_and_no_others() {
    for base in Base::all() {
        base.user("alice");
        base.user("bob");
        for name in ["a1", "a2", "a3", "a4"] {
            base.login(name, "alice", NOW + DAY, NOW);
        }
        base.login("b1", "bob", NOW + DAY, NOW);
        let table = base.table();
        let listed = async |subject: &str, except: Option<&str>, limit| {
            let mut listed = table.list(subject, except, limit).await.unwrap();
            listed.sort();
            listed
        };
        let ids = |tokens: &[&str]| {
            let mut ids: Vec<_> = tokens.iter().map(|token| session_id(token)).collect();
            ids.sort();
            ids
        };
        for _ in 0..2 {
            table.delete(&token("a1")).await.unwrap();
            assert_eq!(listed("alice", None, 10).await, ids(&["a2", "a3", "a4"]), "a1 is gone");
        }
        table.delete(&Rows::Session(session_id("a2"))).await.unwrap();
        assert_eq!(listed("alice", None, 10).await, ids(&["a3", "a4"]));
        assert_eq!(listed("alice", None, 1).await.len(), 1);
        let sessions = listed("alice", Some(&session_id("a4")), 10).await;
        assert_eq!(sessions, ids(&["a3"]));
        // Logged in meanwhile; and another's is not deleted, whoever names it.
        base.login("a5", "alice", NOW + DAY, NOW);
        let sessions = sessions.into_iter().chain(ids(&["b1"])).collect();
        table.delete(&Rows::Listed { subject: "alice".to_owned(), sessions }).await.unwrap();
        assert_eq!(listed("alice", None, 10).await, ids(&["a4", "a5"]));
        assert_eq!(listed("bob", None, 10).await, ids(&["b1"]));
        let nothing = Rows::Listed { subject: "nobody".to_owned(), sessions: ids(&["a4", "b1"]) };
        table.delete(&nothing).await.unwrap();
        assert_eq!(base.count(), "3");
        table.delete(&Rows::All).await.unwrap();
        assert_eq!(base.count(), "0");
    }
}

#[tokio::test]
async fn newer_live_sessions_of_the_same_user_are_counted() {
    for base in Base::all() {
        base.user("alice");
        base.user("bob");
        for (name, created) in [("a1", 3), ("a2", 2), ("a3", 2), ("a4", 1)] {
            base.login(name, "alice", NOW + DAY, NOW - created * DAY);
        }
        base.login("over", "alice", NOW - 1, NOW);
        base.login("b1", "bob", NOW + DAY, NOW);
        let table = base.table();
        let mut newer = Vec::new();
        for name in ["a1", "a2", "a3", "a4"] {
            newer.push(table.find(name, LIVE).await.unwrap().unwrap().times.newer);
        }
        assert_eq!(newer, [3, 2, 1, 0], "two of the same instant are told apart");
        let since = Bounds { created_by: Some(at(NOW - 2 * DAY)), ..LIVE };
        assert_eq!(
            table.find("a1", since).await.unwrap().unwrap().times.newer,
            1,
            "the others are past their limit"
        );
        // Where no login is told, the one used last is the newest.
        let table = base.table_as(Layout { created: None, ..base.layout.clone() });
        base.sql(&format!(
            r#"UPDATE "Session" SET "expires" = {} WHERE "sessionToken" = 'a1'"#,
            (base.written)(NOW + 9 * DAY)
        ));
        assert_eq!(table.find("a1", LIVE).await.unwrap().unwrap().times.newer, 0);
    }
}

#[tokio::test]
async fn a_purge_takes_what_is_over_and_no_more_than_asked() {
    for base in Base::all() {
        base.user("alice");
        // A server's own clock counts, too.
        let now = Clock::system().now().judged.as_millis() - 600_000;
        for n in 0..5 {
            base.login(&format!("over{n}"), "alice", now - n, now);
        }
        base.login("live", "alice", now + 1, now);
        base.login("old", "alice", now + DAY, now - 90 * DAY);
        let table = base.table();
        let purge = |ended: u64, created: Option<u64>, limit| {
            let over = Bounds { ended_by: at(ended), created_by: created.map(at) };
            table.purge(over, at(now), limit)
        };
        assert_eq!(purge(now, None, 3).await.unwrap(), 3);
        assert_eq!(purge(now, None, 3).await.unwrap(), 2);
        assert_eq!(purge(now, None, 3).await.unwrap(), 0);
        assert_eq!(base.count(), "2");
        assert_eq!(purge(now, Some(now - 90 * DAY), 3).await.unwrap(), 1, "past the absolute limit");
        assert!(ends(&*table, "live").await.is_some());
        if let Site::Server(_) = base.site {
            let ahead = now + 3_600_000;
            let gone =
                table.purge(Bounds { ended_by: at(ahead), created_by: None }, at(ahead), 3).await.unwrap();
            assert_eq!(gone, 1, "what ended ten minutes ago by the server's clock");
            base.login("soon", "alice", now + 1_800_000, now);
            let gone =
                table.purge(Bounds { ended_by: at(ahead), created_by: None }, at(ahead), 3).await.unwrap();
            assert_eq!(gone, 0, "a sidecar whose clock is ahead logs nobody out");
        }
    }
}

mod layouts;
mod trouble;
