//! `countersign inspect`: what a token says and what would be refused about it, without any key, store or network.
//!
//! Nothing here verifies anything: a report is UNVERIFIED and says so. It is for people who ask why a token is
//! refused, so it goes on after the first reason where a verification stops.

use super::json_members::Members;
use crate::clock::Timestamp;
use crate::keys::Algorithm;
use crate::token::{Reason, SessionId};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use std::time::Duration;

/// The default of `api.max_token_bytes`.
const LARGEST: usize = 16_384;
/// What clocks may stand apart by default, and at most.
const LEEWAY: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(60)];
/// The default of `max_lifetime`.
const LIFETIME: Duration = Duration::from_secs(86_400);
const LONGEST_KID: usize = 256;

/// What a credential looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A signed JWT in compact serialization (RFC 7515 §7.1).
    Jwt,
    /// An encrypted token in compact serialization (RFC 7516 §7.1).
    Jwe,
    /// A refresh token of ours, with what it names.
    RefreshToken(Option<Handle>),
    /// An opaque session token of ours, with what it names.
    SessionToken(Option<Handle>),
    /// A random UUID, as Auth.js names the sessions of its strategy `database` (RFC 9562 §5.4).
    RowName,
    /// Nothing we know.
    Unknown,
}

/// What an opaque token of ours names; whether we made it is not known without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handle {
    /// Its session.
    pub session: SessionId,
    /// Its generation; 0 in session tokens.
    pub generation: u64,
}

/// Something that a verification would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As the sidecar would say it.
    pub reason: Reason,
    /// Whether no configuration accepts it; else the usual one does not.
    pub always: bool,
    /// In words.
    pub why: String,
}

/// What can be said about a token without keys. Displays for people, with times as dates.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it looks like.
    pub kind: Kind,
    /// Its length in bytes.
    pub bytes: usize,
    /// Its header's members as written.
    pub header: Option<Members>,
    /// Its claims as written.
    pub claims: Option<Members>,
    /// What would be refused; empty does not mean accepted.
    pub refusals: Vec<Refusal>,
    /// What is worth knowing.
    pub notes: Vec<&'static str>,
    now: Timestamp,
}

/// Looks at a token as of `now`. Never verifies a signature.
#[must_use]
pub fn inspect(token: &str, now: Timestamp) -> Report {
    let mut report = Report {
        kind: Kind::Unknown,
        bytes: token.len(),
        header: None,
        claims: None,
        refusals: Vec::new(),
        notes: Vec::new(),
        now,
    };
    if token.len() > LARGEST {
        report.usually(
            Reason::TooLarge,
            format!("longer than {LARGEST} bytes, the default `api.max_token_bytes`"),
        );
        return report;
    }
    if let Some(rest) = token.strip_prefix("csr_") {
        report.kind = Kind::RefreshToken(report.handle(rest));
        report.always(Reason::UnsupportedType, "a refresh token is for Refresh, not for Verify");
        return report;
    }
    if let Some(rest) = token.strip_prefix("css_") {
        report.kind = Kind::SessionToken(report.handle(rest));
        report.notes.push("what it stands for is in the store: ask `countersign verify`");
        return report;
    }
    let parts: Vec<&str> = token.splitn(7, '.').collect();
    match parts.as_slice() {
        [header, claims, signature] => report.jwt(header, claims, signature),
        [header, wrapped, iv, content, tag] => report.jwe(header, wrapped, [iv, content, tag]),
        _ if token.starts_with('{') => {
            report.always(Reason::Malformed, "JSON serialization; only the compact one is read");
        }
        _ => {
            if is_uuid(token) {
                report.kind = Kind::RowName;
                report
                    .notes
                    .push("what it stands for is in the application's table: `issuers[].session_table`");
            }
            report.usually(
                Reason::Malformed,
                "neither three parts (JWT), five (encrypted cookie) nor an opaque token of ours; an issuer with \
                 `introspection` or `session_table` may know it",
            );
        }
    }
    report
}

/// Version 4, as `crypto.randomUUID()` writes it.
fn is_uuid(token: &str) -> bool {
    let digits = |part: &str, length| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<_> = token.split('-').collect();
    parts.len() == 5
        && parts.iter().zip([8, 4, 4, 4, 12]).all(|(part, length)| digits(part, length))
        && parts.get(2).is_some_and(|part| part.starts_with('4'))
}

