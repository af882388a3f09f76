//! Whatever is done in whatever order: what can be observed is what SQLite shows.

use super::*;
use crate::session::store::Limit;
use crate::store::sqlite::{Settings as SqliteSettings, SqliteStore};
use proptest::prelude::*;
use std::collections::BTreeMap;

const RULES: Rules = Rules { grace: Duration::from_secs(10) };
const LONGEST: Duration = Duration::from_secs(5 * 3600);
const SUBJECTS: [&str; 2] = ["alice", "bob"];

#[derive(Clone, Debug)]
enum Step {
    Token(u64),
    Session(usize),
    Subject { subject: usize, except: Option<usize>, before: Option<u64> },
    Issuer,
    Restore(u64, usize),
    Create { subject: usize, limit: Option<(u32, bool)>, recorded: bool },
    Rotate { session: usize, presented: u64 },
    Update(usize),
    Touch(usize),
    Purge,
}

fn step() -> impl Strategy<Value = Step> {
    let session = || 0..6_usize;
    prop_oneof![
        1 => (0..4_u64).prop_map(Step::Token),
        1 => session().prop_map(Step::Session),
        1 => (0..2_usize, prop::option::of(session()), prop::option::of(0..4000_u64))
            .prop_map(|(subject, except, before)| Step::Subject { subject, except, before }),
        1 => Just(Step::Issuer),
        1 => (0..4_u64, session()).prop_map(|(token, session)| Step::Restore(token, session)),
        5 => (0..2_usize, prop::option::of((1..4_u32, any::<bool>())), prop::bool::weighted(0.9))
            .prop_map(|(subject, limit, recorded)| Step::Create { subject, limit, recorded }),
        6 => (session(), 0..5_u64).prop_map(|(session, presented)| Step::Rotate { session, presented }),
        2 => session().prop_map(Step::Update),
        2 => session().prop_map(Step::Touch),
        1 => Just(Step::Purge),
    ]
}

/// Does one step on one store and tells what came of it. `sessions` are the ids drawn so far, the same for both.
async fn apply(
    store: &dyn crate::store::conformance::Engine,
    step: &Step,
    new: &NewSession,
    sessions: &[NewSession],
) -> String {
    let now = new.now;
    let the = |session: &usize| sessions.get(*session).unwrap_or(new);
    match step {
        Step::Token(n) => format!("{:?}", store.append(token_draft(*n)).await.unwrap().entry),
        Step::Session(session) => {
            let draft = Draft::Session { key: the(session).session_key, expires_at: now.after(LONGEST) };
            format!("{:?}", store.append(draft).await.unwrap().entry)
        }
        Step::Subject { subject, except, before } => {
            let draft = Draft::Subject {
                key: login(SUBJECTS[*subject], now).subject_key,
                except: except.as_ref().map(|except| the(except).session_key),
                before: before.map(|ago| now.before(Duration::from_secs(ago))),
                now,
                longest: LONGEST,
            };
            // An older cut-off may be answered with the later one that is there.
            let entry = store.append(draft).await.unwrap().entry;
            if before.is_some() { String::new() } else { format!("{entry:?}") }
        }
        Step::Issuer => {
            let draft = Draft::Issuer { key: new.issuer_key, before: None, now, longest: LONGEST };
            format!("{:?}", store.append(draft).await.unwrap().entry)
        }
        Step::Restore(n, session) => {
            let (key, expires_at) = (the(session).session_key, now.after(LONGEST));
            let kind = EntryKind::ClaimsBefore { version: *n };
            store.restore(vec![token(*n), Entry { kind, key, expires_at }]).await.unwrap();
            String::new()
        }
        Step::Create { .. } => match store.create(new.clone()).await.unwrap() {
            CreateOutcome::Created(created) => format!("{:?} {:?}", created.record, created.evicted),
            CreateOutcome::LimitReached => "full".to_owned(),
        },
        Step::Rotate { session, presented } => {
            let (id, key) = (the(session).id, the(session).session_key);
            let Rotated { decision, record, denied, .. } =
                store.rotate(id, key, *presented, RULES, now).await.unwrap();
            format!("{decision:?} {record:?} {denied:?}")
        }
        Step::Update(session) => {
            let (id, key) = (the(session).id, the(session).session_key);
            let attributes = Attributes { roles: vec![now.as_millis().to_string()], ..Attributes::default() };
            let updated = store.update(id, key, attributes, LONGEST, now).await.unwrap();
            format!("{:?}", updated.map(|updated| (updated.record, updated.entry)))
        }
        Step::Touch(session) => {
            store.touch(the(session).id, Duration::from_secs(60), now).await.unwrap();
            String::new()
        }
        Step::Purge => {
            while store.purge(now, 3).await.unwrap() > 0 {}
            String::new()
        }
    }
}

