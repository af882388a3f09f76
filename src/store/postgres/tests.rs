use super::*;
use crate::store::conformance::{conformance, races};
use crate::store::engines::{Postgres, fresh_namespace};
use crate::store::shared::JudgeBy;
use std::sync::LazyLock;

static SERVER: LazyLock<Postgres> = LazyLock::new(Postgres::start);

conformance!(fresh());

/// Generous, because the machine is busy while tests run.
fn access(server: &Postgres, namespace: &str) -> Access {
    Access {
        password_file: Some(server.password_file()),
        namespace: namespace.parse().unwrap(),
        migrate: true,
        answer_within: Duration::from_secs(20),
        judge_by: JudgeBy::Caller,
        ..Access::default()
    }
}

fn open(server: &Postgres, access: Access) -> PostgresStore {
    PostgresStore::new(server.url().parse().unwrap(), access).unwrap()
}

fn fresh() -> (PostgresStore, ()) {
    (open(&SERVER, access(&SERVER, &fresh_namespace())), ())
}

#[test]
fn whatever_happens_at_once_a_generation_has_one_successor() {
    races(async || {
        let access = access(&SERVER, &fresh_namespace());
        ([(); 3].map(|()| open(&SERVER, access.clone())), ())
    });
}

mod feed;
mod refusals;
mod together;

/// kill, by process id.
fn signal(pid: &str, name: &str) {
    let sent = std::process::Command::new("kill").arg(format!("-{name}")).arg(pid).status().unwrap();
    assert!(sent.success(), "kill -{name} {pid}");
}