impl Report {
    fn always(&mut self, reason: Reason, why: impl Into<String>) {
        self.refusals.push(Refusal { reason, always: true, why: why.into() });
    }

    fn usually(&mut self, reason: Reason, why: impl Into<String>) {
        self.refusals.push(Refusal { reason, always: false, why: why.into() });
    }

    /// Key id (4 bytes), session id (16), generation (8), MAC (32).
    fn handle(&mut self, encoded: &str) -> Option<Handle> {
        let decoded = URL_SAFE_NO_PAD.decode(encoded).unwrap_or_default();
        let fields = (decoded.len() == 60).then(|| {
            let session = decoded.get(4..20)?.try_into().ok()?;
            let generation = decoded.get(20..28)?.try_into().ok()?;
            let (session, generation) = (SessionId::from_bytes(session), u64::from_be_bytes(generation));
            Some(Handle { session, generation })
        });
        let handle = fields.flatten();
        if handle.is_none() {
            self.always(Reason::Malformed, "not 60 bytes of base64url after the prefix");
        }
        handle
    }

    fn members(&mut self, what: &str, encoded: &str) -> Option<Members> {
        let Ok(decoded) = URL_SAFE_NO_PAD.decode(encoded) else {
            self.always(Reason::Malformed, format!("the {what} is not base64url without padding"));
            return None;
        };
        match Members::parse(&decoded) {
            Ok(members) => {
                if members.has_duplicates() {
                    self.always(Reason::Malformed, format!("the {what} has a member twice"));
                }
                Some(members)
            }
            Err(why) => {
                self.always(Reason::Malformed, format!("the {what} is {why}"));
                None
            }
        }
    }

    fn jwt(&mut self, header: &str, claims: &str, signature: &str) {
        self.kind = Kind::Jwt;
        self.header = self.members("header", header);
        self.claims = self.members("claims", claims);
        if let Some(header) = self.header.clone() {
            self.judge_header(&header, signature);
        }
        if let Some(claims) = self.claims.clone() {
            self.judge_names(&claims);
            self.judge_times(&claims);
        }
    }

    /// An encrypted token, which is a session cookie of Auth.js or NextAuth or nothing that is ever accepted.
    fn jwe(&mut self, header: &str, wrapped: &str, rest: [&str; 3]) {
        self.kind = Kind::Jwe;
        self.header = self.members("header", header);
        if !wrapped.is_empty() {
            self.always(Reason::Malformed, "it has an encrypted key, which `dir` has not");
        }
        if rest.iter().any(|part| URL_SAFE_NO_PAD.decode(part).is_err()) {
            self.always(Reason::Malformed, "a part is not base64url without padding");
        }
        let Some(header) = self.header.clone() else { return };
        for name in ["zip", "crit"] {
            if header.get(name).is_some() {
                self.always(Reason::UnsupportedType, format!("any `{name}` is refused"));
            }
        }
        match header.text("alg").as_deref() {
            Some("dir") => {}
            Some(_) => {
                let why = "`alg` is not `dir`: wrapped and agreed keys (PBES2, RSA, ECDH) are never accepted";
                self.always(Reason::UnsupportedAlgorithm, why);
            }
            None => self.always(Reason::Malformed, "the header has no `alg`"),
        }
        let has_kid = header.get("kid").is_some();
        match header.text("enc").as_deref() {
            Some("A256CBC-HS512") => {
                self.notes
                    .push("as Auth.js v5 writes session cookies: an issuer with `authjs: {version: 5}`");
            }
            Some("A256GCM") if !has_kid => {
                self.notes
                    .push("as NextAuth v4 writes session cookies: an issuer with `authjs: {version: 4}`");
            }
            Some("A256GCM") => self.notes.push("Auth.js v5 reads such cookies and doesn't write them"),
            Some(_) => {
                self.always(Reason::UnsupportedAlgorithm, "`enc` is neither A256CBC-HS512 nor A256GCM")
            }
            None => self.always(Reason::Malformed, "the header has no `enc`"),
        }
        if has_kid {
            self.notes.push("`kid` tells secret and cookie name apart: another of either is UNKNOWN_KEY");
        }
        self.notes.push("its claims are encrypted: `countersign verify --name COOKIE` shows them");
        self.usually(Reason::UnsupportedType, "encrypted; needs an issuer with `authjs`");
    }

