//! Where the session room answers what the verify room asks: neither knows the other.

use crate::revocation::StoreError;
use crate::session::{Found, Reader, session_claims};
use crate::token::SessionId;
use crate::verify::{LiveSession, Reading, SessionReader, SessionState};

/// Reads sessions for verification.
#[derive(Debug)]
pub(super) struct SessionsForVerify(pub(super) Reader);

#[tonic::async_trait]
impl SessionReader for SessionsForVerify {
    async fn read(&self, id: SessionId, touch: bool) -> Result<Reading, StoreError> {
        let (found, head) = self.0.read(id, touch).await?;
        let state = match found {
            Found::Ended => SessionState::Ended,
            Found::Idle => SessionState::Idle,
            Found::Live(live) => {
                let claims = session_claims(&self.0.issuer, &live.policy, &live.record)?;
                let record = live.record;
                let carries = |attribute: &str| live.policy.carries(attribute);
                SessionState::Live(Box::new(LiveSession {
                    id,
                    policy: record.policy.clone(),
                    audiences: live.policy.audience().to_vec(),
                    claims_json: claims,
                    created_at: record.created_at,
                    expires_at: record.ends_at(),
                    touch_at: live.touch_at,
                    claims_version: record.attributes_version,
                    scopes: if carries("scope") { record.attributes.scopes } else { Vec::new() },
                    roles: if carries("roles") { record.attributes.roles } else { Vec::new() },
                    subject: record.subject,
                    client_id: record.client_id,
                }))
            }
        };
        Ok(Reading { state, head })
    }
}
