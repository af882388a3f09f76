//! What happens in a run, drawn from the seed before it begins. Every event stands by itself, so that a shorter history
//! of the same failure is found by leaving events out.

use crate::chance::Chance;
use crate::stories::Story;

/// People who log in; several share a subject.
pub(crate) const SLOTS: usize = 6;
pub(crate) const SUBJECTS: usize = 3;

#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) sidecars: usize,
    /// Which sidecars have a small denylist.
    pub(crate) small: Vec<bool>,
    /// Virtual milliseconds until all is quiet.
    pub(crate) length: u64,
    pub(crate) events: Vec<Event>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub(crate) at: u64,
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Call { sidecar: usize, slot: usize, call: Wish },
    Fault { fault: Fault, lasts: u64 },
}

/// What somebody wants of a sidecar. `back` counts from the latest token they were given.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish {
    Login,
    Verify { back: usize, mode: Mode },
    Refresh { back: u64 },
    RevokeToken { back: usize },
    RevokeSession,
    RevokeSubject { spare: bool },
    RevokeIssuer,
    Update,
    Purge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    MinimizeLatency,
    AtLeastAsFresh,
    FullyConsistent,
    /// Of a token without a session record.
    ToTheHead,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    Partition {
        sidecar: usize,
    },
    Flaky {
        sidecar: usize,
        per_cent: u64,
    },
    /// SIGSTOP, then SIGCONT.
    Stopped {
        sidecar: usize,
    },
    /// SIGKILL, then started again.
    Killed {
        sidecar: usize,
    },
    /// The wall clock is wrong by an hour for a while.
    Step {
        sidecar: usize,
        forward: bool,
    },
    StoreDown,
    Failover {
        writes: usize,
        clock: u64,
    },
    OldCopy {
        writes: usize,
        clock: u64,
    },
    Flush {
        clock: u64,
    },
}

impl Schedule {
    pub(crate) fn draw(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let sidecars = usize::try_from(chance.between(2, 5)).unwrap();
        let length =
            if chance.per_cent(10) { chance.between(120, 300) } else { chance.between(20, 70) } * 1000;
        let small = (0..sidecars).map(|_| chance.per_cent(8)).collect();
        // Half of the runs lose nothing, so that they are held to the whole contract.
        let (faults, losses) = (chance.per_cent(75), chance.per_cent(50));
        let mut events = Vec::new();
        for _ in 0..chance.between(2, 3 + length / 15_000) {
            let (at, slot) = (chance.below(length * 3 / 4), pick(&mut chance, SLOTS));
            let mut story = Story { chance: &mut chance, sidecars, slot, events: Vec::new() };
            story.draw(at, losses);
            events.append(&mut story.events);
        }
        for _ in 0..chance.below(3 + length / 2000) {
            let (at, slot) = (chance.below(length), pick(&mut chance, SLOTS));
            let (sidecar, call) = (pick(&mut chance, sidecars), wish(&mut chance));
            events.push(Event { at, what: What::Call { sidecar, slot, call } });
        }
        if faults {
            for _ in 0..chance.between(1, 2 + length / 30_000) {
                let (fault, lasts) = trouble(&mut chance, sidecars, losses);
                events.push(Event { at: chance.below(length), what: What::Fault { fault, lasts } });
            }
        }
        events.retain(|event| event.at <= length);
        events.sort_by_key(|event| event.at);
        Self { seed, sidecars, small, length, events }
    }
}

pub(crate) fn pick(chance: &mut Chance, of: usize) -> usize {
    usize::try_from(chance.below(of as u64)).unwrap()
}

fn wish(chance: &mut Chance) -> Wish {
    let back = pick(chance, 3);
    match chance.below(100) {
        0..15 => Wish::Login,
        15..40 => Wish::Verify { back, mode: Mode::MinimizeLatency },
        40..44 => Wish::Verify { back, mode: Mode::AtLeastAsFresh },
        44..48 => Wish::Verify { back, mode: Mode::FullyConsistent },
        48..52 => Wish::Verify { back, mode: Mode::ToTheHead },
        52..75 => Wish::Refresh { back: 0 },
        75..79 => Wish::Refresh { back: 1 },
        79..81 => Wish::Refresh { back: 2 },
        81..85 => Wish::RevokeToken { back },
        85..88 => Wish::RevokeSession,
        88..90 => Wish::RevokeSubject { spare: chance.per_cent(50) },
        90..96 => Wish::Update,
        _ => Wish::Purge,
    }
}

fn trouble(chance: &mut Chance, sidecars: usize, losses: bool) -> (Fault, u64) {
    let sidecar = pick(chance, sidecars);
    let writes = pick(chance, 6) + 1;
    let clock = chance.below(4000);
    let lasts = match chance.below(3) {
        0 => chance.below(2000),
        1 => chance.below(12_000),
        _ => chance.below(40_000),
    };
    let fault = match chance.below(if losses { 100 } else { 65 }) {
        0..15 => Fault::Partition { sidecar },
        15..27 => Fault::Flaky { sidecar, per_cent: chance.between(5, 40) },
        27..38 => Fault::Stopped { sidecar },
        38..48 => Fault::Killed { sidecar },
        48..58 => Fault::Step { sidecar, forward: chance.per_cent(50) },
        58..65 => Fault::StoreDown,
        65..88 => Fault::Failover { writes, clock },
        88..95 => Fault::OldCopy { writes: writes * 4, clock },
        _ => Fault::Flush { clock },
    };
    (fault, lasts)
}
