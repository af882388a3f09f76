//! What a proxy is answered. Only here is a CheckResponse made, because to a proxy one without a status allows.

use crate::grpc::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use crate::grpc::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use crate::grpc::envoy::service::auth::v3::{CheckResponse, DeniedHttpResponse, OkHttpResponse};
use crate::grpc::envoy::r#type::v3::HttpStatus;
use crate::grpc::v1::VerifyResponse;
use crate::ops::trace;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use http::StatusCode;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use prost_types::{ListValue, Struct, Value, value::Kind};
use std::collections::BTreeMap;
use std::sync::Arc;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What each header of an identity says, in the order they are written.
const IDENTITY: [&str; 8] = ["issuer", "subject", "session", "client", "audience", "scopes", "roles", "kind"];
/// The one that is written where it is asked for.
const CLAIMS: &str = "claims";

/// What can't stand in a header's value, or would end an item of a list.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b',').add(b'"');

/// How identities are told to services behind a proxy.
#[derive(Clone, Debug)]
pub struct Settings {
    header_prefix: String,
    claims_header: bool,
    realm: String,
    /// The names that no request may bring whoever it is from, as the end of an encoded answer.
    always_removed: Arc<[u8]>,
    /// A whole encoded answer.
    nobody: Arc<[u8]>,
}

impl Settings {
    /// `header_prefix`: what the names of identity headers begin with, lower case. `claims_header`: whether all claims are
    /// told in one, too. `realm`: that of a challenge (RFC 9110 §11.5).
    #[must_use]
    pub fn new(header_prefix: String, claims_header: bool, realm: String) -> Self {
        // A framework might take them for one of the names that are set. Messages concatenate: these are added to an answer's own.
        let names = all_names().flat_map(|of| spellings(&format!("{header_prefix}{of}")));
        let ok_response = OkHttpResponse { headers_to_remove: names.collect(), ..OkHttpResponse::default() };
        let end = CheckResponse { ok_response: Some(ok_response), ..CheckResponse::default() };
        let always_removed: Arc<[u8]> = end.encode_to_vec().into();
        let settings = Self { header_prefix, claims_header, realm, always_removed, nobody: Arc::default() };
        let nobody = [&settings.on(&[], None).encode_to_vec(), &*settings.always_removed].concat().into();
        Self { nobody, ..settings }
    }

    /// The end of every answer that lets somebody go on.
    pub(super) fn always_removed(&self) -> Arc<[u8]> {
        Arc::clone(&self.always_removed)
    }

    /// Goes on, known as nobody; encoded.
    pub(super) fn nobody(&self) -> Arc<[u8]> {
        Arc::clone(&self.nobody)
    }

    /// Goes on, known as this; encoded but for its end, because it is the same for every request with this credential.
    #[must_use]
    pub fn allowed(&self, answer: &[u8]) -> Box<[u8]> {
        // Our own encoding decodes. Where it did not, an answer would allow without an identity.
        let Ok(said) = VerifyResponse::decode(answer) else { return Box::default() };
        let list = |items: &[String]| items.iter().map(|item| escaped(item)).collect::<Vec<_>>().join(" ");
        let values = [
            escaped(&said.issuer),
            escaped(&said.subject),
            escaped(&said.session_id),
            escaped(&said.client_id),
            list(&said.audiences),
            list(&said.scopes),
            list(&said.roles),
            said.kind().as_str_name().to_owned(),
        ];
        let mut identity: Vec<_> = IDENTITY.into_iter().zip(values).collect();
        if self.claims_header {
            identity.push((CLAIMS, URL_SAFE_NO_PAD.encode(&said.claims_json)));
        }
        identity.retain(|(_, value)| !value.is_empty());
        self.on(&identity, Some(metadata(&said))).encode_to_vec().into()
    }

    /// But for its end.
    fn on(&self, identity: &[(&str, String)], dynamic_metadata: Option<Struct>) -> CheckResponse {
        let name = |of: &str| format!("{}{of}", self.header_prefix);
        let headers = identity.iter().map(|(of, value)| header(&name(of), value)).collect();
        // What is not set is taken out. A name in both lists would be gone.
        let is_set = |of: &str| identity.iter().any(|(set, _)| *set == of);
        let unset = all_names().filter(|of| !is_set(of)).map(name);
        CheckResponse {
            status: Some(decided(Code::Ok)),
            ok_response: Some(OkHttpResponse {
                headers,
                headers_to_remove: unset.collect(),
                response_headers_to_add: Vec::new(),
            }),
            denied_response: None,
            error_response: None,
            dynamic_metadata,
        }
    }

