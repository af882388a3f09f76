//! What clients do all the while: log in, verify, refresh, change, revoke, at every sidecar, and at once.

use crate::client::{Client, Given, Token};
use crate::fleet::{GRACE, ISSUER};
use crate::history::{Answer, How, SessionNo, Target};
use crate::random::Random;
use countersign::grpc::v1::revoke_request::Target as Wire;
use countersign::grpc::v1::{IssuerRevocation, SessionRevocation, SubjectRevocation};
use countersign::token::Revision;
use futures_util::future::join_all;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Live sessions that a user keeps at most.
const DEVICES: usize = 4;

/// One session as its user holds it.
struct Held {
    no: SessionNo,
    id: String,
    access: Vec<Token>,
    refresh: Option<Token>,
    /// When the refresh token was got, and when it was first presented.
    since: Duration,
    presented: Option<Duration>,
    /// The refresh tokens before it, and when each was exchanged.
    used: Vec<(Token, Duration)>,
    /// Once the session is over: what its end was told with.
    ended: Option<Option<Revision>>,
}

/// One subject with some devices, who does one thing after another, often several at once.
pub(crate) struct User {
    client: Client,
    random: Random,
    subject: String,
    held: Vec<Held>,
    seen: Option<Revision>,
}

impl User {
    pub(crate) fn new(client: Client, random: Random, number: usize) -> Self {
        Self { client, random, subject: format!("user{number}"), held: Vec::new(), seen: None }
    }

    /// Goes on until cancelled, and comes back with what it holds.
    pub(crate) async fn live(mut self, stop: CancellationToken) -> Self {
        while !stop.is_cancelled() {
            self.act().await;
            let pause = self.random.millis(0, 12);
            tokio::time::sleep(pause).await;
        }
        self
    }

    /// One who keeps a session, refreshes it whenever it can be, alone or from many tabs, and is robbed now and then.
    pub(crate) async fn keep(mut self, stop: CancellationToken) -> Self {
        while !stop.is_cancelled() {
            if self.held.iter().all(|held| held.ended.is_some()) {
                self.login_under("shop").await;
            }
            match self.random.below(60) {
                0 => self.replay().await,
                1..=9 => self.verify().await,
                10..=14 => self.refresh(16).await,
                _ => self.refresh(1).await,
            }
            let pause = self.random.millis(0, 20);
            tokio::time::sleep(pause).await;
        }
        self
    }

    async fn act(&mut self) {
        let live = self.held.iter().filter(|held| held.ended.is_none()).count();
        if live < DEVICES && (live == 0 || self.random.one_in(4)) {
            return self.login().await;
        }
        match self.random.below(200) {
            0..=109 => self.verify().await,
            110..=149 => self.refresh(1).await,
            150..=157 => self.refresh(32).await,
            158..=164 => self.update().await,
            165..=175 => self.revoke_one().await,
            176..=178 => self.revoke_subject().await,
            179 if self.random.one_in(12) => self.revoke_issuer().await,
            179..=191 => self.replay().await,
            _ => self.race().await,
        }
        // The oldest graves are forgotten.
        while self.held.len() > 40 {
            self.held.remove(0);
        }
    }

    fn sidecar(&mut self) -> usize {
        self.random.below(self.client.size())
    }

    fn how(&mut self, told: Option<Revision>) -> How {
        match (self.random.below(4), told.or(self.seen)) {
            (0, _) => How::Fully,
            (1, Some(revision)) => How::Fresh(revision),
            _ => How::Latency,
        }
    }

    fn one_live(&mut self) -> Option<usize> {
        let live: Vec<usize> = (0..self.held.len()).filter(|at| self.held[*at].ended.is_none()).collect();
        self.random.pick(&live).copied()
    }

    async fn login(&mut self) {
        let policy = if self.random.one_in(4) { "bank" } else { "shop" };
        self.login_under(policy).await;
    }

