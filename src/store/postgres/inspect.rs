//! What the server's own settings keep, and what they would lose.

use super::failed::no_right;
use super::link::Link;
use crate::store::{Durability, Report, ServerFault};

/// Looks at the settings that durability hangs on.
pub(super) async fn report(link: &Link, durability: Durability) -> Result<Report, ServerFault> {
    // What replicas there are, and how they are attached, only some users may see; then it is not spoken of.
    let text = "SELECT current_setting('fsync'), current_setting('full_page_writes'), \
                current_setting('synchronous_standby_names'), \
                (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('async', 'potential')), \
                (SELECT count(*) FROM pg_stat_replication WHERE sync_state IN ('sync', 'quorum'))";
    let what = || "read pg_stat_replication".to_owned();
    let rows = link.client.query_typed(text, &[]).await;
    let rows = rows.map_err(|error| no_right(error, &link.about.server, what))?;
    let row = rows.first().ok_or_else(|| ServerFault::Odd("no answer to a look".into()))?;
    let odd = |error: tokio_postgres::Error| ServerFault::Odd(error.into());
    let setting = |place| row.try_get::<_, &str>(place).map_err(odd);
    let settings = Settings {
        fsync: setting(0)? == "on",
        full_page_writes: setting(1)? == "on",
        waits_for: standbys_waited_for(setting(2)?),
        asynchronous: row.try_get(3).map_err(odd)?,
    };
    let server = format!("PostgreSQL {}", link.about.version);
    Ok(Report { server, warnings: settings.warnings(durability) })
}

#[derive(Debug)]
struct Settings {
    fsync: bool,
    full_page_writes: bool,
    waits_for: u32,
    asynchronous: i64,
}

impl Settings {
    fn warnings(&self, durability: Durability) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.fsync {
            warnings.push(
                "fsync is off: an acknowledged revocation can be lost, and the database with it, when the server's \
                 machine stops; set fsync = on"
                    .to_owned(),
            );
        }
        if !self.full_page_writes {
            warnings.push(
                "full_page_writes is off: a page half written when the server's machine stops can't be repaired; \
                 set full_page_writes = on"
                    .to_owned(),
            );
        }
        let wanted = match durability {
            Durability::Replicated(replicas) => u32::from(replicas),
            Durability::Acknowledged | Durability::Fsynced => 0,
        };
        if self.waits_for < wanted {
            warnings.push(format!(
                "replicated:{wanted} is not kept: a commit waits for {} standbys; set \
                 synchronous_standby_names = 'ANY {wanted} (*)', or the standbys' names for *",
                self.waits_for
            ));
        }
        if self.asynchronous > 0 && self.waits_for == 0 {
            warnings.push(
                "a standby is attached asynchronously: an acknowledged revocation can be lost at a failover, until a \
                 sidecar that holds it gives it back; set synchronous_standby_names to wait for it"
                    .to_owned(),
            );
        }
        warnings
    }
}

/// How many standbys `synchronous_standby_names` makes a commit wait for.
fn standbys_waited_for(names: &str) -> u32 {
    let names = names.trim();
    if names.is_empty() {
        return 0;
    }
    let Some((before, _)) = names.split_once('(') else { return 1 };
    let mut words = before.split_whitespace().rev();
    words.next().and_then(|count| count.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standbys_waited_for_are_read_in_every_spelling() {
        for (names, count) in [
            ("", 0),
            ("*", 1),
            ("one, two", 1),
            ("2 (one, two)", 2),
            ("FIRST 3 (a, b, c)", 3),
            ("any 2(*)", 2),
        ] {
            assert_eq!(standbys_waited_for(names), count, "{names}");
        }
    }

    #[test]
    fn each_promise_that_is_not_kept_is_told_with_what_to_set() {
        let careful = Settings { fsync: true, full_page_writes: true, waits_for: 1, asynchronous: 0 };
        assert!(careful.warnings(Durability::Replicated(1)).is_empty());
        assert!(careful.warnings(Durability::Replicated(2))[0].contains("'ANY 2 (*)'"));
        let careless = Settings { fsync: false, full_page_writes: false, waits_for: 0, asynchronous: 1 };
        assert_eq!(careless.warnings(Durability::Fsynced).len(), 3);
    }
}