/// What a log held of each kind and key: the latest instant or version, and the latest end.
type United = BTreeMap<(u8, [u8; 16], Option<[u8; 16]>), (u64, Timestamp)>;

/// All that is live: sessions as found and listed, and the log with what covers each other united.
///
/// `united` is what the last observation found. Redis keeps one entry for a kind and key, with the greater of both
/// versions until the later of both ends; SQLite keeps two, and a purge may take the one of the greater version first.
/// Both are right, so a greater version counts here for as long as any entry of its key is left.
async fn observe(
    store: &dyn crate::store::conformance::Engine,
    now: Timestamp,
    sessions: &[NewSession],
    united: &mut United,
) -> String {
    let mut seen = String::new();
    for session in sessions {
        let found = store.find(session.id).await.unwrap().0;
        seen.push_str(&format!("{:?}\n", found.filter(|record| record.ends_at() > now)));
    }
    for subject in SUBJECTS {
        let key = login(subject, now).subject_key;
        seen.push_str(&format!("{:?}\n", store.list(key, None, 100, now).await.unwrap()));
        let mut paged = Vec::new();
        while let Ok(page) =
            store.list(key, paged.last().map(|r: &SessionRecord| (r.created_at, r.id)), 1, now).await
        {
            if page.is_empty() {
                break;
            }
            paged.extend(page);
        }
        seen.push_str(&format!("{paged:?}\n"));
    }
    let mut log = United::new();
    for entry in whole_log(store).await {
        let (kind, except, at) = match entry.kind {
            EntryKind::Token => (1, None, 0),
            EntryKind::Session => (2, None, 0),
            EntryKind::SubjectBefore { cutoff, except } => (3, except, cutoff.as_millis()),
            EntryKind::IssuerBefore { cutoff } => (4, None, cutoff.as_millis()),
            EntryKind::ClaimsBefore { version } => (5, None, version),
        };
        let key = (kind, entry.key.to_bytes(), except.map(DenialKey::to_bytes));
        let before = united.get(&key).map_or(0, |(at, _)| *at);
        let most = log.entry(key).or_default();
        *most = (most.0.max(at).max(before), most.1.max(entry.expires_at));
    }
    *united = log;
    seen + &format!("{united:?}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn redis_shows_what_sqlite_shows(steps in prop::collection::vec((step(), 0..1500_u64), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::TempDir::new().unwrap();
            let sqlite = SqliteStore::open(&dir.path().join("store.db"), SqliteSettings::default()).unwrap();
            let redis = open(&SERVER, &settings());
            let (mut now, mut sessions) = (NOON, Vec::new());
            let (mut in_redis, mut in_sqlite) = (United::new(), United::new());
            for (number, (step, pause)) in steps.iter().enumerate() {
                now = now.after(Duration::from_secs(*pause));
                let mut new = login("alice", now);
                if let Step::Create { subject, limit, recorded } = step {
                    let limit = limit.map(|(sessions, evict_oldest)| Limit { sessions, evict_oldest });
                    new = NewSession { limit, recorded: *recorded, ..login(SUBJECTS[*subject], now) };
                }
                let here = apply(&redis, step, &new, &sessions).await;
                let there = apply(&sqlite, step, &new, &sessions).await;
                assert_eq!(here, there, "step {number}: {step:?}");
                if matches!(step, Step::Create { .. }) && sessions.len() < 6 {
                    sessions.push(new);
                }
                let here = observe(&redis, now, &sessions, &mut in_redis).await;
                let there = observe(&sqlite, now, &sessions, &mut in_sqlite).await;
                assert_eq!(here, there, "after step {number}: {step:?}");
            }
        });
    }
}
