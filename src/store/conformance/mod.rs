//! What every engine has to do, written once and run over each.

mod leases;
mod logs;
mod races;
mod sessions;

pub(crate) use leases::*;
pub(crate) use logs::*;
pub(crate) use races::races;
pub(crate) use sessions::*;

use crate::clock::Timestamp;
use crate::revocation::{DenialKey, Draft, Entry, EntryKind, RevocationLog};
use crate::session::LeaseStore;
use crate::session::record::{Attributes, Device};
use crate::session::rotation::{Decision, Rules};
use crate::session::store::{CreateOutcome, Created, Limit, NewSession, SessionStore};
use crate::token::{Revision, SessionId};
use std::time::Duration;

/// A store under test.
pub(crate) trait Engine: RevocationLog + SessionStore + LeaseStore {}
impl<T: RevocationLog + SessionStore + LeaseStore> Engine for T {}

pub(crate) const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
const ISSUER: &str = "https://auth.example.com";
const HOUR: Duration = Duration::from_secs(3600);
const RULES: Rules = Rules { grace: Duration::from_secs(10) };

/// Makes one test of each case over the engine that the expression opens, with whatever has to outlive it.
macro_rules! conformance {
    ($open:expr) => {
        $crate::store::conformance::cases!(
            $open,
            identical_entries_keep_their_revision,
            a_longer_expiry_is_told_again,
            pages_follow_each_other_without_gaps,
            a_foreign_or_impossible_cursor_starts_over,
            purged_entries_leave_no_reader_behind_the_head,
            what_is_given_back_is_there_once_and_takes_effect,
            a_change_wakes_whoever_waits,
            sixty_four_refreshes_at_once_have_one_successor,
            a_used_generation_ends_the_session_in_the_same_write,
            no_refresh_survives_a_revocation_beside_it,
            a_fast_forward_is_written,
            a_cut_off_hits_every_login_before_and_none_after,
            a_password_change_spares_the_session_that_did_it,
            an_issuer_s_cut_off_ends_its_sessions,
            a_session_s_entry_lives_to_its_absolute_end,
            the_limit_holds_under_concurrency_by_evicting,
            the_limit_holds_under_concurrency_by_refusing,
            the_limit_counts_one_policy_and_the_living,
            an_unrecorded_login_is_stamped_and_not_kept,
            changed_attributes_come_with_an_entry,
            no_attributes_change_on_a_session_that_is_over,
            activity_is_written_at_most_every_update_age,
            a_subject_s_sessions_are_listed_newest_first_in_pages,
            purging_takes_what_is_over_and_no_more_than_asked,
            of_many_who_want_a_lease_one_gets_it,
            a_register_is_replaced_only_by_who_saw_it_last,
            an_expired_register_is_gone_and_purged,
        );
    };
}

macro_rules! cases {
    ($open:expr, $($case:ident,)+) => {
        $(
            #[tokio::test]
            async fn $case() {
                let (engine, _kept) = $open;
                $crate::store::conformance::$case(&engine).await;
            }
        )+
    };
}

pub(crate) use {cases, conformance};

pub(crate) fn token(n: u64) -> Entry {
    let key = DenialKey::token_id(ISSUER, &n.to_string());
    Entry { kind: EntryKind::Token, key, expires_at: NOON.after(HOUR) }
}

pub(crate) fn token_draft(n: u64) -> Draft {
    let Entry { key, expires_at, .. } = token(n);
    Draft::Token { key, expires_at }
}

fn after(seconds: u64) -> Timestamp {
    NOON.after(Duration::from_secs(seconds))
}

fn subject_key(subject: &str) -> DenialKey {
    DenialKey::subject(ISSUER, subject)
}

fn session_key(id: SessionId) -> DenialKey {
    DenialKey::session(ISSUER, &id.to_string())
}

pub(crate) fn login(subject: &str, now: Timestamp) -> NewSession {
    let id = SessionId::random().unwrap();
    NewSession {
        id,
        issuer: ISSUER.into(),
        subject: subject.to_owned(),
        subject_key: subject_key(subject),
        issuer_key: DenialKey::issuer(ISSUER),
        session_key: session_key(id),
        policy: "medium".to_owned(),
        client_id: "web".to_owned(),
        device: Device { name: "Firefox on Linux".to_owned(), ..Device::default() },
        attributes: Attributes { roles: vec!["buyer".to_owned()], ..Attributes::default() },
        now,
        idle: HOUR,
        absolute: HOUR * 4,
        generation: 1,
        limit: None,
        recorded: true,
    }
}

pub(crate) async fn open_session(engine: &dyn Engine, new: NewSession) -> Created {
    match engine.create(new).await.unwrap() {
        CreateOutcome::Created(created) => *created,
        CreateOutcome::LimitReached => panic!("the limit was reached"),
    }
}

async fn alive(engine: &dyn Engine, id: SessionId) -> bool {
    engine.find(id).await.unwrap().0.is_some()
}

async fn rotate(engine: &dyn Engine, id: SessionId, presented: u64, now: Timestamp) -> Decision {
    engine.rotate(id, session_key(id), presented, RULES, now).await.unwrap().decision
}

pub(crate) async fn whole_log(engine: &dyn Engine) -> Vec<Entry> {
    let mut cursor = None;
    let mut entries = Vec::new();
    loop {
        let page = engine.read_after(cursor, 7).await.unwrap();
        entries.extend(page.entries);
        cursor = Some(page.cursor);
        if page.cursor == page.head {
            return entries;
        }
    }
}
