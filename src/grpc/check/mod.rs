//! Envoy's external authorization (`envoy.service.auth.v3.Authorization`): the same verification, asked by a proxy.

mod answer;
mod request;

pub use answer::Settings;

use crate::grpc::codec::{BUFFER, YIELD};
use crate::grpc::envoy::service::auth::v3::CheckResponse;
use crate::grpc::router::Parts;
use crate::grpc::{cookies, status, token};
use crate::ops::metrics::{DENIED, UNDECIDED};
use crate::token::{Action, Reason};
use crate::verify::{Acceptance, Consistency, Demands, Verdict};
use bytes::{Buf, BufMut, Bytes};
use futures_util::future::Either;
use prost::Message;
use request::{Authorization, CheckRequest};
use std::borrow::Cow;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::UnaryService;
use tonic::{Code, Request, Response, Status};

/// How proxies are answered.
#[derive(Clone, Debug)]
pub struct Told {
    /// What of an identity.
    pub settings: Settings,
    /// What their routes demand where they say nothing.
    pub route: Route,
    /// What routes said and was not understood, as far as it was told in the log.
    pub complained: Arc<Mutex<Vec<String>>>,
}

/// So many misspelt keys are told; there may be others for ever.
const MOST_COMPLAINTS: usize = 16;

impl Told {
    /// Each key is told once: how often it happens is up to whoever sends requests.
    fn is_news(&self, key: &str) -> bool {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let news = complained.len() < MOST_COMPLAINTS && complained.iter().all(|known| known != key);
        if news {
            complained.push(key.to_owned());
        }
        news
    }
}

/// What a route demands, where it says so; else the configuration's.
#[derive(Clone, Debug)]
pub struct Route {
    /// Any of these; empty: the issuers' own.
    pub audiences: Vec<String>,
    /// All of these.
    pub scopes: Vec<String>,
    /// How fresh the answer must be.
    pub fully_consistent: bool,
    /// Whether a request without a credential goes on.
    pub optional: bool,
    /// The cookies that are looked into, where the header has no bearer token; empty: those that issuers have.
    pub cookies: Vec<String>,
}

/// One Check.
pub(super) struct CheckCall<'a> {
    pub(super) parts: &'a Parts,
    pub(super) deadline: Duration,
}

impl<'a> UnaryService<CheckMessage> for CheckCall<'a> {
    type Response = CheckAnswer;
    type Future = Either<Ready<Result<Response<CheckAnswer>, Status>>, Answering<'a>>;

    fn call(&mut self, request: Request<CheckMessage>) -> Self::Future {
        let (parts, deadline) = (self.parts, self.deadline);
        let message = request.into_inner();
        let Ok(request) = CheckRequest::read(&message.0) else {
            let odd = status::bad_call("", "the message does not decode as its type");
            return Either::Left(ready(Err(odd)));
        };
        match Check::of(parts, &request) {
            Err(answer) => Either::Left(ready(Ok(Response::new(answer)))),
            Ok(check) => match check.verify_now(parts, deadline) {
                Some(answer) => Either::Left(ready(Ok(Response::new(answer)))),
                None => {
                    let check = check.into_owned();
                    Either::Right(Box::pin(
                        async move { Ok(Response::new(check.verify(parts, deadline).await)) },
                    ))
                }
            },
        }
    }
}

type Answering<'a> = Pin<Box<dyn Future<Output = Result<Response<CheckAnswer>, Status>> + Send + 'a>>;

/// A credential, the name it was found under, and what its route demands.
struct Check<'r> {
    name: Cow<'r, str>,
    token: Cow<'r, str>,
    /// A credential was shown at all.
    shown: bool,
    is_grpc: bool,
    route: Cow<'r, Route>,
}

impl<'r> Check<'r> {
    /// `Err` where the answer is known already.
    fn of(parts: &'r Parts, request: &'r CheckRequest<'_>) -> Result<Self, CheckAnswer> {
        let told = &parts.settings.check;
        let is_grpc = request.is_grpc;
        let refused = |reason, refusal: &Status| {
            let result = if reason == Reason::BadCall { UNDECIDED } else { DENIED };
            parts.metrics.verify_refused(result, reason, "", Duration::ZERO);
            Err(CheckAnswer::refused(told.settings.refused(refusal, &[], true, is_grpc)))
        };
        let route = match told.route.with(&request.demands) {
            Ok(route) => route,
            Err(key) => {
                if told.is_news(&key) {
                    tracing::error!(
                        key,
                        "a route's context_extensions are not understood; its requests are refused until they are mended"
                    );
                }
                let refusal = status::bad_call("context_extensions", "see what a route may say");
                return refused(Reason::BadCall, &refusal);
            }
        };
        let bearer = match request.authorization {
            // Which of them would count, another reader may see otherwise.
            Authorization::Several => {
                return refused(Reason::Malformed, &status::status(Reason::Malformed, Action::None, None));
            }
            Authorization::One(header) => bearer(header),
            Authorization::None => None,
        };
        let found = match bearer {
            Some(token) => Some((Cow::Borrowed(""), Cow::Borrowed(token))),
            None => cookie(parts, &request.cookies, &route.cookies),
        };
        match found {
            None if route.optional => Err(CheckAnswer::Nobody(told.settings.nobody())),
            found => {
                let shown = found.is_some();
                let (name, token) = found.unwrap_or_default();
                Ok(Self { name, token, shown, is_grpc, route })
            }
        }
    }

