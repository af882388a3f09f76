//! The half of the measurements that runs under the product's own allocator: a no-op on the product's own server, with
//! the same layers around it; single verifications without a server; and what a denial takes in memory. Run by the
//! `summary` bench.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measurement that can't go on fails"
)]

mod cold;
mod noop;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    match std::env::args().nth(1).as_deref() {
        Some("noop") => noop::serve(),
        Some("cold") => cold::measure(),
        Some("denial") => denial(),
        // `cargo test` builds benches and runs them without words: nothing to measure then.
        _ => {}
    }
}

/// Bytes a denial takes, at a million of them.
fn denial() {
    use countersign::clock::Timestamp;
    use countersign::revocation::{DenialKey, Denylist, Entry, EntryKind, denylist::Settings};
    const COUNT: u32 = 1_000_000;
    let denylist = Denylist::new(Settings { max_entries: COUNT as usize + 1, ..Settings::default() });
    for number in 0..COUNT {
        let key = DenialKey::session("https://auth.example.com", &number.to_string());
        let entry = Entry { kind: EntryKind::Session, key, expires_at: Timestamp::from_secs(1_900_000_000) };
        denylist.insert(&entry).unwrap();
    }
    println!("denial {}", denylist.memory_bytes() as f64 / f64::from(COUNT));
}
