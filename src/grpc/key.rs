//! KeyService.

use crate::grpc::router::Parts;
use crate::grpc::v1::key_service_server::KeyService;
use crate::grpc::v1::{GetJwksRequest, GetJwksResponse};
use std::sync::Arc;
use tonic::{Request, Response, Status};

/// Answers KeyService.
#[derive(Debug)]
pub(super) struct KeyCalls {
    parts: Arc<Parts>,
}

impl KeyCalls {
    pub(super) fn new(parts: Arc<Parts>) -> Self {
        Self { parts }
    }
}

#[tonic::async_trait]
impl KeyService for KeyCalls {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        let signing =
            self.parts.signing.as_ref().ok_or_else(|| {
                Status::unimplemented("this sidecar holds no signing keys; ask one that does")
            })?;
        let jwks = signing.public_jwks();
        Ok(Response::new(GetJwksResponse { jwks_json: jwks.to_string() }))
    }
}