    fn judge_header(&mut self, header: &Members, signature: &str) {
        match header.get("alg").map(|_| header.text("alg")) {
            None => self.always(Reason::Malformed, "the header has no `alg`"),
            Some(None) => self.always(Reason::Malformed, "`alg` is no text"),
            Some(Some(alg)) => match alg.parse::<Algorithm>() {
                Ok(algorithm) => self.judge_signature(algorithm, signature),
                Err(_) => self.always(Reason::UnsupportedAlgorithm, "`alg` is none that is ever accepted"),
            },
        }
        for (name, why) in [
            ("crit", "any `crit` is refused: no extension is understood"),
            ("b64", "unencoded payloads (RFC 7797) are refused"),
            ("zip", "compressed tokens are refused"),
        ] {
            if header.get(name).is_some() {
                self.always(Reason::UnsupportedType, why);
            }
        }
        let kid = header.text("kid");
        if header.get("kid").is_some() && kid.as_ref().is_none_or(|kid| kid.len() > LONGEST_KID) {
            self.always(Reason::Malformed, format!("`kid` is no text of at most {LONGEST_KID} bytes"));
        }
        if kid.is_none() {
            self.notes.push("no `kid`: accepted only where exactly one key of the issuer fits the algorithm");
        }
        match header.text("typ") {
            None => self.usually(Reason::UnsupportedType, "no `typ`; needs `allow_missing_type: true`"),
            Some(typ) if ["at+jwt", "jwt"].contains(&typ.to_ascii_lowercase().as_str()) => {}
            Some(_) => self.usually(Reason::UnsupportedType, "its `typ` is not among the usual `types`"),
        }
        if ["jku", "jwk", "x5u", "x5c"].iter().any(|name| header.get(name).is_some()) {
            self.notes.push("keys in or beside the header (jku, jwk, x5u, x5c) are never used");
        }
    }

    fn judge_signature(&mut self, algorithm: Algorithm, signature: &str) {
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else {
            self.always(Reason::Malformed, "the signature is not base64url without padding");
            return;
        };
        let fits = match algorithm {
            Algorithm::Hs256 => signature.len() == 32,
            Algorithm::Hs384 => signature.len() == 48,
            Algorithm::Hs512 | Algorithm::Es256 | Algorithm::EdDsa => signature.len() == 64,
            Algorithm::Es384 => signature.len() == 96,
            Algorithm::Rs256
            | Algorithm::Rs384
            | Algorithm::Rs512
            | Algorithm::Ps256
            | Algorithm::Ps384
            | Algorithm::Ps512 => signature.len() >= 256,
        };
        if !fits {
            let why = format!("a signature of {} bytes can't be one of {algorithm}", signature.len());
            self.always(Reason::BadSignature, why);
        }
        if algorithm.is_symmetric() {
            self.notes.push("signed with a shared secret: accepted only from an issuer with `secret_file`");
        }
    }

    fn judge_names(&mut self, claims: &Members) {
        for (name, required) in [("iss", true), ("sub", false), ("jti", false)] {
            match (claims.get(name), claims.text(name)) {
                (None, _) if required => self.always(Reason::MissingClaim, format!("no `{name}`")),
                (Some(_), None) => self.always(Reason::InvalidClaim, format!("`{name}` is no text")),
                (None | Some(_), _) => {}
            }
        }
        match claims.get("aud").map(|_| claims.texts("aud")) {
            None => self.always(Reason::MissingClaim, "no `aud`"),
            Some(None) => self.always(Reason::InvalidClaim, "`aud` is neither a text nor a list of texts"),
            Some(Some(audiences)) if audiences.is_empty() => {
                self.always(Reason::WrongAudience, "`aud` names nobody");
            }
            Some(Some(_)) => {}
        }
        if claims.get("jti").is_none() {
            self.notes.push("no `jti`: a revocation of this one token goes by a digest of its text");
        }
    }

