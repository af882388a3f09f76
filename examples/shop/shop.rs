//! The shop itself: its three services, open, and the steps that the scenes are made of.

use crate::Failure;
use crate::authenticate::{Authenticator, with_bearer};
use crate::client::Client;
use crate::services::{self, Running, connect, order::Orders, payment::Payments, user::Users};
use crate::sidecars::Addresses;
use crate::table::{Answer, Expected, Table};
use crate::v1::order_service_client::OrderServiceClient;
use crate::v1::order_service_server::OrderServiceServer;
use crate::v1::payment_service_client::PaymentServiceClient;
use crate::v1::payment_service_server::PaymentServiceServer;
use crate::v1::user_service_client::UserServiceClient;
use crate::v1::user_service_server::UserServiceServer;
use crate::v1::{PayRequest, PlaceOrderRequest, RenewRequest, SalesReportRequest};
use std::future::Future;
use std::time::{Duration, Instant};
use tonic::service::Routes;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// How long a revocation may take to reach the order service before the scene is called a failure.
const PROPAGATION: Duration = Duration::from_secs(2);

/// The open shop: its services run until it is dropped.
#[derive(Debug)]
pub(crate) struct Shop {
    user: Running,
    order: Running,
    payment: Running,
}

impl Shop {
    /// Opens the services, each with its own sidecar and none other.
    ///
    /// # Errors
    /// When a sidecar can't be reached or a port not be had.
    pub(crate) async fn open(sidecars: &Addresses) -> Result<Self, Failure> {
        let users = Users::new(connect(&sidecars.user).await?, sidecars.secret.clone());
        let orders = Orders::new(Authenticator::new(connect(&sidecars.order).await?));
        let payments = Payments::new(Authenticator::new(connect(&sidecars.payment).await?));
        Ok(Self {
            user: services::serve(Routes::new(UserServiceServer::new(users))).await?,
            order: services::serve(Routes::new(OrderServiceServer::new(orders))).await?,
            payment: services::serve(Routes::new(PaymentServiceServer::new(payments))).await?,
        })
    }

    /// A client of the user service.
    pub(crate) fn user(&self) -> UserServiceClient<Channel> {
        UserServiceClient::new(self.user.channel.clone())
    }

    /// A client of the order service.
    pub(crate) fn order_service(&self) -> OrderServiceClient<Channel> {
        OrderServiceClient::new(self.order.channel.clone())
    }

    /// Somebody logs in on a device.
    ///
    /// # Errors
    /// When that fails: the scene can't go on.
    pub(crate) async fn log_in(
        &self,
        table: &mut Table,
        name: &str,
        device: &str,
    ) -> Result<Client, Failure> {
        let password = format!("{name}'s password");
        let begun = Instant::now();
        let client = Client::login(self.user(), name, &password, device).await;
        let said = client.as_ref().map(|_| String::new()).map_err(Clone::clone);
        let answer = Answer { service: "user", said, took: begun.elapsed() };
        table.row(&format!("{name} logs in on the {device}"), Expected::Accepted, &answer)?;
        Ok(client?)
    }

    /// Renews with a refresh token, whoever holds it.
    ///
    /// # Errors
    /// The user service's answer.
    pub(crate) async fn renews_with(&self, refresh_token: String) -> Result<(), Status> {
        self.user().renew(RenewRequest { refresh_token }).await.map(drop)
    }

    /// A client orders.
    pub(crate) async fn orders(&self, client: &Client) -> Answer {
        self.orders_with(&client.access_token()).await
    }

    /// Someone orders with this token.
    pub(crate) async fn orders_with(&self, token: &str) -> Answer {
        let order = PlaceOrderRequest { article: "a lamp".to_owned() };
        let call = async {
            let placed = self.order_service().place_order(with_bearer(order, token)?).await?;
            Ok(format!("order {}", placed.into_inner().number))
        };
        answer_in_words("order", call).await
    }

    /// A client asks for the sales report.
    pub(crate) async fn reports(&self, client: &Client) -> Answer {
        let call = async {
            let report = self.order_service().sales_report(client.request(SalesReportRequest {})?).await?;
            Ok(format!("{} orders", report.into_inner().orders))
        };
        answer_in_words("order", call).await
    }

    /// A client pays.
    pub(crate) async fn pays(&self, client: &Client) -> Answer {
        self.pays_with(&client.access_token()).await
    }

    async fn pays_with(&self, token: &str) -> Answer {
        let mut payments = PaymentServiceClient::new(self.payment.channel.clone());
        let call = async {
            let paid = payments.pay(with_bearer(PayRequest { order: 1, cents: 1999 }, token)?).await?;
            Ok(paid.into_inner().receipt)
        };
        answer_in_words("payment", call).await
    }

    /// Orders again and again until the token is refused: the order service hears of it a moment later. The answer's
    /// time is counted from `since`.
    pub(crate) async fn refused_with(&self, token: &str, since: Instant) -> Answer {
        loop {
            let answer = self.orders_with(token).await;
            let refused = answer.said.as_ref().is_err_and(|refused| refused.code() == Code::Unauthenticated);
            if refused || since.elapsed() > PROPAGATION {
                return Answer { took: since.elapsed(), ..answer };
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Payment refuses at once, order as soon as it hears of it; both are asked at the same time.
    pub(crate) async fn refused_everywhere(
        &self,
        table: &mut Table,
        who: &str,
        token: &str,
        since: Instant,
    ) -> Result<(), Failure> {
        let (paid, ordered) = tokio::join!(self.pays_with(token), self.refused_with(token, since));
        table.row(&format!("{who} pays: refused at once"), Expected::denied("REVOKED"), &paid)?;
        table.row(&format!("{who} orders: refused since"), Expected::denied("REVOKED"), &ordered)?;
        Ok(())
    }
}

/// What a service answers, and after how long.
pub(crate) async fn answer<T>(
    service: &'static str,
    call: impl Future<Output = Result<T, Status>>,
) -> Answer {
    answer_in_words(service, async { call.await.map(|_| String::new()) }).await
}

async fn answer_in_words(
    service: &'static str,
    call: impl Future<Output = Result<String, Status>>,
) -> Answer {
    let begun = Instant::now();
    let said = call.await;
    Answer { service, said, took: begun.elapsed() }
}
