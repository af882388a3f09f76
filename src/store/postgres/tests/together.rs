//! Many at once, and beside what SQLite does.

use super::*;
use crate::revocation::EntryKind;
use crate::session::LeaseStore;
use crate::session::rotation::Decision;
use crate::session::store::Limit;
use crate::store::SqliteStore;
use crate::store::conformance::{NOON, login, open_session, token, token_draft, whole_log};
use futures_util::future::join_all;
use proptest::prelude::*;
use std::time::Instant;

const ISSUER: &str = "https://auth.example.com";
const RULES: Rules = Rules { grace: Duration::from_secs(10) };
const HOUR: Duration = Duration::from_secs(3600);

fn by_its_own_clock(namespace: &str) -> Access {
    Access { judge_by: JudgeBy::Store, ..access(&SERVER, namespace) }
}

fn cut_off(subject: Option<&str>) -> Draft {
    let (before, now, longest) = (None, NOON, HOUR);
    match subject {
        Some(subject) => {
            let key = DenialKey::subject(ISSUER, subject);
            Draft::Subject { key, except: None, before, now, longest }
        }
        None => Draft::Issuer { key: DenialKey::issuer(ISSUER), before, now, longest },
    }
}

#[tokio::test]
async fn sixty_four_refreshes_over_three_sidecars_have_one_successor() {
    let namespace = fresh_namespace();
    let stores: Vec<_> = (0..3).map(|_| open(&SERVER, access(&SERVER, &namespace))).collect();
    let new = login("alice", NOON);
    let (id, key) = (new.id, new.session_key);
    open_session(&stores[0], new).await;
    let now = NOON.after(Duration::from_secs(60));
    let refreshes = (0..64).map(|n| stores[n % 3].rotate(id, key, 1, RULES, now));
    let generations = join_all(refreshes).await;
    assert!(generations.iter().all(|one| one.as_ref().unwrap().record.as_ref().unwrap().generation == 2));
}

#[tokio::test]
async fn ten_may_migrate_and_begin_at_once() {
    let namespace = fresh_namespace();
    let stores: Vec<_> = (0..10).map(|_| open(&SERVER, access(&SERVER, &namespace))).collect();
    let migrated = join_all(stores.iter().map(|store| store.migrate())).await;
    let made = migrated.iter().filter(|one| one.as_ref().unwrap().from == 0).count();
    assert_eq!(made, 1);
    let namespace = fresh_namespace();
    let stores: Vec<_> = (0..10).map(|_| open(&SERVER, access(&SERVER, &namespace))).collect();
    let read = join_all(stores.iter().map(|store| store.read_after(None, 1))).await;
    let epochs: std::collections::HashSet<_> =
        read.iter().map(|page| page.as_ref().unwrap().head.epoch).collect();
    assert_eq!(epochs.len(), 1);
}

#[tokio::test]
async fn no_login_beside_a_cut_off_survives_it_with_an_earlier_stamp() {
    let namespace = fresh_namespace();
    let stores: Vec<_> = (0..2).map(|_| open(&SERVER, by_its_own_clock(&namespace))).collect();
    for round in 0..15 {
        let logins = join_all((0..12).map(|n| {
            let recorded = n % 3 != 0;
            stores[n % 2]
                .create(NewSession { recorded, ..login(if n % 2 == 0 { "alice" } else { "bob" }, NOON) })
        }));
        let subject = if round % 3 == 0 { None } else { Some("alice") };
        let (logins, cut) = tokio::join!(logins, stores[1].append(cut_off(subject)));
        let (EntryKind::SubjectBefore { cutoff, .. } | EntryKind::IssuerBefore { cutoff }) =
            cut.unwrap().entry.kind
        else {
            panic!("a cut-off")
        };
        for login in logins {
            let CreateOutcome::Created(created) = login.unwrap() else { panic!("no limit") };
            let record = created.record;
            if subject.is_some_and(|subject| subject != record.subject) {
                continue;
            }
            let found = stores[0].find(record.id).await.unwrap().0;
            if record.created_at <= cutoff {
                assert!(found.is_none(), "round {round}: survived");
            }
        }
    }
    // What an issuer's cut-off ended goes bit by bit.
    assert!(stores[0].purge(Timestamp::default(), 1000).await.unwrap() > 0);
}

