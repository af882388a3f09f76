//! A client that nobody logs out: it renews by itself, in time, and once more whenever a service tells it to.

use crate::authenticate::with_bearer;
use crate::v1::user_service_client::UserServiceClient;
use crate::v1::{LoginRequest, LogoutRequest, RenewRequest, Tokens};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

/// How long to wait at least between two renewals, and before asking again where one could not be decided. A real
/// client waits longer each time, and not to the millisecond as long as all the others.
const PAUSE: Duration = Duration::from_millis(250);

/// Someone who is logged in on one device.
#[derive(Debug)]
pub(crate) struct Client {
    held: Arc<Held>,
    _renewing: AbortOnDropHandle<()>,
}

/// What the device keeps.
#[derive(Debug)]
struct Held {
    user: UserServiceClient<Channel>,
    tokens: Mutex<Tokens>,
    renewals: AtomicU32,
}

impl Client {
    /// Logs in, and from then on renews in the background.
    ///
    /// # Errors
    /// The user service's answer.
    pub(crate) async fn login(
        mut user: UserServiceClient<Channel>,
        name: &str,
        password: &str,
        device: &str,
    ) -> Result<Self, Status> {
        let request =
            LoginRequest { name: name.to_owned(), password: password.to_owned(), device: device.to_owned() };
        let tokens = user.login(request).await?.into_inner();
        let held = Arc::new(Held { user, tokens: Mutex::new(tokens), renewals: AtomicU32::new(0) });
        let renewing = tokio::spawn(keep_renewed(Arc::clone(&held)));
        Ok(Self { held, _renewing: AbortOnDropHandle::new(renewing) })
    }

    /// What goes along with each call at this moment.
    pub(crate) fn access_token(&self) -> String {
        self.held.tokens.lock().access_token.clone()
    }

    /// What the device guards best.
    pub(crate) fn refresh_token(&self) -> String {
        self.held.tokens.lock().refresh_token.clone()
    }

    /// A request as this client.
    ///
    /// # Errors
    /// As [`with_bearer`].
    pub(crate) fn request<T>(&self, message: T) -> Result<Request<T>, Status> {
        with_bearer(message, &self.access_token())
    }

    /// How many times it has renewed.
    pub(crate) fn renewals(&self) -> u32 {
        self.held.renewals.load(Ordering::Relaxed)
    }

    /// Renews now.
    ///
    /// # Errors
    /// The user service's answer: UNAUTHENTICATED means logged out, UNAVAILABLE means try again.
    pub(crate) async fn renew(&self) -> Result<(), Status> {
        self.held.renew().await
    }

    /// Does what a refusal says: renews if its action is REFRESH. The call is then to be made once more, and only once.
    ///
    /// # Errors
    /// The refusal itself where renewing does not help, or the renewal's own.
    pub(crate) async fn renew_if_told(&self, refused: &Status) -> Result<(), Status> {
        if action(refused) == "REFRESH" { self.renew().await } else { Err(refused.clone()) }
    }

    /// Logs this device out.
    ///
    /// # Errors
    /// The user service's answer.
    pub(crate) async fn logout(&self) -> Result<(), Status> {
        let request = LogoutRequest { refresh_token: self.refresh_token() };
        self.held.user.clone().logout(request).await.map(drop)
    }
}

impl Held {
    /// Two at once do no harm: within the policy's grace both get the same successor.
    async fn renew(&self) -> Result<(), Status> {
        let refresh_token = self.tokens.lock().refresh_token.clone();
        let renewed = self.user.clone().renew(RenewRequest { refresh_token }).await?.into_inner();
        *self.tokens.lock() = renewed;
        self.renewals.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn renew_in(&self) -> Option<Duration> {
        self.tokens.lock().renew_in.and_then(|wait| wait.try_into().ok())
    }
}

/// Renews whenever it is time, until there is nothing left to renew.
async fn keep_renewed(held: Arc<Held>) {
    while let Some(wait) = held.renew_in() {
        tokio::time::sleep(wait.max(PAUSE)).await;
        while let Err(refused) = held.renew().await {
            if refused.code() == Code::Unauthenticated {
                // Logged out: a real client shows its login page.
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Why a call was refused.
pub(crate) fn reason(refused: &Status) -> String {
    refused.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// What a refusal asks the client to do.
pub(crate) fn action(refused: &Status) -> String {
    let details = refused.get_error_details();
    details.error_info().and_then(|info| info.metadata.get("action")).cloned().unwrap_or_default()
}