    fn into_owned(self) -> Check<'static> {
        Check {
            name: Cow::Owned(self.name.into_owned()),
            token: Cow::Owned(self.token.into_owned()),
            route: Cow::Owned(self.route.into_owned()),
            shown: self.shown,
            is_grpc: self.is_grpc,
        }
    }

    fn demands(&self, deadline: Duration) -> Demands<'_> {
        let consistency = match self.route.fully_consistent {
            true => Consistency::FullyConsistent,
            false => Consistency::MinimizeLatency,
        };
        Demands {
            audiences: &self.route.audiences,
            scopes: &self.route.scopes,
            consistency,
            deadline,
            credential_name: &self.name,
        }
    }

    fn verify_now(&self, parts: &Parts, deadline: Duration) -> Option<CheckAnswer> {
        let result = parts.verifier.verify_now(&self.token, &self.demands(deadline))?;
        token::note(parts, &result);
        Some(self.answer(parts, result.map_err(Status::from)))
    }

    async fn verify(&self, parts: &Parts, deadline: Duration) -> CheckAnswer {
        let result = parts.verifier.verify(&self.token, &self.demands(deadline)).await;
        token::note(parts, &result);
        self.answer(parts, result.map_err(Status::from))
    }

    fn answer(&self, parts: &Parts, result: Result<Verdict, Status>) -> CheckAnswer {
        let settings = &parts.settings.check.settings;
        match result {
            Ok(Verdict { acceptance, .. }) if !acceptance.told_to_proxies().is_empty() => {
                CheckAnswer::Known(acceptance, settings.always_removed())
            }
            // Never: it is made with the acceptance. But an empty answer allows.
            Ok(_) => {
                let defect = status::status(Reason::InternalError, Action::None, None);
                CheckAnswer::refused(settings.refused(&defect, &[], self.shown, self.is_grpc))
            }
            // Without a credential there is none to mend: only a login helps.
            Err(refusal) if !self.shown && refusal.code() == Code::Unauthenticated => {
                let nothing = status::status(Reason::Malformed, Action::Reauthenticate, None);
                CheckAnswer::refused(settings.refused(&nothing, &[], false, self.is_grpc))
            }
            Err(refusal) => {
                CheckAnswer::refused(settings.refused(&refusal, &self.route.scopes, self.shown, self.is_grpc))
            }
        }
    }
}

impl Route {
    /// This one with what a route says in its place; an empty value unsays what the virtual host said. `Err` names what
    /// is not understood: nothing that a route demands is overlooked.
    fn with(&self, demands: &[(&str, &str)]) -> Result<Cow<'_, Self>, String> {
        if demands.is_empty() {
            return Ok(Cow::Borrowed(self));
        }
        let mut route = self.clone();
        for &(key, value) in demands {
            // A value of nothing but separators demands something that nobody can read.
            let words = || {
                let words = value.split([' ', ',']).filter(|word| !word.is_empty()).map(str::to_owned);
                Some(words.collect::<Vec<_>>())
                    .filter(|words| !words.is_empty())
                    .ok_or_else(|| key.to_owned())
            };
            match (key, value) {
                ("audiences", "") => route.audiences.clone_from(&self.audiences),
                ("audiences", _) => route.audiences = words()?,
                ("scopes", "") => route.scopes.clone_from(&self.scopes),
                ("scopes", _) => route.scopes = words()?,
                ("cookies", "") => route.cookies.clone_from(&self.cookies),
                ("cookies", _) => route.cookies = words()?,
                ("consistency", "") => route.fully_consistent = self.fully_consistent,
                ("authentication", "") => route.optional = self.optional,
                ("consistency", "minimize_latency") => route.fully_consistent = false,
                ("consistency", "fully_consistent") => route.fully_consistent = true,
                ("authentication", "required") => route.optional = false,
                ("authentication", "optional") => route.optional = true,
                ("consistency" | "authentication", _) => return Err(key.to_owned()),
                // Somebody else's words are not logged: they may be long, or anything.
                _ => return Err(key.chars().take(40).filter(char::is_ascii_graphic).collect()),
            }
        }
        Ok(Cow::Owned(route))
    }
}

