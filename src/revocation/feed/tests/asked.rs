//! What callers ask of the feed.

use super::*;

#[tokio::test]
async fn catching_up_waits_for_the_revision_and_gives_up_in_time() {
    let bench = Bench::new(10);
    bench.start();
    let one = bench.log.push(token(1));
    assert_eq!(bench.feed.catch_up(one, SOON).await, Ok(()));
    assert!(bench.denylist.holds(&token(1)));
    let future = Revision { epoch: 1, seq: 99 };
    assert_eq!(bench.feed.catch_up(future, Duration::from_millis(20)).await, Err(NotFresh));
    assert_eq!(bench.feed.resyncs(ResyncCause::ForeignRevision), 0);
}

#[tokio::test]
async fn a_foreign_epoch_costs_one_resync_and_then_nothing() {
    let bench = Bench::new(10);
    bench.start();
    let foreign = Revision { epoch: 77, seq: 5 };
    assert_eq!(bench.feed.catch_up(foreign, SOON).await, Ok(()));
    assert_eq!(bench.feed.resyncs(ResyncCause::ForeignRevision), 1);
    assert_eq!(bench.feed.catch_up(foreign, SOON).await, Ok(()));
    assert_eq!(bench.feed.resyncs(ResyncCause::ForeignRevision), 1);
}

#[tokio::test]
async fn a_storm_of_foreign_epochs_shares_resyncs_and_they_are_spaced() {
    let bench = Bench::with(10, |settings| settings.resync_gap = Duration::from_secs(1));
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    let storm = (100..200).map(|epoch| bench.feed.catch_up(Revision { epoch, seq: 1 }, SOON));
    assert!(futures_util::future::join_all(storm).await.iter().all(Result::is_ok));
    assert!(bench.feed.resyncs(ResyncCause::ForeignRevision) <= 2);
    let whole_reads = bench.log.state.lock().whole_reads;
    let another = Revision { epoch: 300, seq: 1 };
    assert_eq!(bench.feed.catch_up(another, Duration::from_millis(30)).await, Err(NotFresh));
    assert_eq!(bench.log.state.lock().whole_reads, whole_reads, "the gap has not passed");
    assert!(bench.feed.answered.lock().epochs.len() <= Answered::MOST);
}

#[tokio::test]
async fn a_foreign_epoch_is_not_answered_while_the_log_fails() {
    let bench = Bench::new(10);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    bench.log.state.lock().reads_fail = true;
    let foreign = Revision { epoch: 77, seq: 5 };
    assert_eq!(bench.feed.catch_up(foreign, Duration::from_millis(50)).await, Err(NotFresh));
}

#[tokio::test]
async fn reaching_the_head_takes_a_read_sent_after_the_call() {
    let bench = Bench::with(10, |settings| settings.confirm_every = SOON * 10);
    bench.start();
    bench.until("loaded", Bench::loaded).await;
    let reads = bench.log.state.lock().reads;
    assert_eq!(bench.feed.reach_head(SOON).await, Ok(()));
    assert!(bench.log.state.lock().reads > reads);
    bench.log.state.lock().reads_fail = true;
    assert_eq!(bench.feed.reach_head(Duration::from_millis(20)).await, Err(NotFresh));
}

#[tokio::test]
async fn pauses_repeat_themselves_under_one_seed_and_differ_under_another() {
    let drawn = |seed| {
        let bench = Bench::with(10, |settings| settings.jitter_seed = seed);
        [(); 4].map(|()| bench.feed.draw())
    };
    assert_eq!(drawn(Some(7)), drawn(Some(7)));
    assert_ne!(drawn(Some(7)), drawn(Some(8)));
    assert_ne!(drawn(None), drawn(None));
}