#[tokio::test]
async fn whatever_runs_beside_each_other_ends_without_an_error() {
    let namespace = fresh_namespace();
    let stores: Vec<_> = (0..3)
        .map(|_| Arc::new(open(&SERVER, Access { connections: 6, ..access(&SERVER, &namespace) })))
        .collect();
    let ends = Instant::now() + Duration::from_secs(4);
    let tasks = (0..12).map(|n: usize| {
        let store = Arc::clone(&stores[n % 3]);
        tokio::spawn(async move {
            let mut turn = 0_u64;
            while Instant::now() < ends {
                turn += 1;
                let subject = if turn.is_multiple_of(2) { "alice" } else { "bob" };
                match n % 4 {
                    0 => {
                        let limit = Some(Limit { sessions: 3, evict_oldest: true });
                        let new = NewSession { limit, ..login(subject, NOON) };
                        let (id, key) = (new.id, new.session_key);
                        store.create(new).await.unwrap();
                        let later = NOON.after(Duration::from_secs(60));
                        store.rotate(id, key, 1, RULES, later).await.unwrap();
                        store.rotate(id, key, 0, RULES, later.after(HOUR / 2)).await.unwrap();
                    }
                    1 => {
                        let mut entries: Vec<_> = (0..40).map(|n| token(n + turn)).collect();
                        for subject in
                            if turn.is_multiple_of(2) { ["alice", "bob"] } else { ["bob", "alice"] }
                        {
                            let kind = EntryKind::SubjectBefore { cutoff: NOON, except: None };
                            let key = DenialKey::subject(ISSUER, subject);
                            entries.push(Entry { kind, key, expires_at: NOON.after(HOUR) });
                        }
                        store.restore(entries).await.unwrap();
                    }
                    2 => {
                        let draft = cut_off((!turn.is_multiple_of(5)).then_some(subject));
                        store.append(draft).await.unwrap();
                    }
                    _ => {
                        store.purge(NOON, 50).await.unwrap();
                        store.append(token_draft(turn)).await.unwrap();
                    }
                }
            }
            turn
        })
    });
    for task in join_all(tasks).await {
        assert!(task.unwrap() > 0);
    }
    let page = stores[0].read_after(None, 100_000).await.unwrap();
    assert_eq!(page.cursor, page.head);
}

