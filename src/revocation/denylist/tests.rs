use super::*;
use crate::clock::Clock;

const NOON: Timestamp = Timestamp::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const ISSUER: &str = "https://auth.example.com";

fn denylist(max_entries: usize) -> Denylist {
    Denylist::new(Settings { max_entries, slack: Duration::ZERO })
}

fn marks() -> Marks {
    Marks {
        issuer: DenialKey::issuer(ISSUER),
        subject: DenialKey::subject(ISSUER, "alice"),
        token: Some(DenialKey::token_id(ISSUER, "jti")),
        session: Some(DenialKey::session(ISSUER, "sid")),
        logged_in_at: Some(NOON),
        claims_version: Some(3),
    }
}

fn entry(kind: EntryKind, key: DenialKey) -> Entry {
    Entry { kind, key, expires_at: NOON.after(HOUR) }
}

fn token(n: u32) -> Entry {
    entry(EntryKind::Token, DenialKey::token_id(ISSUER, &n.to_string()))
}

fn subject_before(cutoff: Timestamp, except: Option<DenialKey>) -> Entry {
    entry(EntryKind::SubjectBefore { cutoff, except }, marks().subject)
}

fn confirm(denylist: &Denylist, elapsed: Duration, seq: u64) {
    let reading = denylist.begin_read(elapsed);
    denylist.confirm(reading, Revision { epoch: 1, seq });
}

#[test]
fn an_empty_denylist_denies_nothing() {
    assert_eq!(denylist(10).judge(&marks(), NOON), None);
}

#[test]
fn each_kind_of_entry_denies_what_it_names() {
    let m = marks();
    for (entry, denial) in [
        (entry(EntryKind::Token, m.token.unwrap()), Denial::Token),
        (entry(EntryKind::Session, m.session.unwrap()), Denial::Session),
        (subject_before(NOON, None), Denial::CutOff),
        (entry(EntryKind::IssuerBefore { cutoff: NOON }, m.issuer), Denial::CutOff),
        (entry(EntryKind::ClaimsBefore { version: 4 }, m.session.unwrap()), Denial::StaleClaims),
    ] {
        let denylist = denylist(10);
        denylist.insert(&entry).unwrap();
        assert_eq!(denylist.judge(&m, NOON), Some(denial));
        assert!(denylist.holds(&entry));
        assert_eq!(denylist.chunks().flatten().collect::<Vec<_>>(), [entry]);
    }
}

#[test]
fn a_revoked_session_asks_for_more_than_a_revoked_token() {
    let denylist = denylist(10);
    let m = marks();
    denylist.insert(&entry(EntryKind::Token, m.token.unwrap())).unwrap();
    denylist.insert(&entry(EntryKind::ClaimsBefore { version: 4 }, m.session.unwrap())).unwrap();
    assert_eq!(denylist.judge(&m, NOON).map(Denial::action), Some(Action::Refresh));
    denylist.insert(&entry(EntryKind::Session, m.session.unwrap())).unwrap();
    assert_eq!(denylist.judge(&m, NOON).map(Denial::action), Some(Action::Reauthenticate));
}

#[test]
fn a_cut_off_hits_the_login_at_its_instant_and_none_after() {
    let denylist = denylist(10);
    denylist.insert(&subject_before(NOON, None)).unwrap();
    assert_eq!(denylist.judge(&marks(), NOON), Some(Denial::CutOff));
    let later = Marks { logged_in_at: Some(NOON.after(Duration::from_millis(1))), ..marks() };
    assert_eq!(denylist.judge(&later, NOON), None);
}

#[test]
fn a_credential_that_hides_its_login_is_hit_by_every_cut_off() {
    let denylist = denylist(10);
    denylist.insert(&subject_before(Timestamp::from_secs(1), None)).unwrap();
    assert_eq!(denylist.judge(&marks(), NOON), None);
    let hidden = Marks { logged_in_at: None, ..marks() };
    assert_eq!(denylist.judge(&hidden, NOON), Some(Denial::CutOff));
}

#[test]
fn an_exception_spares_that_session_alone() {
    let denylist = denylist(10);
    denylist.insert(&subject_before(NOON, marks().session)).unwrap();
    assert_eq!(denylist.judge(&marks(), NOON), None);
    let other = Marks { session: Some(DenialKey::session(ISSUER, "other")), ..marks() };
    assert_eq!(denylist.judge(&other, NOON), Some(Denial::CutOff));
    let none = Marks { session: None, ..marks() };
    assert_eq!(denylist.judge(&none, NOON), Some(Denial::CutOff), "no session is no exception");
}

#[test]
fn an_exception_does_not_shelter_from_another_cut_off() {
    let denylist = denylist(10);
    denylist.insert(&subject_before(NOON, None)).unwrap();
    denylist.insert(&subject_before(NOON.after(HOUR), marks().session)).unwrap();
    assert_eq!(denylist.judge(&marks(), NOON), Some(Denial::CutOff));
}

#[test]
fn a_longer_expiry_wins_and_a_shorter_one_takes_nothing_back() {
    let denylist = denylist(10);
    let long = token(1);
    denylist.insert(&long).unwrap();
    denylist.insert(&Entry { expires_at: NOON, ..long }).unwrap();
    assert!(denylist.holds(&long));
    assert_eq!(denylist.len(), 1);
}