    /// Does not go on. `demanded`: the scopes that the route demands. `shown`: a credential was.
    pub(super) fn refused(
        &self,
        refusal: &Status,
        demanded: &[String],
        shown: bool,
        is_grpc: bool,
    ) -> CheckResponse {
        let details = refusal.get_error_details();
        let info = details.error_info();
        let reason = info.map_or("", |info| info.reason.as_str());
        trace::note_reason(reason);
        let mut headers = vec![header("x-countersign-reason", reason)];
        if let Some(action) = info.and_then(|info| info.metadata.get("action")) {
            headers.push(header("x-countersign-action", action));
        }
        let code = refusal.code();
        let (code, http) = if code == Code::Unauthenticated {
            (code, StatusCode::UNAUTHORIZED)
        } else if code == Code::PermissionDenied {
            (code, StatusCode::FORBIDDEN)
        } else {
            // Whatever else it is, it is no "no".
            (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE)
        };
        if code == Code::Unavailable {
            let delay = details.retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
            headers.push(header("retry-after", &delay.as_secs().max(1).to_string()));
        } else {
            headers.push(header("www-authenticate", &self.challenge(code, demanded, shown)));
        }
        if is_grpc {
            headers.push(header("grpc-status-details-bin", &STANDARD_NO_PAD.encode(refusal.details())));
        }
        let response = DeniedHttpResponse {
            status: Some(HttpStatus { code: i32::from(http.as_u16()) }),
            headers,
            // For a gRPC client this is its status's message.
            body: refusal.message().to_owned(),
        };
        CheckResponse {
            status: Some(decided(code)),
            ok_response: None,
            // Proxies that don't know the second read the first; the others read the last (of a oneof).
            error_response: (code == Code::Unavailable).then(|| response.clone()),
            denied_response: Some(response),
            dynamic_metadata: Some(Struct { fields: [("reason".to_owned(), text(reason))].into() }),
        }
    }

    /// RFC 6750 §3: no error is named to who showed no credential.
    fn challenge(&self, code: Code, demanded: &[String], shown: bool) -> String {
        let realm = format!("Bearer realm=\"{}\"", self.realm);
        if !shown {
            return realm;
        }
        if code == Code::PermissionDenied {
            // As RFC 6749 §3.3 has them, whatever a route says.
            let fits = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | '\\') || *c == ' ';
            let scopes: String = demanded.join(" ").chars().filter(fits).collect();
            return format!("{realm}, error=\"insufficient_scope\", scope=\"{scopes}\"");
        }
        format!("{realm}, error=\"invalid_token\"")
    }
}

/// All that an identity's headers may say.
fn all_names() -> impl Iterator<Item = &'static str> {
    IDENTITY.into_iter().chain([CLAIMS])
}

/// A name in every spelling with underscores: to many frameworks they are all the same header.
fn spellings(name: &str) -> Vec<String> {
    let mut spellings = vec![String::new()];
    for part in name.split_inclusive('-') {
        let (text, ends) = part.strip_suffix('-').map_or((part, &[""][..]), |text| (text, &["-", "_"][..]));
        spellings = spellings
            .iter()
            .flat_map(|begun| ends.iter().map(move |end| format!("{begun}{text}{end}")))
            .collect();
    }
    spellings.retain(|spelling| spelling != name);
    spellings
}

fn decided(code: Code) -> tonic_types::Status {
    tonic_types::Status { code: code.into(), message: String::new(), details: Vec::new() }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// In the place of every copy that there is.
fn header(name: &str, value: &str) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_owned(), value: value.to_owned(), raw_value: Vec::new() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
    }
}

