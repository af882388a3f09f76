//! The namespace: one schema, created or brought up to date by whoever is first, and given a new epoch when the server
//! behind it is another incarnation than the one that it was written by.

use super::failed::{Failed, no_right};
use super::link::Link;
use super::locks;
use crate::revocation::StoreError;
use crate::store::{Access, Migration, Namespace, ServerFault};
use crate::token::random_bytes;
use tokio_postgres::Error;
use tokio_postgres::types::{ToSql, Type};

/// What each version of the schema adds to the one before.
const MIGRATIONS: &[&str] = &[include_str!("schema_1.sql"), include_str!("schema_2.sql")];
const KNOWN: u32 = 2;

/// What is there by that name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// Nothing, or (`true`) an empty schema.
    Nothing(bool),
    /// Tables, and none of ours among them.
    Foreign,
    /// Ours, without the row that says which version: somebody emptied it.
    Emptied,
    Ours {
        version: u32,
        incarnation: String,
    },
}

/// Checks that the namespace can be used, changing nothing.
pub(super) async fn check(link: &Link, access: &Access) -> Result<(), ServerFault> {
    let namespace = &access.namespace;
    match look(link, namespace).await? {
        Found::Nothing(_) if !access.migrate => Err(ServerFault::NoNamespace(namespace.clone())),
        Found::Nothing(exists) => may_create(link, namespace, exists).await,
        found @ (Found::Foreign | Found::Emptied | Found::Ours { .. }) => {
            usable(namespace, &found, access.migrate)
        }
    }
}

/// Makes the namespace usable through this connection. `known`: this process has used it before, so that it is made
/// again where it vanished, and what was lost is to be given back.
pub(super) async fn ready(link: &Link, access: &Access, known: bool) -> Result<(), ServerFault> {
    let namespace = &access.namespace;
    let mut found = look(link, namespace).await?;
    let behind = match &found {
        Found::Nothing(_) => true,
        Found::Ours { version, .. } => *version < KNOWN,
        Found::Foreign | Found::Emptied => false,
    };
    if behind && (access.migrate || known) {
        migrate(link, namespace, Birth::Now).await?;
        found = look(link, namespace).await?;
    }
    usable(namespace, &found, false)?;
    match found {
        Found::Ours { incarnation, .. } if incarnation == link.about.incarnation => {
            let noticed = notice_older_copy(link).await;
            noticed.map_err(|failed| failed_at(link, failed, namespace))
        }
        Found::Ours { incarnation, .. } => {
            adopt(link, &incarnation).await.map_err(|failed| failed_at(link, failed, namespace))
        }
        Found::Emptied => fill(link, Birth::Now).await.map_err(|failed| failed_at(link, failed, namespace)),
        Found::Nothing(_) | Found::Foreign => Ok(()),
    }
}

/// An older copy put in place under the same name gets its new epoch before anything is appended to it, or what is appended
/// would bear numbers that readers hold already.
async fn notice_older_copy(link: &Link) -> Result<(), Failed> {
    let seen = link.heads.seen();
    let rows = link.client.query_typed("SELECT epoch, seq FROM head", &[]).await?;
    match rows.first().map(super::rows::revision).transpose()? {
        Some(head) if seen.is_ahead_of(head) => begin_epoch(link, super::rows::signed(head.epoch)).await,
        Some(_) | None => Ok(()),
    }
}

/// When the epoch of a namespace that is created began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Birth {
    /// Somebody may hold what an earlier one lost.
    Now,
    /// Nobody does.
    LongAgo,
}

/// Creates the namespace, or brings it to this release's schema, in one transaction that only one at a time is in.
pub(super) async fn migrate(
    link: &Link,
    namespace: &Namespace,
    birth: Birth,
) -> Result<Migration, ServerFault> {
    let sent = |error| fault(link, error, namespace);
    link.client.batch_execute("BEGIN").await.map_err(sent)?;
    let done = migrate_inside(link, namespace, birth).await;
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    link.client.batch_execute(end).await.map_err(sent)?;
    done
}