#[test]
fn current_claims_are_not_stale() {
    let denylist = denylist(10);
    let session = marks().session.unwrap();
    denylist.insert(&entry(EntryKind::ClaimsBefore { version: 3 }, session)).unwrap();
    assert_eq!(denylist.judge(&marks(), NOON), None);
    let unversioned = Marks { claims_version: None, ..marks() };
    assert_eq!(denylist.judge(&unversioned, NOON), None);
}

#[test]
fn purging_forgets_the_dead_and_only_them() {
    let (clock, hands) = Clock::manual(NOON);
    let denylist = denylist(10);
    denylist.insert(&token(1)).unwrap();
    denylist.insert(&Entry { expires_at: NOON.after(HOUR * 3), ..token(2) }).unwrap();
    hands.advance(HOUR * 2);
    assert_eq!(denylist.purge_all(clock.now()), 1);
    assert!(denylist.holds(&token(2)) && !denylist.holds(&token(1)));
    assert_eq!(denylist.len(), 1);
}

#[test]
fn a_clock_stepped_forward_purges_nothing_early() {
    let (clock, hands) = Clock::manual(NOON);
    let denylist = denylist(10);
    denylist.insert(&token(1)).unwrap();
    hands.step_wall_to(NOON.after(HOUR * 9));
    assert_eq!(denylist.purge_all(clock.now()), 0);
}

#[test]
fn purging_bit_by_bit_reaches_every_shard() {
    let (clock, hands) = Clock::manual(NOON);
    let denylist = denylist(1000);
    (0..1000).for_each(|n| denylist.insert(&token(n)).unwrap());
    hands.advance(HOUR * 2);
    let gone: usize = (0..16).map(|_| denylist.purge(clock.now())).sum();
    assert_eq!((gone, denylist.len()), (1000, 0));
}

#[test]
fn a_full_denylist_says_so_and_evicts_nothing() {
    let (clock, _) = Clock::manual(NOON);
    let denylist = denylist(2);
    confirm(&denylist, Duration::ZERO, 1);
    denylist.insert(&token(1)).unwrap();
    denylist.insert(&token(2)).unwrap();
    assert!(!denylist.standing(&clock.now()).full);
    assert_eq!(denylist.insert(&token(3)), Err(Full));
    assert!(denylist.standing(&clock.now()).full);
    assert!(denylist.holds(&token(1)) && denylist.holds(&token(2)));
    denylist.insert(&Entry { expires_at: NOON.after(HOUR * 2), ..token(2) }).expect("it is held already");
}

#[test]
fn full_stays_until_a_read_sent_after_the_overflow_is_confirmed() {
    let (clock, _) = Clock::manual(NOON);
    let denylist = denylist(1);
    denylist.insert(&token(1)).unwrap();
    let sent_before = denylist.begin_read(Duration::ZERO);
    denylist.insert(&token(2)).unwrap_err();
    denylist.confirm(sent_before, Revision { epoch: 1, seq: 1 });
    assert!(denylist.standing(&clock.now()).full, "that read may not have seen the entry");
    confirm(&denylist, Duration::ZERO, 2);
    assert!(!denylist.standing(&clock.now()).full);
}

#[test]
fn staleness_counts_from_when_the_read_was_sent() {
    let (clock, hands) = Clock::manual(NOON);
    let denylist = denylist(1);
    assert!(!denylist.standing(&clock.now()).loaded);
    assert_eq!(denylist.standing(&clock.now()).staleness, Duration::MAX);
    let reading = denylist.begin_read(clock.now().elapsed);
    hands.advance(Duration::from_secs(3));
    denylist.confirm(reading, Revision { epoch: 1, seq: 7 });
    let standing = denylist.standing(&clock.now());
    assert!(standing.loaded);
    assert_eq!(standing.staleness, Duration::from_secs(3));
    assert_eq!(standing.revision, Revision { epoch: 1, seq: 7 });
}

#[test]
fn what_was_merely_reached_is_no_fresher() {
    let (clock, hands) = Clock::manual(NOON);
    let denylist = denylist(1);
    denylist.reached(Revision { epoch: 1, seq: 1 });
    assert!(!denylist.standing(&clock.now()).loaded);
    confirm(&denylist, Duration::ZERO, 1);
    hands.advance(HOUR);
    denylist.reached(Revision { epoch: 1, seq: 2 });
    assert_eq!(denylist.standing(&clock.now()).staleness, HOUR);
}

#[tokio::test]
async fn waiting_ends_when_the_revision_is_held_and_not_before() {
    let denylist = denylist(1);
    let two = Revision { epoch: 1, seq: 2 };
    assert!(!denylist.wait_for(two, Duration::from_millis(1)).await);
    confirm(&denylist, Duration::ZERO, 1);
    let (waited, ()) =
        tokio::join!(denylist.wait_for(two, HOUR), async { confirm(&denylist, Duration::ZERO, 2) });
    assert!(waited);
    assert!(!denylist.wait_for(Revision { epoch: 2, seq: 1 }, Duration::from_millis(1)).await);
}

#[test]
fn a_million_denials_take_at_most_fifty_bytes_each() {
    let denylist = denylist(1_000_000);
    for n in 0..1_000_000_u128 {
        // Spread like the digests they stand for, without a million digests.
        let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        let key = DenialKey::from_bytes(mixed.to_be_bytes());
        let kind = if n % 2 == 0 { EntryKind::Token } else { EntryKind::Session };
        denylist.insert(&entry(kind, key)).unwrap();
    }
    let each = denylist.memory_bytes() / denylist.len();
    assert!(each <= 50, "{each} bytes");
    assert_eq!(denylist.insert(&token(1)), Err(Full));
}
