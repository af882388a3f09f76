//! The order service: many calls, little at stake in each, so it verifies at minimum latency: in the sidecar's memory.

use crate::authenticate::{Authenticator, Demands};
use crate::v1::order_service_server::OrderService;
use crate::v1::{PlaceOrderRequest, PlaceOrderResponse, SalesReportRequest, SalesReportResponse};
use std::sync::atomic::{AtomicU64, Ordering};
use tonic::{Request, Response, Status};

/// Takes orders.
#[derive(Debug)]
pub(crate) struct Orders {
    authenticator: Authenticator,
    placed: AtomicU64,
}

impl Orders {
    /// With the sidecar beside it.
    pub(crate) fn new(authenticator: Authenticator) -> Self {
        Self { authenticator, placed: AtomicU64::new(0) }
    }
}

#[tonic::async_trait]
impl OrderService for Orders {
    async fn place_order(
        &self,
        request: Request<PlaceOrderRequest>,
    ) -> Result<Response<PlaceOrderResponse>, Status> {
        let demands = Demands { scopes: &["orders:write"], ..Demands::default() };
        self.authenticator.authenticate(request.metadata(), demands).await?;
        let number = self.placed.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Response::new(PlaceOrderResponse { number }))
    }

    async fn sales_report(
        &self,
        request: Request<SalesReportRequest>,
    ) -> Result<Response<SalesReportResponse>, Status> {
        let caller = self.authenticator.authenticate(request.metadata(), Demands::default()).await?;
        caller.require_role("staff")?;
        Ok(Response::new(SalesReportResponse { orders: self.placed.load(Ordering::Relaxed) }))
    }
}
