//! How the commands reach a running sidecar.

use std::future::Future;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// Connects to `HOST:PORT` or `unix:/PATH`.
///
/// # Errors
/// A sentence for people.
pub(crate) async fn connect(address: &str, timeout: Duration) -> Result<Channel, String> {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|_| format!("{address} is no address; use HOST:PORT or unix:/PATH"))?
        .connect_timeout(timeout)
        .timeout(timeout);
    endpoint.connect().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("no sidecar answers at {address}{cause}; is it running, and is this its listener?")
    })
}

/// Runs one command's conversation.
///
/// # Errors
/// When the system gives no runtime.
pub(crate) fn block_on<T>(conversation: impl Future<Output = T>) -> Result<T, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(conversation))
        .map_err(|error| format!("can't start: {error}"))
}
