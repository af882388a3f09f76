//! Those who call: they log in, remember what they were given, and write down what they were told.

use crate::engine::{ISSUER, session_key};
use crate::history::{Access, Answer, Asked, Call, History, Scope};
use crate::schedule::{Mode, SLOTS, SUBJECTS, Wish};
use crate::sidecar::{Credential, LEEWAY, Refused, Sidecar, longest_life, subject_name, token_key};
use crate::wire::Network;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use countersign::clock::Timestamp;
use countersign::revocation::{DenialKey, Draft, Entry, EntryKind, Marks};
use countersign::session::{Attributes, Login, SessionError};
use countersign::token::{Revision, SessionId};
use parking_lot::Mutex;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Clone, Default)]
struct Slot {
    session: Option<SessionId>,
    generation: u64,
    tokens: Vec<usize>,
}

pub(crate) struct People {
    slots: Mutex<Vec<Slot>>,
    /// When each session's login was asked for and answered.
    logins: Mutex<BTreeMap<SessionId, (u64, u64)>>,
    /// The latest revision that anybody was told.
    revision: Mutex<Option<Revision>>,
    pub(crate) history: Mutex<History>,
}

impl People {
    pub(crate) fn new() -> Self {
        Self {
            slots: Mutex::new(vec![Slot::default(); SLOTS]),
            logins: Mutex::default(),
            revision: Mutex::new(None),
            history: Mutex::default(),
        }
    }
}

/// Somebody about to call.
#[derive(Clone)]
pub(crate) struct Calling {
    pub(crate) network: Arc<Network>,
    pub(crate) people: Arc<People>,
    pub(crate) slot: usize,
}

impl Calling {
    /// Calls, unless what the wish needs was never given.
    pub(crate) fn begin(self, sidecar: &Arc<Sidecar>, wish: Wish) {
        let Some(asked) = self.asked(wish) else {
            if matches!(wish, Wish::Purge) {
                self.network.purge();
            }
            return;
        };
        let place = {
            let mut history = self.people.history.lock();
            history.calls.push(Call::begun(sidecar, self.network.now(), asked));
            history.calls.len() - 1
        };
        let called = Arc::clone(sidecar);
        sidecar.spawn(async move {
            let answer = match asked {
                Asked::Login { subject } => self.log_in(&called, subject, place).await,
                Asked::Verify { token, mode, revision } => self.verify(&called, token, mode, revision).await,
                Asked::Refresh { session, generation } => {
                    self.refresh(&called, session, generation, place).await
                }
                Asked::Revoke { scope } => self.revoke(&called, scope).await,
                Asked::Update { session } => self.update(&called, session).await,
            };
            let mut history = self.people.history.lock();
            let call = &mut history.calls[place];
            call.end = Some(self.network.now());
            call.answer = answer;
            call.stepped |= called.stepped();
            call.counted = called.counted();
        });
    }

    fn asked(&self, wish: Wish) -> Option<Asked> {
        let slot = self.people.slots.lock()[self.slot].clone();
        let subject = self.slot % SUBJECTS;
        let token = |back| slot.tokens.iter().rev().nth(back).copied();
        Some(match wish {
            Wish::Login => Asked::Login { subject },
            Wish::Verify { back, mode } => {
                let revision = self.people.revision.lock().filter(|_| mode == Mode::AtLeastAsFresh);
                Asked::Verify { token: token(back)?, mode, revision }
            }
            Wish::Refresh { back } => {
                let generation = slot.generation.checked_sub(back).filter(|generation| *generation > 0)?;
                Asked::Refresh { session: slot.session?, generation }
            }
            Wish::RevokeToken { back } => Asked::Revoke { scope: Scope::Token { token: token(back)? } },
            Wish::RevokeSession => Asked::Revoke { scope: Scope::Session { session: slot.session? } },
            Wish::RevokeSubject { spare } => {
                Asked::Revoke { scope: Scope::Subject { subject, except: slot.session.filter(|_| spare) } }
            }
            Wish::RevokeIssuer => Asked::Revoke { scope: Scope::Issuer },
            Wish::Update => Asked::Update { session: slot.session? },
            Wish::Purge => return None,
        })
    }

    async fn log_in(&self, sidecar: &Sidecar, subject: usize, place: usize) -> Answer {
        let login = Login { subject: subject_name(subject), client_id: "web".to_owned(), ..Login::default() };
        let opened = match sidecar.sessions.create(login).await {
            Ok(opened) => opened,
            Err(error) => return refused(&error),
        };
        let session = opened.record.unwrap().id;
        let login = (self.people.history.lock().calls[place].begin, self.network.now());
        self.people.logins.lock().insert(session, login);
        let token = self.keep(sidecar, session, login, &opened.tokens.access_token, place);
        let mut slots = self.people.slots.lock();
        let slot = &mut slots[self.slot];
        (slot.session, slot.generation) = (Some(session), 1);
        slot.tokens.push(token);
        Answer::Opened { session, token }
    }