/// The token of a bearer credential (RFC 6750 §2.1); credentials of other schemes are none here. What only begins like
/// one is one that is malformed: another reader may take it for good.
fn bearer(header: &str) -> Option<&str> {
    let header = header.trim_ascii();
    let scheme = header.get(..6).filter(|scheme| scheme.eq_ignore_ascii_case("bearer"))?;
    let rest = header.get(scheme.len()..).unwrap_or_default();
    let is_other = rest.bytes().next().is_some_and(cookies::is_token_byte);
    (!is_other).then(|| rest.trim_ascii_start())
}

fn cookie<'r>(parts: &'r Parts, header: &'r str, names: &[String]) -> Option<(Cow<'r, str>, Cow<'r, str>)> {
    if header.is_empty() {
        return None;
    }
    if names.is_empty() {
        return cookies::find(header, parts.verifier.cookie_names())
            .map(|(name, token)| (Cow::Borrowed(name), token));
    }
    let found = cookies::find(header, names.iter().map(String::as_str));
    found.map(|(name, token)| (Cow::Owned(name.to_owned()), token))
}

/// What a proxy is answered.
pub(super) enum CheckAnswer {
    /// Goes on: as it was encoded when the credential was first accepted, and the end that is the same for all.
    Known(Arc<Acceptance>, Arc<[u8]>),
    /// Goes on without an identity; encoded.
    Nobody(Arc<[u8]>),
    /// Does not go on.
    Refused(Box<CheckResponse>),
}

impl CheckAnswer {
    fn refused(response: CheckResponse) -> Self {
        Self::Refused(Box::new(response))
    }
}

/// A CheckRequest as it came. It holds credentials, so it shows nothing.
pub(super) struct CheckMessage(Bytes);

/// Check's codec.
#[derive(Debug, Default)]
pub(super) struct CheckCodec;

impl Codec for CheckCodec {
    type Encode = CheckAnswer;
    type Decode = CheckMessage;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for CheckCodec {
    type Item = CheckMessage;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Status> {
        Ok(Some(CheckMessage(buf.copy_to_bytes(buf.remaining()))))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(2 * BUFFER, YIELD)
    }
}

impl Encoder for CheckCodec {
    type Item = CheckAnswer;
    type Error = Status;

    fn encode(&mut self, answer: CheckAnswer, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match answer {
            CheckAnswer::Known(acceptance, end) => {
                let begun = acceptance.told_to_proxies();
                if begun.is_empty() {
                    // The end alone has no status, and to a proxy that allows.
                    return Err(status::status(Reason::InternalError, Action::None, None));
                }
                buf.reserve(begun.len() + end.len());
                buf.put_slice(begun);
                buf.put_slice(&end);
            }
            CheckAnswer::Nobody(whole) => buf.put_slice(&whole),
            CheckAnswer::Refused(response) => response.encode_raw(buf),
        }
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(2 * BUFFER, YIELD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Told {
        Told {
            settings: Settings::new("x-countersign-".to_owned(), false, "shop".to_owned()),
            route: Route {
                audiences: vec!["shop".to_owned()],
                scopes: vec!["read".to_owned()],
                fully_consistent: true,
                optional: false,
                cookies: vec!["sid".to_owned()],
            },
            complained: Arc::default(),
        }
    }

    #[test]
    fn what_a_route_unsays_is_the_configuration_s_again() {
        let Told { route, .. } = told();
        let said = [
            ("audiences", "other"),
            ("scopes", "none"),
            ("cookies", "c"),
            ("consistency", "minimize_latency"),
            ("authentication", "optional"),
        ];
        let other = route.with(&said).unwrap();
        assert!(other.optional && !other.fully_consistent);
        assert_eq!([&other.audiences, &other.scopes, &other.cookies], [&["other"], &["none"], &["c"]]);
        let unsaid = said.map(|(key, _)| (key, ""));
        let again = route.with(&[said, unsaid].concat()).unwrap();
        assert!(!again.optional && again.fully_consistent);
        assert_eq!([&again.audiences, &again.scopes, &again.cookies], [&["shop"], &["read"], &["sid"]]);
    }

    #[test]
    fn each_misspelt_key_is_told_once_and_not_for_ever() {
        let told = told();
        assert!(told.is_news("scope") && told.is_news("audience"));
        assert!(!told.is_news("scope") && !told.clone().is_news("audience"));
        let news = (0..100).filter(|number| told.is_news(&format!("key{number}"))).count();
        assert_eq!(news, MOST_COMPLAINTS - 2);
    }
}