    fn judge_times(&mut self, claims: &Members) {
        let [usual, most] = LEEWAY;
        let mut times = [None, None, None];
        for (slot, name) in times.iter_mut().zip(["exp", "nbf", "iat"]) {
            *slot = claims.instant(name);
            if claims.get(name).is_some() && slot.is_none() {
                self.always(Reason::InvalidClaim, format!("`{name}` is no possible number of seconds"));
            }
        }
        let [exp, nbf, iat] = times;
        if claims.get("exp").is_none() {
            self.always(Reason::MissingClaim, "no `exp`: it would never expire");
        }
        if let Some(exp) = exp.filter(|exp| self.now >= exp.after(usual)) {
            let why = format!("expired {} ago", apart(self.now, exp));
            let always = self.now >= exp.after(most);
            self.refusals.push(Refusal { reason: Reason::Expired, always, why });
        }
        for (name, at) in [("nbf", nbf), ("iat", iat)] {
            if let Some(at) = at.filter(|at| at.before(usual) > self.now) {
                let why = format!("`{name}` lies {} ahead", apart(at, self.now));
                let always = at.before(most) > self.now;
                self.refusals.push(Refusal { reason: Reason::NotYetValid, always, why });
            }
        }
        if let (Some(exp), Some(iat)) = (exp, iat) {
            if exp <= iat {
                self.usually(Reason::InvalidClaim, "`exp` is not later than `iat`");
            } else if exp.since(iat) > LIFETIME {
                let why = format!("lives {}, longer than the usual `max_lifetime` of a day", apart(exp, iat));
                self.usually(Reason::InvalidClaim, why);
            }
        }
    }
}

/// How long from `earlier` to `later`, in its two largest units.
fn apart(later: Timestamp, earlier: Timestamp) -> String {
    let whole = Duration::from_secs(later.since(earlier).as_secs());
    let text = humantime::format_duration(whole).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "UNVERIFIED: no signature, key or revocation was checked; anyone can write such a token.\n\n",
        )?;
        match &self.kind {
            Kind::Jwt => writeln!(f, "JWT, {} bytes", self.bytes)?,
            Kind::Jwe => writeln!(f, "encrypted token (JWE), {} bytes", self.bytes)?,
            Kind::RefreshToken(handle) => name_handle(f, "refresh token of countersign", handle.as_ref())?,
            Kind::SessionToken(handle) => name_handle(f, "session token of countersign", handle.as_ref())?,
            Kind::RowName => {
                writeln!(f, "random UUID, as Auth.js names sessions that it keeps in a database")?
            }
            Kind::Unknown => writeln!(f, "unknown, {} bytes", self.bytes)?,
        }
        for (title, members) in [("header", &self.header), ("claims", &self.claims)] {
            let Some(members) = members else { continue };
            writeln!(f, "\n{title}")?;
            for (name, value) in members.iter() {
                write!(f, "  {}: {}", shown(name), shown(value))?;
                match members.instant(name).filter(|_| is_instant(title, name)) {
                    Some(at) if at > self.now => writeln!(f, "  ({at:?}, in {})", apart(at, self.now))?,
                    Some(at) => writeln!(f, "  ({at:?}, {} ago)", apart(self.now, at))?,
                    None => writeln!(f)?,
                }
            }
        }
        f.write_str("\n")?;
        for refusal in &self.refusals {
            let whether = if refusal.always { "refused" } else { "refused by default" };
            writeln!(f, "{whether}: {}: {}", refusal.reason, refusal.why)?;
        }
        if self.refusals.is_empty() {
            f.write_str("nothing here would be refused; `countersign verify` asks a sidecar\n")?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

fn is_instant(title: &str, name: &str) -> bool {
    title == "claims" && matches!(name, "exp" | "nbf" | "iat" | "auth_time" | "updated_at")
}

fn name_handle(f: &mut fmt::Formatter<'_>, what: &str, handle: Option<&Handle>) -> fmt::Result {
    match handle {
        Some(handle) => writeln!(f, "{what}: session {}, generation {}", handle.session, handle.generation),
        None => writeln!(f, "{what}"),
    }
}

/// Text of a stranger's, made safe for a terminal: nothing in it moves the cursor or turns the line round.
fn shown(text: &str) -> String {
    let turns =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => out.push(' '),
            c if c.is_control() || turns(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
