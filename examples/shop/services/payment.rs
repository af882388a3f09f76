//! The payment service: money moves, so it asks for a fully consistent answer on each call. A session that was ended
//! anywhere a moment ago can't pay.

use crate::authenticate::{Authenticator, Demands};
use crate::v1::payment_service_server::PaymentService;
use crate::v1::{PayRequest, PayResponse};
use tonic::{Request, Response, Status};

const DEMANDS: Demands = Demands { scopes: &["payments:write"], fully_consistent: true };

/// Takes money.
#[derive(Debug)]
pub(crate) struct Payments {
    authenticator: Authenticator,
}

impl Payments {
    /// With the sidecar beside it.
    pub(crate) fn new(authenticator: Authenticator) -> Self {
        Self { authenticator }
    }
}

#[tonic::async_trait]
impl PaymentService for Payments {
    async fn pay(&self, request: Request<PayRequest>) -> Result<Response<PayResponse>, Status> {
        let caller = self.authenticator.authenticate(request.metadata(), DEMANDS).await?;
        let PayRequest { order, cents } = request.into_inner();
        let receipt = format!("{} paid {}.{:02} for order {order}", caller.subject, cents / 100, cents % 100);
        Ok(Response::new(PayResponse { receipt }))
    }
}