async fn migrate_inside(link: &Link, namespace: &Namespace, birth: Birth) -> Result<Migration, ServerFault> {
    let sent = |error| fault(link, error, namespace);
    let lock = locks::of_namespace(namespace);
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&lock, Type::INT8)];
    link.client.query_typed("SELECT pg_advisory_xact_lock($1)", &values).await.map_err(sent)?;
    let from = match look(link, namespace).await? {
        Found::Nothing(exists) => {
            if !exists {
                let create = format!("CREATE SCHEMA \"{namespace}\"");
                let what = || format!("create the schema `{namespace}`; it needs CREATE on the database");
                let created = link.client.batch_execute(&create).await;
                created.map_err(|error| no_right(error, &link.about.server, what))?;
            }
            0
        }
        found @ (Found::Foreign | Found::Emptied | Found::Ours { .. }) => {
            usable(namespace, &found, true)?;
            match found {
                Found::Ours { version, .. } => version,
                Found::Nothing(_) | Found::Foreign | Found::Emptied => KNOWN,
            }
        }
    };
    let what = || format!("create tables in the schema `{namespace}`; it needs CREATE on the schema");
    let tables = |error| no_right(error, &link.about.server, what);
    if from < KNOWN {
        // Tables are created where the path leads first.
        let path = format!("SET LOCAL search_path = \"{namespace}\"");
        link.client.batch_execute(&path).await.map_err(tables)?;
        for migration in MIGRATIONS.iter().skip(usize::try_from(from).unwrap_or(usize::MAX)) {
            link.client.batch_execute(migration).await.map_err(tables)?;
        }
        let path = format!("SET LOCAL search_path = pg_catalog, \"{namespace}\"");
        link.client.batch_execute(&path).await.map_err(tables)?;
        if from > 0 {
            let version = format!("UPDATE head SET schema_version = {KNOWN}");
            link.client.batch_execute(&version).await.map_err(tables)?;
        }
    }
    if from == 0 {
        fill(link, birth).await.map_err(|failed| failed_at(link, failed, namespace))?;
    }
    Ok(Migration { from, to: KNOWN })
}

/// Writes a new epoch because the log went back in time: whoever holds what it lost has to hear of it.
pub(super) async fn begin_epoch(link: &Link, lost: i64) -> Result<(), Failed> {
    let text = concat!("UPDATE head SET epoch = $1, born = ", super::rows::clock!(), " WHERE epoch = $2");
    let begun = locally(link, text, &[&draw_epoch()?, &lost]).await?;
    if begun > 0 {
        tracing::warn!("the store's log went back in time; it has a new epoch from here on");
    }
    Ok(())
}

/// Writes a new epoch unless somebody else did since it was looked.
pub(super) async fn adopt(link: &Link, incarnation: &str) -> Result<(), Failed> {
    let text = concat!(
        "UPDATE head SET epoch = $1, incarnation = $2, born = ",
        super::rows::clock!(),
        " WHERE incarnation = $3"
    );
    let begun = locally(link, text, &[&draw_epoch()?, &link.about.incarnation, &incarnation]).await?;
    if begun > 0 {
        tracing::warn!(
            server = link.about.server,
            "the store is another server, or was promoted; its log has a new epoch from here on"
        );
    }
    Ok(())
}

