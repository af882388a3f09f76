//! What random calls alone would seldom meet: people who stay, revocations that are raced and looked at from everywhere,
//! stores that fail just after they said yes, clocks that are wrong when tokens end.

use crate::chance::Chance;
use crate::schedule::{Event, Fault, Mode, What, Wish, pick};

pub(crate) struct Story<'a> {
    pub(crate) chance: &'a mut Chance,
    pub(crate) sidecars: usize,
    pub(crate) slot: usize,
    pub(crate) events: Vec<Event>,
}

impl Story<'_> {
    /// One that begins at `at`.
    pub(crate) fn draw(&mut self, at: u64, losses: bool) {
        self.anywhere(at, Wish::Login);
        let at = at + self.chance.between(100, 3000);
        match self.chance.below(if losses { 10 } else { 7 }) {
            0..3 => self.customer(at),
            3..6 => self.revocation(at),
            6 => self.wrong_clock(at),
            _ => self.setback(at),
        }
    }

    fn customer(&mut self, mut at: u64) {
        for _ in 0..self.chance.between(2, 7) {
            at += self.chance.between(5_000, 18_000);
            self.anywhere(at, Wish::Refresh { back: 0 });
            match self.chance.below(8) {
                0..2 => self.soon(at, 20, Wish::Refresh { back: 0 }),
                2..4 => self.soon(at, 9_000, Wish::Refresh { back: 1 }),
                4 => {
                    // The thief's turn, and then who is still in?
                    at += self.chance.between(10_500, 16_000);
                    self.anywhere(at, Wish::Refresh { back: 1 });
                    self.soon(at, 3_000, Wish::Refresh { back: 0 });
                    self.look_around(at);
                }
                _ => self.soon(at, 5_000, Wish::Verify { back: 0, mode: Mode::MinimizeLatency }),
            }
        }
    }

    fn revocation(&mut self, at: u64) {
        self.take_back(at);
        if self.chance.per_cent(50) {
            let beside = (at + self.chance.below(20)).saturating_sub(8);
            self.anywhere(beside, Wish::Refresh { back: 0 });
        }
        self.look_around(at);
    }

    /// The store says yes and goes back in time, while somebody starts anew or is cut off.
    fn setback(&mut self, at: u64) {
        self.take_back(at);
        let (writes, clock) = (pick(self.chance, 3) + 1, self.chance.below(4000));
        let fault = if self.chance.per_cent(85) {
            Fault::Failover { writes, clock }
        } else {
            Fault::OldCopy { writes: writes * 5, clock }
        };
        let lost =
            at + if self.chance.per_cent(50) { self.chance.below(60) } else { self.chance.below(6000) };
        self.fault(lost, fault, 0);
        for _ in 0..self.chance.below(3) {
            let sidecar = pick(self.chance, self.sidecars);
            let from = (lost + self.chance.below(3000)).saturating_sub(1500);
            let lasts = self.chance.between(20, 4000);
            let fault = match self.chance.below(4) {
                0..2 => Fault::Killed { sidecar },
                2 => Fault::Partition { sidecar },
                _ => Fault::Stopped { sidecar },
            };
            self.fault(from, fault, lasts);
        }
        // Writes that take the places of those that were lost.
        for _ in 0..self.chance.below(4) {
            self.soon(lost, 300, Wish::Update);
        }
        self.look_around(lost);
    }

    fn wrong_clock(&mut self, at: u64) {
        let sidecar = pick(self.chance, self.sidecars);
        let forward = self.chance.per_cent(50);
        let (from, lasts) = (at + self.chance.below(50_000), self.chance.between(1_000, 20_000));
        self.fault(from, Fault::Step { sidecar, forward }, lasts);
        if self.chance.per_cent(50) {
            self.take_back(at);
        }
        let mode = Mode::MinimizeLatency;
        for late in [from + lasts / 2, from + lasts + 100, at + 56_000, at + 70_000] {
            self.call(late, sidecar, Wish::Verify { back: 0, mode });
        }
    }

    fn take_back(&mut self, at: u64) {
        let wish = match self.chance.below(12) {
            0..4 => Wish::RevokeToken { back: 0 },
            4..8 => Wish::RevokeSession,
            8 => Wish::RevokeSubject { spare: false },
            9 => Wish::RevokeSubject { spare: true },
            10 => Wish::Update,
            _ => Wish::RevokeIssuer,
        };
        self.anywhere(at, wish);
    }

    /// Everybody is asked, again and again.
    fn look_around(&mut self, at: u64) {
        for sidecar in 0..self.sidecars {
            for _ in 0..2 {
                let later = match self.chance.below(4) {
                    0 => self.chance.below(200),
                    1 => self.chance.below(5_000),
                    2 => self.chance.between(8_000, 16_000),
                    _ => self.chance.below(30_000),
                };
                let mode = match self.chance.below(8) {
                    0 => Mode::ToTheHead,
                    1 => Mode::FullyConsistent,
                    2 => Mode::AtLeastAsFresh,
                    _ => Mode::MinimizeLatency,
                };
                let back = pick(self.chance, 2);
                let refresh = self.chance.per_cent(20);
                let wish = if refresh { Wish::Refresh { back: 0 } } else { Wish::Verify { back, mode } };
                self.call(at + later, sidecar, wish);
            }
        }
    }

    fn soon(&mut self, at: u64, within: u64, wish: Wish) {
        let at = at + self.chance.below(within);
        self.anywhere(at, wish);
    }

    fn anywhere(&mut self, at: u64, wish: Wish) {
        let sidecar = pick(self.chance, self.sidecars);
        self.call(at, sidecar, wish);
    }

    fn call(&mut self, at: u64, sidecar: usize, call: Wish) {
        self.events.push(Event { at, what: What::Call { sidecar, slot: self.slot, call } });
    }

    fn fault(&mut self, at: u64, fault: Fault, lasts: u64) {
        self.events.push(Event { at, what: What::Fault { fault, lasts } });
    }
}
