//! Leases of relayed refreshes.

use super::{Engine, NOON, after};
use crate::token::TokenDigest;
use futures_util::future::join_all;

fn key(text: &str) -> TokenDigest {
    TokenDigest::of(text.as_bytes())
}

pub(crate) async fn of_many_who_want_a_lease_one_gets_it(engine: &dyn Engine) {
    for (round, expired) in [(0_u64, None), (20, Some(10_u64))] {
        let now = after(round);
        assert_eq!(engine.lease(key("t"), now).await.unwrap(), (None, now), "after {expired:?}");
        let wanting =
            (0..32_u8).map(|n| engine.put_lease(key("t"), None, vec![b'a' + n], after(round + 10), now));
        let got: Vec<_> = join_all(wanting).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(got.iter().filter(|got| **got).count(), 1);
        let winner = got.iter().position(|got| *got).unwrap();
        let register = vec![b'a' + u8::try_from(winner).unwrap()];
        assert_eq!(engine.lease(key("t"), now).await.unwrap().0, Some(register));
        assert_eq!(engine.lease(key("u"), now).await.unwrap().0, None, "another token's is another");
    }
}

pub(crate) async fn a_register_is_replaced_only_by_who_saw_it_last(engine: &dyn Engine) {
    let seen = Some(b"first".to_vec());
    assert!(engine.put_lease(key("t"), None, b"first".to_vec(), after(10), NOON).await.unwrap());
    assert!(
        !engine.put_lease(key("t"), Some(b"other".to_vec()), b"x".to_vec(), after(10), NOON).await.unwrap()
    );
    let next = (0..16_u8).map(|n| engine.put_lease(key("t"), seen.clone(), vec![n, 0, 255], after(30), NOON));
    let done: Vec<_> = join_all(next).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(done.iter().filter(|done| **done).count(), 1);
    let found = engine.lease(key("t"), after(20)).await.unwrap().0.unwrap();
    assert_eq!(found.get(1..), Some(&[0, 255][..]), "any bytes, and for as long as it was written for");
    assert!(
        !engine.put_lease(key("u"), seen, b"x".to_vec(), after(10), NOON).await.unwrap(),
        "none was there"
    );
    assert_eq!(engine.lease(key("u"), NOON).await.unwrap().0, None);
}

pub(crate) async fn an_expired_register_is_gone_and_purged(engine: &dyn Engine) {
    for (name, ends) in [("a", 5), ("b", 10), ("c", 15)] {
        assert!(engine.put_lease(key(name), None, b"x".to_vec(), after(ends), NOON).await.unwrap());
    }
    assert_eq!(engine.lease(key("b"), after(10)).await.unwrap().0, None);
    assert_eq!(engine.purge_leases(after(10), 1).await.unwrap(), 1);
    assert_eq!(engine.purge_leases(after(10), 5).await.unwrap(), 1);
    assert_eq!(engine.lease(key("b"), NOON).await.unwrap().0, None, "whatever the clock says then");
    assert!(engine.lease(key("c"), after(14)).await.unwrap().0.is_some());
}
