//! What is held and by whom: dead entries, entries without a place, and the time that holders are given.

use super::*;

#[tokio::test]
async fn what_is_dead_and_not_purged_takes_no_room() {
    let bench = Bench::new(10);
    let dead = |n| Entry { expires_at: NOON.before(Duration::from_secs(1)), ..token(n) };
    for n in 0..50 {
        bench.log.push(dead(n));
    }
    bench.log.fill(100..105);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    assert_eq!(bench.denylist.len(), 5);
}

#[tokio::test]
async fn an_epoch_that_stays_young_is_waited_for_once() {
    let bench = Bench::with(10, |settings| settings.settle = Duration::from_millis(300));
    // As under a store's clock that was set back after the epoch began.
    bench.log.state.lock().epoch_age = Duration::ZERO;
    bench.start();
    bench.until("read", |bench| bench.log.state.lock().reads > 0).await;
    assert!(!bench.loaded());
    bench.hands.advance(Duration::from_millis(400));
    bench.until("confirmed", Bench::loaded).await;
}

#[tokio::test]
async fn what_was_written_here_and_did_not_fit_is_given_back_and_lets_nobody_in() {
    let bench = Bench::new(3);
    bench.log.fill(0..3);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    let revoker = Revoker::new(bench.log.clone(), Arc::clone(&bench.denylist));
    let Entry { key, expires_at, .. } = token(7);
    revoker.revoke(Draft::Token { key, expires_at }).await.unwrap();
    assert!(bench.denylist.standing(&bench.clock.now()).full);
    // The log loses it before anybody else has read it, and would have room for the rest.
    bench.log.reincarnate(2, 2);
    bench.until("given back", |bench| bench.log.state.lock().entries.contains(&token(7))).await;
    assert!(bench.denylist.standing(&bench.clock.now()).full, "there is no place for it yet");
    bench.hands.advance(Duration::from_secs(90 * 86_400));
    bench.until("over", |bench| !bench.denylist.standing(&bench.clock.now()).full).await;
}

#[tokio::test]
async fn a_read_sent_while_holders_have_their_time_confirms_nothing_however_late_it_comes() {
    let bench = Bench::with(10, |settings| {
        settings.settle = Duration::from_millis(300);
        settings.answer_within = SOON;
    });
    bench.log.state.lock().epoch_age = Duration::ZERO;
    bench.start();
    bench.until("read", |bench| bench.log.state.lock().reads > 0).await;
    bench.log.state.lock().slow = true;
    bench.until("a slow read is under way", |bench| bench.log.state.lock().waiting).await;
    bench.hands.advance(Duration::from_millis(400));
    let reads = bench.denylist.reads();
    bench.log.state.lock().reads_hang = true;
    // It arrives now, and was sent before.
    bench.log.released.notify_one();
    bench.until("the next read is sent", |bench| bench.denylist.reads() > reads).await;
    assert!(!bench.loaded());
}
