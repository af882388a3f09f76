//! The three services. Each is an ordinary tonic server that knows one thing about authentication: where its own
//! sidecar listens.

pub(crate) mod order;
pub(crate) mod payment;
pub(crate) mod user;

use crate::Failure;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

/// A service at work, until dropped.
#[derive(Debug)]
pub(crate) struct Running {
    /// A connection for its clients.
    pub(crate) channel: Channel,
    _serving: AbortOnDropHandle<()>,
}

/// Serves on a free port of loopback.
///
/// # Errors
/// When there is none.
pub(crate) async fn serve(routes: Routes) -> Result<Running, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = Server::builder().add_routes(routes);
    let serving = tokio::spawn(async move {
        if let Err(error) = server.serve_with_incoming(incoming).await {
            tracing::error!(%error, "a service ended");
        }
    });
    Ok(Running { channel: connect(&address).await?, _serving: AbortOnDropHandle::new(serving) })
}

/// Connects to `HOST:PORT` or `unix:/PATH`; reconnects by itself later on.
///
/// # Errors
/// When nobody listens there.
pub(crate) async fn connect(address: &str) -> Result<Channel, Failure> {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri)?.connect_timeout(Duration::from_secs(1));
    Ok(endpoint.connect().await?)
}
