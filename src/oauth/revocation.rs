//! Revocation at an issuer (RFC 7009), after the denial is in force here.

use crate::oauth::client::{Answer, Client};
use crate::verify::{IssuerFailed, RevocationRelay};
use http::StatusCode;
use serde::Deserialize;

/// Tells one issuer's revocation endpoint.
#[derive(Debug)]
pub struct Relay {
    client: Client,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}

impl Relay {
    /// With this client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

#[tonic::async_trait]
impl RevocationRelay for Relay {
    async fn revoke(&self, token: &str) -> Result<(), IssuerFailed> {
        let issuer = self.client.issuer();
        match self.client.post(&[("token", token), ("token_type_hint", "access_token")]).await {
            // Also for a token that it doesn't know (RFC 7009 §2.2).
            Ok(Answer { status: StatusCode::OK, .. }) => Ok(()),
            // What can't be revoked there, such as a JWT, is denied here all the same (RFC 7009 §2.2.1).
            Ok(Answer { status: StatusCode::BAD_REQUEST, body })
                if serde_json::from_slice::<Refused>(&body)
                    .is_ok_and(|refused| refused.error == "unsupported_token_type") =>
            {
                tracing::debug!(%issuer, "the issuer revokes no tokens of this kind; it is denied here alone");
                Ok(())
            }
            Ok(Answer { status, .. }) => {
                tracing::warn!(%issuer, %status, "a revocation was refused by the issuer; check its client and url");
                Err(IssuerFailed)
            }
            Err(error) => {
                tracing::warn!(
                    %issuer,
                    error = &error as &dyn std::error::Error,
                    "the issuer could not be told of a revocation"
                );
                Err(IssuerFailed)
            }
        }
    }
}