/// Writes an epoch without waiting until a standby has it: one that is promoted without it draws another, and until a standby
/// is there nobody could read.
async fn locally(link: &Link, text: &'static str, values: &[&(dyn ToSql + Sync)]) -> Result<u64, Failed> {
    link.client.batch_execute("BEGIN; SET LOCAL synchronous_commit = local").await?;
    let done = link.execute(text, values).await;
    link.client.batch_execute(if done.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    done
}

async fn fill(link: &Link, birth: Birth) -> Result<(), Failed> {
    let text = concat!(
        "INSERT INTO head (one, schema_version, epoch, seq, born, incarnation) \
         SELECT 1, $1, $2, coalesce((SELECT max(seq) FROM log), 0), CASE WHEN $3 THEN ",
        super::rows::clock!(),
        " ELSE 0 END, $4 ON CONFLICT DO NOTHING"
    );
    let version = i32::try_from(KNOWN).unwrap_or(i32::MAX);
    let values: [(&(dyn ToSql + Sync), Type); 4] = [
        (&version, Type::INT4),
        (&draw_epoch()?, Type::INT8),
        (&(birth == Birth::Now), Type::BOOL),
        (&link.about.incarnation, Type::TEXT),
    ];
    link.client.query_typed(text, &values).await?;
    Ok(())
}

async fn look(link: &Link, namespace: &Namespace) -> Result<Found, ServerFault> {
    let sent = |error| fault(link, error, namespace);
    // The catalogue may be read without any right.
    let text = "SELECT n.oid, count(c.oid), \
        count(a.attname) FILTER (WHERE c.relname = 'head'), \
        has_schema_privilege(n.oid, 'USAGE') \
        FROM pg_namespace n LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
        LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname IN ('schema_version', 'epoch', 'incarnation') \
        WHERE n.nspname = $1 GROUP BY n.oid";
    let values: [(&(dyn ToSql + Sync), Type); 1] = [(&namespace.as_str(), Type::TEXT)];
    let rows = link.client.query_typed(text, &values).await.map_err(sent)?;
    let Some(row) = rows.first() else { return Ok(Found::Nothing(false)) };
    let (tables, ours): (i64, i64) = (row.try_get(1).map_err(sent)?, row.try_get(2).map_err(sent)?);
    if tables == 0 {
        return Ok(Found::Nothing(true));
    }
    if ours != 3 {
        return Ok(Found::Foreign);
    }
    let rows = link.client.query_typed("SELECT schema_version, incarnation FROM head", &[]).await;
    let what = || {
        format!(
            "use the schema `{namespace}`; it needs USAGE on the schema, and SELECT, INSERT, UPDATE and DELETE on \
             its tables"
        )
    };
    let hidden = !row.try_get::<_, bool>(3).map_err(sent)?;
    let rows = match rows {
        // Without USAGE the search path passes the schema over.
        Err(error) if hidden => return Err(ServerFault::Forbidden { what: what(), source: error.into() }),
        rows => rows.map_err(|error| no_right(error, &link.about.server, what))?,
    };
    let Some(row) = rows.first() else { return Ok(Found::Emptied) };
    let version = u32::try_from(row.try_get::<_, i32>(0).map_err(sent)?).unwrap_or(u32::MAX);
    Ok(Found::Ours { version, incarnation: row.try_get(1).map_err(sent)? })
}

fn usable(namespace: &Namespace, found: &Found, older_too: bool) -> Result<(), ServerFault> {
    let namespace = namespace.clone();
    match found {
        Found::Nothing(_) => Err(ServerFault::NoNamespace(namespace)),
        Found::Foreign => Err(ServerFault::Foreign(namespace)),
        Found::Ours { version, .. } if *version > KNOWN => {
            Err(ServerFault::NewerSchema { namespace, found: *version, known: KNOWN })
        }
        Found::Ours { version, .. } if *version < KNOWN && !older_too => {
            Err(ServerFault::OlderSchema { namespace, found: *version, known: KNOWN })
        }
        Found::Emptied | Found::Ours { .. } => Ok(()),
    }
}

async fn may_create(link: &Link, namespace: &Namespace, exists: bool) -> Result<(), ServerFault> {
    let text = "SELECT CASE WHEN $2 THEN has_schema_privilege(n.oid, 'CREATE') \
                ELSE has_database_privilege(current_database(), 'CREATE') END \
                FROM (SELECT (SELECT oid FROM pg_namespace WHERE nspname = $1) AS oid) n";
    let values: [(&(dyn ToSql + Sync), Type); 2] = [(&namespace.as_str(), Type::TEXT), (&exists, Type::BOOL)];
    let sent = |error| fault(link, error, namespace);
    let rows = link.client.query_typed(text, &values).await.map_err(sent)?;
    let may = rows.first().map(|row| row.try_get::<_, Option<bool>>(0)).transpose().map_err(sent)?;
    if may.flatten() == Some(true) {
        return Ok(());
    }
    let on = if exists { "schema" } else { "database" };
    let what = format!("create the namespace `{namespace}`; it needs CREATE on the {on}");
    Err(ServerFault::Forbidden { what, source: "has no such privilege".into() })
}

fn fault(link: &Link, error: Error, namespace: &Namespace) -> ServerFault {
    no_right(error, &link.about.server, || {
        format!("change the tables of the schema `{namespace}`; it needs INSERT, UPDATE and DELETE on them")
    })
}

fn failed_at(link: &Link, failed: Failed, namespace: &Namespace) -> ServerFault {
    match failed {
        Failed::Postgres(error) => fault(link, error, namespace),
        failed @ (Failed::Stale(_) | Failed::Store(_)) => ServerFault::Odd(failed.told().into()),
    }
}

/// Positive, because Postgres' integers are signed.
fn draw_epoch() -> Result<i64, Failed> {
    let drawn = random_bytes().map_err(|error| StoreError::Unavailable(error.into()))?;
    Ok(i64::from_be_bytes(drawn) & i64::MAX)
}