    async fn refresh(&self, sidecar: &Sidecar, session: SessionId, generation: u64, place: usize) -> Answer {
        let login = self.people.logins.lock()[&session];
        let presented = sidecar.refresh_token(session, generation);
        let renewed = match sidecar.sessions.refresh(&presented).await {
            Ok(renewed) => renewed,
            Err(error) => return refused(&error),
        };
        let generation = sidecar.generation(renewed.tokens.refresh_token.as_deref().unwrap());
        let token = self.keep(sidecar, session, login, &renewed.tokens.access_token, place);
        let mut slots = self.people.slots.lock();
        let slot = &mut slots[self.slot];
        slot.tokens.push(token);
        if slot.session == Some(session) {
            slot.generation = slot.generation.max(generation);
        }
        Answer::Renewed { generation, token }
    }

    async fn verify(
        &self,
        sidecar: &Sidecar,
        token: usize,
        mode: Mode,
        revision: Option<Revision>,
    ) -> Answer {
        let access = self.people.history.lock().tokens[token].clone();
        let credential = Credential {
            session: access.session,
            version: access.version,
            issued_at: access.issued_at,
            expires_at: access.expires_at,
            marks: Marks {
                issuer: DenialKey::issuer(ISSUER),
                subject: DenialKey::subject(ISSUER, &subject_name(access.subject)),
                token: Some(token_key(token)),
                session: Some(session_key(access.session)),
                logged_in_at: Some(access.logged_in_at),
                claims_version: Some(access.version),
            },
            revision,
        };
        match sidecar.verify(&credential, mode).await {
            Ok(()) => Answer::Accepted,
            Err(Refused::Denied(reason)) => Answer::Denied(reason),
            Err(Refused::Undecided(reason)) => Answer::Undecided(reason),
        }
    }

    async fn revoke(&self, sidecar: &Sidecar, scope: Scope) -> Answer {
        let (now, longest) = (sidecar.clock.now().judged, longest_life());
        let draft = match scope {
            Scope::Token { token } => {
                let expires_at = self.people.history.lock().tokens[token].expires_at.after(LEEWAY);
                Draft::Token { key: token_key(token), expires_at }
            }
            Scope::Session { session } => sidecar.sessions.ending(session),
            Scope::Subject { subject, except } => {
                let key = DenialKey::subject(ISSUER, &subject_name(subject));
                Draft::Subject { key, except: except.map(session_key), before: None, now, longest }
            }
            Scope::Issuer => Draft::Issuer { key: DenialKey::issuer(ISSUER), before: None, now, longest },
        };
        match sidecar.revoker.revoke(draft).await {
            Ok(revision) => {
                *self.people.revision.lock() = Some(revision);
                let entry = self.issued(|at, _| *at == revision);
                Answer::Revoked { entry, revision }
            }
            Err(_) => Answer::Undecided(countersign::token::Reason::StoreUnavailable),
        }
    }

    async fn update(&self, sidecar: &Sidecar, session: SessionId) -> Answer {
        let attributes = Attributes { roles: vec!["buyer".to_owned()], ..Attributes::default() };
        match sidecar.sessions.update(session, attributes).await {
            Ok((record, revision)) => {
                *self.people.revision.lock() = Some(revision);
                let version = record.attributes_version;
                let entry = self.issued(|_, entry| {
                    entry.kind == EntryKind::ClaimsBefore { version } && entry.key == session_key(session)
                });
                Answer::Updated { entry, version }
            }
            Err(error) => refused(&error),
        }
    }

    fn issued(&self, wanted: impl Fn(&Revision, &Entry) -> bool) -> Option<Entry> {
        let engine = self.network.engine.lock();
        engine.issued.iter().rev().find(|(at, entry)| wanted(at, entry)).map(|(_, entry)| *entry)
    }

    /// Reads an access token as a service would, and remembers it.
    fn keep(
        &self,
        sidecar: &Sidecar,
        session: SessionId,
        login: (u64, u64),
        token: &str,
        place: usize,
    ) -> usize {
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: Value = serde_json::from_slice(&payload).unwrap();
        let mut history = self.people.history.lock();
        let misdated = sidecar.stepped() || history.calls[place].stepped;
        history.tokens.push(Access {
            session,
            subject: self.slot % SUBJECTS,
            logged_in_at: Timestamp::from_millis(claims["sct"].as_u64().unwrap()),
            version: claims["sav"].as_u64().unwrap(),
            issued_at: Timestamp::from_secs(claims["iat"].as_u64().unwrap()),
            expires_at: Timestamp::from_secs(claims["exp"].as_u64().unwrap()),
            login,
            misdated,
        });
        history.tokens.len() - 1
    }
}

fn refused(error: &SessionError) -> Answer {
    match error {
        SessionError::Denied { reason, .. } => Answer::Denied(*reason),
        SessionError::NoSuchSession => Answer::Denied(error.reason()),
        _ => Answer::Undecided(error.reason()),
    }
}
