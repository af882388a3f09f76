//! Applications' tables of sessions, from their sections.

use crate::app::rooms::noted;
use crate::config::{self, Config, Database, Fault};
use crate::store::session_table::{Layout, PostgresTable, SqliteTable, Users};
use crate::store::{Access, postgres};
use crate::verify::{SessionRows, SessionTable, TableRules, TableSettings};
use std::sync::Arc;

/// The table of one issuer. Connects nowhere.
pub(super) fn build_table(
    config: &Config,
    at: &str,
    settings: &config::SessionTable,
    faults: &mut Vec<Fault>,
) -> Option<Arc<SessionRows>> {
    let columns = &settings.columns;
    let layout = Layout {
        schema: settings.schema.clone(),
        table: settings.table.clone(),
        token: columns.token.clone(),
        user: columns.user.clone(),
        expires: columns.expires.clone(),
        created: columns.created.clone(),
        users: settings.user.as_ref().map(|user| Users {
            table: user.table.clone(),
            key: user.key.clone(),
            columns: user.columns.clone(),
        }),
        counts: settings.max_sessions.is_some(),
    };
    let table: Arc<dyn SessionTable> = match &settings.database {
        Database::Sqlite { path, answer_within } => {
            Arc::new(SqliteTable::new(path.clone(), layout, *answer_within))
        }
        Database::Postgres { url, password_file, ca_file, answer_within, connections } => {
            let address = noted(url.parse::<postgres::Address>(), config, &format!("{at}.url"), faults)?;
            let access = Access {
                password_file: password_file.clone(),
                ca_file: ca_file.clone(),
                answer_within: *answer_within,
                connections: *connections,
                ..Access::default()
            };
            Arc::new(noted(PostgresTable::new(address, access, layout), config, at, faults)?)
        }
    };
    Some(Arc::new(SessionRows::new(TableSettings {
        table,
        rules: TableRules {
            max_age: settings.max_age,
            update_age: settings.update_age,
            idle: settings.idle,
            absolute: settings.absolute,
            max_sessions: settings.max_sessions,
        },
        cookies: settings.cookie_names(),
        tells_logins: columns.created.is_some(),
        purge_every: settings.purge_every,
    })))
}