/// The same for filters and logs behind this one; all claims among it, as far as JSON's numbers fit.
fn metadata(said: &VerifyResponse) -> Struct {
    let list = |items: &[String]| Value {
        kind: Some(Kind::ListValue(ListValue { values: items.iter().map(|item| text(item)).collect() })),
    };
    let claims = serde_json::from_slice(&said.claims_json).map_or(Value::default(), |claims| value(&claims));
    let fields: BTreeMap<_, _> = [
        ("issuer", text(&said.issuer)),
        ("subject", text(&said.subject)),
        ("session", text(&said.session_id)),
        ("client", text(&said.client_id)),
        ("audience", list(&said.audiences)),
        ("scopes", list(&said.scopes)),
        ("roles", list(&said.roles)),
        ("kind", text(said.kind().as_str_name())),
        ("claims", claims),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    Struct { fields }
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// As deep as the claims were read: 32 levels.
fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(yes) => Kind::BoolValue(*yes),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(string) => Kind::StringValue(string.clone()),
        Json::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(value).collect() }),
        Json::Object(members) => Kind::StructValue(Struct {
            fields: members.iter().map(|(name, member)| (name.clone(), value(member))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::{status, v1};
    use crate::token::{Action, Reason};

    fn settings() -> Settings {
        Settings::new("x-countersign-".to_owned(), false, "shop".to_owned())
    }

    fn accepted() -> VerifyResponse {
        VerifyResponse {
            issuer: "https://auth.example.com".to_owned(),
            subject: "al ice\r\nx-admin: 1 é%".to_owned(),
            scopes: vec!["read".to_owned(), "write".to_owned()],
            roles: vec!["a b".to_owned(), "c,d".to_owned()],
            kind: v1::CredentialKind::Jwt.into(),
            claims_json: br#"{"sub":"alice","n":7,"deep":{"list":[true,null,"x"]}}"#.to_vec(),
            ..VerifyResponse::default()
        }
    }

    fn on(settings: &Settings, said: &VerifyResponse) -> CheckResponse {
        let begun = settings.allowed(&said.encode_to_vec());
        CheckResponse::decode(&*[&*begun, &*settings.always_removed()].concat()).unwrap()
    }

    fn named<'h>(headers: &'h [HeaderValueOption], name: &str) -> Option<&'h str> {
        let header =
            headers.iter().filter_map(|option| option.header.as_ref()).find(|header| header.key == name)?;
        Some(&header.value)
    }

    #[test]
    fn an_identity_is_told_in_headers_that_no_value_breaks() {
        let response = on(&settings(), &accepted());
        assert_eq!(response.status.unwrap().code, 0);
        let headers = response.ok_response.unwrap().headers;
        assert_eq!(named(&headers, "x-countersign-issuer"), Some("https://auth.example.com"));
        assert_eq!(named(&headers, "x-countersign-subject"), Some("al%20ice%0D%0Ax-admin:%201%20%C3%A9%25"));
        assert_eq!(named(&headers, "x-countersign-scopes"), Some("read write"));
        assert_eq!(named(&headers, "x-countersign-roles"), Some("a%20b c%2Cd"));
        assert_eq!(named(&headers, "x-countersign-kind"), Some("JWT"));
        for option in &headers {
            assert_eq!(option.append_action(), HeaderAppendAction::OverwriteIfExistsOrAdd);
            let value = &option.header.as_ref().unwrap().value;
            assert!(value.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{value}");
        }
    }

    #[test]
    fn what_is_not_set_is_removed_and_nothing_is_in_both_lists() {
        for claims_header in [false, true] {
            let settings = Settings::new("x-countersign-".to_owned(), claims_header, "shop".to_owned());
            let known = on(&settings, &accepted()).ok_response.unwrap();
            let nobody = CheckResponse::decode(&*settings.nobody()).unwrap();
            assert_eq!(nobody.status.unwrap().code, 0);
            let nobody = nobody.ok_response.unwrap();
            for response in [&known, &nobody] {
                let set: Vec<_> =
                    response.headers.iter().map(|option| &option.header.as_ref().unwrap().key).collect();
                let removed = &response.headers_to_remove;
                assert!(set.iter().all(|name| !removed.contains(name)), "{set:?} {removed:?}");
                for of in IDENTITY.into_iter().chain([CLAIMS]) {
                    let name = format!("x-countersign-{of}");
                    assert!(set.contains(&&name) || removed.contains(&name), "{name}");
                    for alike in [
                        format!("x_countersign_{of}"),
                        format!("x-countersign_{of}"),
                        format!("x_countersign-{of}"),
                    ] {
                        assert!(removed.contains(&alike), "{alike}");
                    }
                }
            }
            assert!(nobody.headers.is_empty());
            assert_eq!(named(&known.headers, "x-countersign-claims").is_some(), claims_header);
        }
    }

    /// The answer as Envoy's own proto has it: what to do is a oneof.
    #[derive(Clone, PartialEq, prost::Message)]
    struct AsProxiesReadIt {
        #[prost(message, optional, tag = "1")]
        status: Option<tonic_types::Status>,
        #[prost(oneof = "HttpResponse", tags = "2, 3, 5")]
        http_response: Option<HttpResponse>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    enum HttpResponse {
        #[prost(message, tag = "2")]
        Denied(DeniedHttpResponse),
        #[prost(message, tag = "3")]
        Ok(OkHttpResponse),
        #[prost(message, tag = "5")]
        Error(DeniedHttpResponse),
    }

    #[test]
    fn both_pieces_of_an_answer_are_one_to_a_proxy() {
        let settings = settings();
        let begun = settings.allowed(&accepted().encode_to_vec());
        let bytes = [&*begun, &*settings.always_removed()].concat();
        let read = AsProxiesReadIt::decode(&*bytes).unwrap();
        assert_eq!(read.status.unwrap().code, 0);
        let Some(HttpResponse::Ok(response)) = read.http_response else { panic!("it goes on") };
        assert_eq!(response, on(&settings, &accepted()).ok_response.unwrap());
        assert!(named(&response.headers, "x-countersign-issuer").is_some());
        assert!(response.headers_to_remove.contains(&"x_countersign_issuer".to_owned()));

        let refusal = status::status(Reason::StoreUnavailable, Action::None, None);
        let refused = settings.refused(&refusal, &[], true, false).encode_to_vec();
        let read = AsProxiesReadIt::decode(&*refused).unwrap();
        assert!(matches!(read.http_response, Some(HttpResponse::Error(_))), "the last one counts");
    }

    #[test]
    fn claims_are_metadata_with_their_types() {
        let metadata = on(&settings(), &accepted()).dynamic_metadata.unwrap();
        let Some(Kind::StructValue(claims)) = &metadata.fields["claims"].kind else { panic!() };
        assert_eq!(claims.fields["n"].kind, Some(Kind::NumberValue(7.0)));
        let Some(Kind::StructValue(deep)) = &claims.fields["deep"].kind else { panic!() };
        let Some(Kind::ListValue(list)) = &deep.fields["list"].kind else { panic!() };
        assert_eq!(list.values[1].kind, Some(Kind::NullValue(0)));
    }

    #[test]
    fn no_refusal_allows_and_each_has_its_http_status() {
        for reason in Reason::ALL {
            let refusal = status::status(*reason, Action::None, None);
            let response = settings().refused(&refusal, &["read".to_owned()], true, false);
            let code = response.status.unwrap().code;
            let denied = response.denied_response.unwrap();
            let http = denied.status.unwrap().code;
            let told = if refusal.code() == Code::Unauthenticated {
                (16, 401)
            } else if refusal.code() == Code::PermissionDenied {
                (7, 403)
            } else {
                (14, 503)
            };
            assert_eq!((code, http), told, "{reason}");
            assert_eq!(response.error_response.is_some(), code == 14, "only what is undecided is an error");
            assert_eq!(named(&denied.headers, "retry-after").is_some(), code == 14);
            assert_eq!(named(&denied.headers, "x-countersign-reason"), Some(reason.as_str()));
            assert!(response.ok_response.is_none());
        }
    }

    #[test]
    fn challenges_are_as_rfc_6750_has_them() {
        let challenge = |reason, shown| {
            let refusal = status::status(reason, Action::None, None);
            let scopes = ["read".to_owned(), "wr\"ite".to_owned()];
            let denied = settings().refused(&refusal, &scopes, shown, false).denied_response.unwrap();
            named(&denied.headers, "www-authenticate").unwrap().to_owned()
        };
        assert_eq!(challenge(Reason::Malformed, false), r#"Bearer realm="shop""#);
        assert_eq!(challenge(Reason::Expired, true), r#"Bearer realm="shop", error="invalid_token""#);
        assert_eq!(
            challenge(Reason::InsufficientScope, true),
            r#"Bearer realm="shop", error="insufficient_scope", scope="read write""#
        );
    }

    #[test]
    fn a_grpc_client_is_given_the_details() {
        let refusal = status::status(Reason::Revoked, Action::Reauthenticate, None);
        for is_grpc in [false, true] {
            let denied = settings().refused(&refusal, &[], true, is_grpc).denied_response.unwrap();
            let details = named(&denied.headers, "grpc-status-details-bin");
            assert_eq!(
                details.map(|text| STANDARD_NO_PAD.decode(text).unwrap()),
                is_grpc.then(|| refusal.details().to_vec())
            );
        }
    }

    #[test]
    fn old_proxies_read_the_first_and_new_ones_the_last() {
        let refusal = status::status(Reason::StoreUnavailable, Action::None, None);
        let bytes = settings().refused(&refusal, &[], true, false).encode_to_vec();
        let place = |field: u8| bytes.iter().position(|byte| *byte == field << 3 | 2);
        assert!(place(2) < place(5), "field 2 is written before field 5");
    }
}