    async fn login_under(&mut self, policy: &str) {
        let sidecar = self.sidecar();
        let Some((no, id, Given { access, refresh })) =
            self.client.login(sidecar, &self.subject, policy).await
        else {
            return tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let since = self.client.now();
        let access = vec![access];
        self.held.push(Held {
            no,
            id,
            access,
            refresh,
            since,
            presented: None,
            used: Vec::new(),
            ended: None,
        });
    }

    /// Verifies one token somewhere; those of sessions that are over more often.
    async fn verify(&mut self) {
        let over: Vec<usize> = (0..self.held.len()).filter(|at| self.held[*at].ended.is_some()).collect();
        let recent = &over[over.len().saturating_sub(4)..];
        let at = if self.random.one_in(2) { self.random.pick(recent).copied() } else { self.one_live() };
        let Some(at) = at else { return };
        let told = self.held[at].ended.flatten();
        let (sidecar, how) = (self.sidecar(), self.how(told));
        let Some(token) = self.random.pick(&self.held[at].access).cloned() else { return };
        self.client.verify(sidecar, &token, how).await;
    }

    /// One to be ended: the oldest is mostly spared, so that there are long lives, too.
    fn one_to_end(&mut self) -> Option<usize> {
        let live: Vec<usize> = (0..self.held.len()).filter(|at| self.held[*at].ended.is_none()).collect();
        let some = if self.random.one_in(6) { &live[..] } else { live.get(1..)? };
        self.random.pick(some).copied()
    }

    /// Presents the refresh token this often at once, and again within grace where the reply was lost.
    async fn refresh(&mut self, times: usize) {
        let now = self.client.now();
        let ripe: Vec<usize> = (0..self.held.len())
            .filter(|at| self.held[*at].ended.is_none() && now > self.held[*at].since + GRACE)
            .collect();
        // Younger ones come back themselves, which wants a try only now and then.
        let at = match self.random.pick(&ripe) {
            Some(at) => Some(*at),
            None if self.random.one_in(4) => self.one_live(),
            None => None,
        };
        let Some(at) = at else { return };
        let Some(token) = self.held[at].refresh.clone() else { return };
        let first = *self.held[at].presented.get_or_insert(now);
        let no = self.held[at].no;
        for _ in 0..6 {
            let at_once: Vec<usize> = (0..times).map(|_| self.sidecar()).collect();
            let calls = at_once.into_iter().map(|sidecar| self.client.refresh(sidecar, no, &token));
            let answers = join_all(calls).await;
            let mut denied = false;
            for (answer, given) in answers {
                denied |= matches!(answer, Answer::Denied(_));
                if let Some(given) = given {
                    self.take(at, given);
                }
            }
            let decided = self.held[at].presented.is_none();
            if denied {
                self.held[at].ended = Some(None);
            }
            if denied || decided || self.client.now() > first + GRACE.mul_f64(0.6) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
    }

    fn take(&mut self, at: usize, given: Given) {
        let now = self.client.now();
        let held = &mut self.held[at];
        held.presented = None;
        held.access.push(given.access);
        if held.access.len() > 4 {
            held.access.remove(0);
        }
        let (Some(new), Some(old)) = (given.refresh, &held.refresh) else { return };
        if new.text != old.text {
            held.used.extend(held.refresh.replace(new).map(|old| (old, now)));
            held.since = now;
        }
    }

    /// A thief: a token before the current one, when its grace is over.
    async fn replay(&mut self) {
        let now = self.client.now();
        let stale = |held: &Held| {
            let stale = held.used.iter().rfind(|(_, at)| now > *at + GRACE + GRACE / 4);
            stale.filter(|_| held.ended.is_none()).map(|(token, _)| token.clone())
        };
        let found = self.held.iter().enumerate().find_map(|(at, held)| Some((at, stale(held)?)));
        let Some((at, token)) = found else { return };
        let (sidecar, no) = (self.sidecar(), self.held[at].no);
        let (answer, _) = self.client.refresh(sidecar, no, &token).await;
        if matches!(answer, Answer::Denied(_)) {
            self.held[at].ended = Some(None);
            self.hunt(at).await;
        }
    }

    async fn update(&mut self) {
        let Some(at) = self.one_live() else { return };
        let (sidecar, role) = (self.sidecar(), format!("role{}", self.random.below(1000)));
        let (no, id) = (self.held[at].no, self.held[at].id.clone());
        if let Answer::Done(revision) = self.client.update(sidecar, no, &id, &role).await {
            self.seen = Some(revision);
            self.hunt(at).await;
        }
    }

    fn target(&mut self, at: usize) -> (Target, Wire) {
        let held = &self.held[at];
        let session = Target::Session(held.no);
        match (self.random.below(4), held.access.last(), &held.refresh) {
            (0, Some(access), Some(_)) => (Target::Token(access.no), Wire::Token(access.text.clone())),
            (1, _, Some(refresh)) => (session, Wire::Token(refresh.text.clone())),
            (1, Some(opaque), None) => (session, Wire::Token(opaque.text.clone())),
            _ => {
                let wire = SessionRevocation { session_id: held.id.clone(), issuer: None };
                (session, Wire::Session(wire))
            }
        }
    }

    fn note(&mut self, at: usize, target: &Target, answer: &Answer) {
        if let Answer::Done(revision) = answer {
            self.seen = Some(*revision);
        }
        let told = match answer {
            Answer::Done(revision) => Some(*revision),
            _ => None,
        };
        // A token alone does not end its session; it is the last, so later ones hide it.
        if !matches!(target, Target::Token(_)) {
            self.held[at].ended = Some(told);
        }
    }

    async fn revoke_one(&mut self) {
        let Some(at) = self.one_to_end() else { return };
        let sidecar = self.sidecar();
        let (target, wire) = self.target(at);
        let answer = self.client.revoke(sidecar, target.clone(), wire).await;
        self.note(at, &target, &answer);
        self.hunt(at).await;
    }

    /// As after a change of password: all but the session that did it; sometimes all.
    async fn revoke_subject(&mut self) {
        let spared = if self.random.one_in(3) { None } else { self.one_live() };
        let sidecar = self.sidecar();
        let subject = self.subject.clone();
        let target =
            Target::Subject { subject: subject.clone(), except: spared.map(|spared| self.held[spared].no) };
        let wire = Wire::Subject(SubjectRevocation {
            subject,
            except_session_id: spared.map(|spared| self.held[spared].id.clone()),
            ..SubjectRevocation::default()
        });
        let answer = self.client.revoke(sidecar, target.clone(), wire).await;
        self.note_all(spared, &answer).await;
    }

    async fn revoke_issuer(&mut self) {
        let sidecar = self.sidecar();
        let wire = Wire::Issuer(IssuerRevocation { issuer: ISSUER.to_owned(), before: None });
        let answer = self.client.revoke(sidecar, Target::Issuer, wire).await;
        self.note_all(None, &answer).await;
    }

    async fn note_all(&mut self, spared: Option<usize>, answer: &Answer) {
        let hit: Vec<usize> =
            (0..self.held.len()).filter(|at| Some(*at) != spared && self.held[*at].ended.is_none()).collect();
        for at in &hit {
            self.note(*at, &Target::Issuer, answer);
        }
        if let Some(at) = hit.first() {
            self.hunt(*at).await;
        }
    }

    /// A revocation beside refreshes and verifications, from all sides.
    async fn race(&mut self) {
        let Some(at) = self.one_to_end() else { return };
        let sidecars: Vec<usize> = (0..7).map(|_| self.sidecar()).collect();
        let (target, wire) = self.target(at);
        let held = &self.held[at];
        let no = held.no;
        if held.refresh.is_some() {
            self.held[at].presented.get_or_insert(self.client.now());
        }
        let (refresh, access) = (self.held[at].refresh.clone(), self.held[at].access.last().cloned());
        let refreshes = sidecars[..3]
            .iter()
            .filter_map(|sidecar| refresh.as_ref().map(|token| self.client.refresh(*sidecar, no, token)));
        let verifies = sidecars[3..6].iter().filter_map(|sidecar| {
            access.as_ref().map(|token| self.client.verify(*sidecar, token, How::Latency))
        });
        let revoke = self.client.revoke(sidecars[6], target.clone(), wire);
        let (answers, _, answer) = tokio::join!(join_all(refreshes), join_all(verifies), revoke);
        for (answer, given) in answers {
            if let Some(given) = given {
                self.take(at, given);
            } else if matches!(answer, Answer::Denied(_)) {
                self.held[at].ended = Some(None);
            }
        }
        self.note(at, &target, &answer);
        self.hunt(at).await;
    }

    /// Asks all sidecars at once about all tokens of a session that something just happened to.
    async fn hunt(&mut self, at: usize) {
        let told = self.held[at].ended.flatten().or(self.seen);
        let held = &self.held[at];
        let mut calls = Vec::new();
        for sidecar in 0..self.client.size() {
            for token in held.access.iter().rev().take(2) {
                for how in [Some(How::Latency), Some(How::Fully), told.map(How::Fresh)].into_iter().flatten()
                {
                    calls.push(self.client.verify(sidecar, token, how));
                }
            }
        }
        join_all(calls).await;
        if let (Some(token), true) = (&held.refresh, held.ended.is_some()) {
            let (no, token) = (held.no, token.clone());
            let sidecar = self.sidecar();
            self.client.refresh(sidecar, no, &token).await;
        }
    }

    /// After all faults: everything it holds, everywhere, decided.
    pub(crate) async fn probe(mut self) {
        self.client = self.client.probing();
        let client = &self.client;
        for held in self.held.iter().rev().take(12) {
            let told = held.ended.flatten().map(How::Fresh);
            let mut calls = Vec::new();
            for sidecar in 0..client.size() {
                for token in held.access.iter().rev().take(2) {
                    let ways = [Some(How::Latency), Some(How::Fully), told];
                    calls.extend(ways.into_iter().flatten().map(|how| client.verify(sidecar, token, how)));
                }
            }
            join_all(calls).await;
            if let (Some(token), Some(_)) = (&held.refresh, held.ended) {
                client.refresh(0, held.no, token).await;
            }
        }
    }
}
