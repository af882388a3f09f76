//! SessionService. Every call needs a named caller with the right to it.

use crate::grpc::callers::{Peer, Right};
use crate::grpc::router::Parts;
use crate::grpc::token::tokens_message;
use crate::grpc::v1::session_service_server::SessionService;
use crate::grpc::v1::{
    self, CreateSessionRequest, CreateSessionResponse, GetSessionRequest, ListSessionsRequest,
    ListSessionsResponse, UpdateSessionRequest, UpdateSessionResponse,
};
use crate::grpc::{status, timestamp};
use crate::session::{Attributes, Device, Login, SessionRecord, Sessions};
use crate::token::{Action, Reason, SessionId};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Answers SessionService.
#[derive(Debug)]
pub(super) struct SessionCalls {
    parts: Arc<Parts>,
}

impl SessionCalls {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }

    /// The caller's name, its message, and the room; or the refusal.
    fn admit<T>(&self, right: Right, request: Request<T>) -> Result<(Arc<str>, T, &Sessions), Status> {
        let (metadata, extensions, message) = request.into_parts();
        let peer = extensions.get::<Arc<Peer>>().cloned().unwrap_or_default();
        let caller = self.parts.allow(right, &peer, &metadata.into_headers())?;
        let sessions = self.parts.sessions.as_deref();
        let sessions =
            sessions.ok_or_else(|| status::status(Reason::NoSessionsInPolicy, Action::None, None))?;
        Ok((caller, message, sessions))
    }
}

#[tonic::async_trait]
impl SessionService for SessionCalls {
    async fn create_session(
        &self,
        request: Request<CreateSessionRequest>,
    ) -> Result<Response<CreateSessionResponse>, Status> {
        let (caller, message, sessions) = self.admit(Right::CreateSessions, request)?;
        let client_id = if message.client_id.is_empty() { caller.to_string() } else { message.client_id };
        let login = Login {
            subject: message.subject,
            policy: (!message.policy.is_empty()).then_some(message.policy),
            client_id,
            device: message.device.map(device).unwrap_or_default(),
            attributes: message.attributes.map(attributes).unwrap_or_default(),
        };
        let opened = sessions.create(login).await?;
        tracing::info!(
            target: "countersign::audit",
            caller = &*caller,
            session = opened.record.as_ref().map(|record| tracing::field::display(record.id)),
            evicted = opened.evicted.len(),
            "session opened"
        );
        Ok(Response::new(CreateSessionResponse {
            session: opened.record.map(session_message),
            tokens: Some(tokens_message(opened.tokens)),
            evicted_session_ids: opened.evicted.iter().map(SessionId::to_string).collect(),
            revision: opened.revision.to_string(),
        }))
    }

    async fn get_session(
        &self,
        request: Request<GetSessionRequest>,
    ) -> Result<Response<v1::Session>, Status> {
        let (_, message, sessions) = self.admit(Right::ReadSessions, request)?;
        let record = sessions.get(session_id(&message.session_id)?).await?;
        Ok(Response::new(session_message(record)))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let (_, message, sessions) = self.admit(Right::ReadSessions, request)?;
        let page_size = match u32::try_from(message.page_size) {
            Ok(0) => 100,
            Ok(size) if size <= 1000 => size,
            _ => return Err(status::bad_call("page_size", "use 1 to 1000, or 0 for the default")),
        };
        let page = sessions.list(&message.subject, page_size, &message.page_token).await?;
        Ok(Response::new(ListSessionsResponse {
            sessions: page.records.into_iter().map(session_message).collect(),
            next_page_token: page.next.unwrap_or_default(),
        }))
    }

    async fn update_session(
        &self,
        request: Request<UpdateSessionRequest>,
    ) -> Result<Response<UpdateSessionResponse>, Status> {
        let (caller, message, sessions) = self.admit(Right::UpdateSessions, request)?;
        let id = session_id(&message.session_id)?;
        let attributes = message
            .attributes
            .map(attributes)
            .ok_or_else(|| status::bad_call("attributes", "set them; an empty message clears them"))?;
        let (record, revision) = sessions.update(id, attributes).await?;
        tracing::info!(target: "countersign::audit", caller = &*caller, session = %id, %revision, "session updated");
        Ok(Response::new(UpdateSessionResponse {
            session: Some(session_message(record)),
            revision: revision.to_string(),
        }))
    }
}

/// An id that can't be one of ours names no session.
fn session_id(text: &str) -> Result<SessionId, Status> {
    if text.is_empty() {
        return Err(status::bad_call("session_id", "set it"));
    }
    text.parse().map_err(|_| status::status(Reason::NoSuchSession, Action::None, None))
}

fn attributes(message: v1::Attributes) -> Attributes {
    Attributes { roles: message.roles, scopes: message.scopes, claims_json: message.claims_json }
}

fn device(message: v1::Device) -> Device {
    Device { name: message.name, ip_address: message.ip_address, user_agent: message.user_agent }
}

fn session_message(record: SessionRecord) -> v1::Session {
    v1::Session {
        session_id: record.id.to_string(),
        idle_expires_at: Some(timestamp(record.ends_at())),
        created_at: Some(timestamp(record.created_at)),
        last_active_at: Some(timestamp(record.last_active_at)),
        absolute_expires_at: Some(timestamp(record.absolute_end)),
        subject: record.subject,
        policy: record.policy,
        client_id: record.client_id,
        device: Some(v1::Device {
            name: record.device.name,
            ip_address: record.device.ip_address,
            user_agent: record.device.user_agent,
        }),
        attributes: Some(v1::Attributes {
            roles: record.attributes.roles,
            scopes: record.attributes.scopes,
            claims_json: record.attributes.claims_json,
        }),
        attributes_version: record.attributes_version,
    }
}