#[tokio::test]
async fn a_server_that_hangs_fails_calls_in_time_and_is_used_again() {
    let server = Postgres::start();
    let within = Duration::from_secs(1);
    let store = open(&server, Access { answer_within: within, ..access(&server, "hang") });
    store.append(token_draft(1)).await.unwrap();
    let backends = server.sql("SELECT pid FROM pg_stat_activity WHERE application_name = 'countersign'");
    let postmaster = server.process().pid().to_string();
    for pid in backends.lines().chain([postmaster.as_str()]) {
        signal(pid, "STOP");
    }
    for n in 2..5 {
        let asked = Instant::now();
        assert!(matches!(store.append(token_draft(n)).await, Err(StoreError::Unavailable(_))));
        assert!(asked.elapsed() < within * 2, "{:?}", asked.elapsed());
    }
    for pid in backends.lines().chain([postmaster.as_str()]) {
        signal(pid, "CONT");
    }
    let back = async {
        while store.append(token_draft(9)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    assert!(whole_log(&store).await.contains(&token(9)));
}

#[tokio::test]
async fn commits_that_no_standby_confirms_leave_nothing_behind_and_reads_go_on() {
    let server = Postgres::start();
    let store = open(&server, Access { answer_within: Duration::from_secs(1), ..access(&server, "alone") });
    store.append(token_draft(1)).await.unwrap();
    let _ = server.sql("ALTER SYSTEM SET synchronous_standby_names = 'missing'");
    let _ = server.sql("SELECT pg_reload_conf()");
    let waiting = || server.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    let refused = async {
        // Until the setting has reached every process.
        while store.append(token_draft(2)).await.is_ok() {}
        for n in 3..9 {
            assert!(matches!(store.append(token_draft(n)).await, Err(StoreError::Unavailable(_))));
            assert!(store.read_after(None, 10).await.is_ok(), "reads go on");
        }
    };
    tokio::time::timeout(Duration::from_secs(40), refused).await.unwrap();
    let gone = async {
        while waiting() != "0" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    let left = server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'countersign'");
    assert!(left.parse::<u32>().unwrap() <= 5, "{left} connections are left");
}

#[derive(Clone, Debug)]
enum Step {
    Append(u64, u64),
    End(usize),
    CutOff(bool),
    Restore(Vec<u64>),
    Create(bool, Option<bool>, bool),
    Rotate(usize, u64),
    Update(usize),
    Touch(usize),
    Purge,
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4_u64, 0..3_u64).prop_map(|(n, longer)| Step::Append(n, longer)),
        (0..6_usize).prop_map(Step::End),
        any::<bool>().prop_map(Step::CutOff),
        prop::collection::vec(0..6_u64, 0..6).prop_map(Step::Restore),
        (any::<bool>(), any::<Option<bool>>(), any::<bool>()).prop_map(|(a, l, r)| Step::Create(a, l, r)),
        (0..6_usize, 0..4_u64).prop_map(|(who, generation)| Step::Rotate(who, generation)),
        (0..6_usize).prop_map(Step::Update),
        (0..6_usize).prop_map(Step::Touch),
        Just(Step::Purge),
        (1..1500_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..40)
}

/// What a step shows, without what is drawn.
async fn shown<E: RevocationLog + SessionStore + LeaseStore>(
    engine: &E,
    script: &[(Step, NewSession)],
) -> Vec<String> {
    let mut now = NOON;
    let mut sessions: Vec<NewSession> = Vec::new();
    let mut shown = Vec::new();
    for (step, new) in script {
        let pick = |who: &usize| sessions.get(*who).cloned();
        let text = match step {
            Step::Append(n, longer) => {
                let Entry { key, expires_at, .. } = token(*n);
                let expires_at = expires_at.after(HOUR * u32::try_from(*longer).unwrap());
                let done = engine.append(Draft::Token { key, expires_at }).await.unwrap();
                format!("{:?} {}", done.entry, done.revision.seq)
            }
            Step::End(who) => match pick(who) {
                Some(one) => {
                    let draft = Draft::Session { key: one.session_key, expires_at: now };
                    let done = engine.append(draft).await.unwrap();
                    format!("{:?} {}", done.entry, done.revision.seq)
                }
                None => String::new(),
            },
            Step::CutOff(spare) => {
                let key = DenialKey::subject(ISSUER, "alice");
                let except = pick(&0).filter(|_| *spare).map(|one| one.session_key);
                let draft = Draft::Subject { key, except, before: None, now, longest: HOUR };
                let done = engine.append(draft).await.unwrap();
                // A login in the same millisecond would be stamped ahead of the clock. Once its session has ended, SQLite
                // knows that stamp and Postgres does not, which makes no difference to anybody: it is denied already.
                now = now.after(Duration::from_millis(1));
                format!("{:?} {}", done.entry, done.revision.seq)
            }
            Step::Restore(tokens) => {
                // Each once: in which order those of one batch cover each other is an engine's own affair.
                let mut tokens = tokens.clone();
                tokens.sort_unstable();
                tokens.dedup();
                engine.restore(tokens.into_iter().map(token).collect()).await.unwrap();
                String::new()
            }
            Step::Create(alice, limit, recorded) => {
                let limit = limit.map(|evict_oldest| Limit { sessions: 2, evict_oldest });
                let subject = if *alice { "alice" } else { "bob" };
                let subject_key = DenialKey::subject(ISSUER, subject);
                let new = NewSession {
                    subject: subject.to_owned(),
                    subject_key,
                    limit,
                    recorded: *recorded,
                    now,
                    ..new.clone()
                };
                sessions.push(new.clone());
                match engine.create(new).await.unwrap() {
                    CreateOutcome::Created(one) => {
                        format!("{:?} {:?} {}", one.record, one.evicted, one.revision.seq)
                    }
                    CreateOutcome::LimitReached => "limit".to_owned(),
                }
            }
            Step::Rotate(who, generation) => match pick(who) {
                Some(one) => {
                    let done = engine.rotate(one.id, one.session_key, *generation, RULES, now).await.unwrap();
                    assert!(done.decision != Decision::Missing || done.record.is_none());
                    format!("{:?} {:?} {:?} {}", done.decision, done.record, done.denied, done.revision.seq)
                }
                None => String::new(),
            },
            Step::Update(who) => match pick(who) {
                Some(one) => {
                    let attributes = Attributes { scopes: vec!["s".to_owned()], ..Attributes::default() };
                    let done = engine.update(one.id, one.session_key, attributes, HOUR, now).await.unwrap();
                    format!("{:?}", done.map(|done| (done.record, done.entry, done.revision.seq)))
                }
                None => String::new(),
            },
            Step::Touch(who) => {
                if let Some(one) = pick(who) {
                    engine.touch(one.id, Duration::from_secs(300), now).await.unwrap();
                }
                String::new()
            }
            Step::Purge => engine.purge(now, 1000).await.unwrap().to_string(),
            Step::Wait(seconds) => {
                now = now.after(Duration::from_secs(*seconds));
                String::new()
            }
        };
        shown.push(format!("{step:?}: {text}"));
    }
    shown.push(format!("{:?}", whole_log(engine).await));
    for subject in ["alice", "bob"] {
        let key = DenialKey::subject(ISSUER, subject);
        shown.push(format!("{:?}", engine.list(key, None, 100, now).await.unwrap()));
    }
    shown
}

#[test]
fn whatever_is_done_looks_the_same_as_with_sqlite() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cases = ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(cases, |(steps in steps())| {
        runtime.block_on(async {
            let script: Vec<_> = steps.into_iter().map(|step| (step, login("alice", NOON))).collect();
            let dir = tempfile::tempdir().unwrap();
            let sqlite = SqliteStore::open(&dir.path().join("store.db"), crate::store::sqlite::Settings::default());
            let expected = shown(&sqlite.unwrap(), &script).await;
            let found = shown(&open(&SERVER, access(&SERVER, &fresh_namespace())), &script).await;
            prop_assert_eq!(found, expected);
            Ok(())
        })?;
    });
}
