//! The user service: it knows who may log in, and tells its sidecar. The sidecar keeps the sessions, makes the tokens
//! and takes them back; this service sees neither a key nor a session table.

use crate::authenticate::{Authenticator, Caller, Demands, refusal, status, with_bearer};
use crate::v1::user_service_server::UserService;
use crate::v1::{
    GrantRoleRequest, GrantRoleResponse, KickOutRequest, KickOutResponse, LoginRequest, LogoutOthersRequest,
    LogoutOthersResponse, LogoutRequest, LogoutResponse, RenewRequest, Tokens,
};
use countersign::grpc::v1::revoke_request::Target;
use countersign::grpc::v1::session_service_client::SessionServiceClient;
use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{
    self as sidecar, Attributes, CreateSessionRequest, Device, ListSessionsRequest, RefreshRequest,
    RevokeRequest, SubjectRevocation, UpdateSessionRequest,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

/// An account.
#[derive(Clone, Debug)]
struct Account {
    /// In the clear, for the demonstration. Keep a hash made for passwords, such as Argon2.
    password: &'static str,
    /// Under which of the sidecar's policies its sessions live.
    policy: &'static str,
    roles: Vec<String>,
    scopes: &'static [&'static str],
}

impl Account {
    fn attributes(&self) -> Attributes {
        Attributes {
            roles: self.roles.clone(),
            scopes: self.scopes.iter().map(|&scope| scope.to_owned()).collect(),
            claims_json: String::new(),
        }
    }
}

fn accounts() -> HashMap<String, Account> {
    let shopping: &[&str] = &["orders:write", "payments:write"];
    let account = |name: &str, password, policy, role: &str, scopes| {
        (name.to_owned(), Account { password, policy, roles: vec![role.to_owned()], scopes })
    };
    HashMap::from([
        account("alice", "alice's password", "shop", "customer", shopping),
        account("carol", "carol's password", "one_device", "customer", shopping),
        account("kim", "kim's password", "shop", "child", &["orders:write"]),
        account("root", "root's password", "shop", "admin", &[]),
    ])
}

/// Knows the accounts.
pub(crate) struct Users {
    accounts: Mutex<HashMap<String, Account>>,
    authenticator: Authenticator,
    tokens: TokenServiceClient<Channel>,
    sessions: SessionServiceClient<Channel>,
    /// What the sidecar knows this service by; only with it are sessions opened, listed and ended.
    secret: String,
}

impl Users {
    /// With the sidecar beside it, and what that knows this service by.
    pub(crate) fn new(sidecar: Channel, secret: String) -> Self {
        Self {
            accounts: Mutex::new(accounts()),
            authenticator: Authenticator::new(sidecar.clone()),
            tokens: TokenServiceClient::new(sidecar.clone()),
            sessions: SessionServiceClient::new(sidecar),
            secret,
        }
    }

    /// Who is calling, if that is an administrator at this moment.
    async fn administrator(&self, metadata: &MetadataMap) -> Result<Caller, Status> {
        let demands = Demands { fully_consistent: true, ..Demands::default() };
        let caller = self.authenticator.authenticate(metadata, demands).await?;
        caller.require_role("admin")?;
        Ok(caller)
    }

    /// Ends a subject's sessions, but perhaps one. OK means: durably, and in force in this service's sidecar.
    async fn end_sessions(
        &self,
        subject: String,
        except_session_id: Option<String>,
        reason: &str,
    ) -> Result<(), Status> {
        let target = SubjectRevocation { subject, except_session_id, ..SubjectRevocation::default() };
        let request = RevokeRequest { target: Some(Target::Subject(target)), reason: reason.to_owned() };
        let request = with_bearer(request, &self.secret)?;
        self.tokens.clone().revoke(request).await.map_err(|said| refusal(&said))?;
        Ok(())
    }

    /// Changes what open sessions say about their subject.
    async fn update_sessions(&self, subject: String, attributes: Attributes) -> Result<(), Status> {
        let mut sessions = self.sessions.clone();
        let mut page_token = String::new();
        loop {
            let request = ListSessionsRequest { subject: subject.clone(), page_token, page_size: 0 };
            let request = with_bearer(request, &self.secret)?;
            let page = sessions.list_sessions(request).await.map_err(|said| refusal(&said))?.into_inner();
            for session in page.sessions {
                let attributes = Some(attributes.clone());
                let request = UpdateSessionRequest { session_id: session.session_id, attributes };
                match sessions.update_session(with_bearer(request, &self.secret)?).await {
                    Ok(_) => {}
                    // It ended in the meantime.
                    Err(said) if said.code() == Code::NotFound => {}
                    Err(said) => return Err(refusal(&said)),
                }
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            page_token = page.next_page_token;
        }
    }
}

#[tonic::async_trait]
impl UserService for Users {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<Tokens>, Status> {
        let LoginRequest { name, password, device } = request.into_inner();
        let account = self.accounts.lock().get(&name).cloned();
        let Some(account) = account.filter(|account| account.password == password) else {
            let message = "name or password is wrong";
            return Err(status(Code::Unauthenticated, message, "WRONG_PASSWORD", "REAUTHENTICATE"));
        };
        let request = CreateSessionRequest {
            subject: name,
            policy: account.policy.to_owned(),
            attributes: Some(account.attributes()),
            device: Some(Device { name: device, ..Device::default() }),
            ..CreateSessionRequest::default()
        };
        let request = with_bearer(request, &self.secret)?;
        let opened = self.sessions.clone().create_session(request).await.map_err(|said| refusal(&said))?;
        Ok(Response::new(for_client(opened.into_inner().tokens)))
    }

    async fn renew(&self, request: Request<RenewRequest>) -> Result<Response<Tokens>, Status> {
        let request = RefreshRequest {
            refresh_token: Some(request.into_inner().refresh_token),
            ..RefreshRequest::default()
        };
        let renewed = self.tokens.clone().refresh(request).await.map_err(|said| refusal(&said))?;
        Ok(Response::new(for_client(renewed.into_inner().tokens)))
    }

    async fn logout(&self, request: Request<LogoutRequest>) -> Result<Response<LogoutResponse>, Status> {
        // Whoever holds the token may take it back; no right of this service's is needed.
        let target = Some(Target::Token(request.into_inner().refresh_token));
        let request = RevokeRequest { target, reason: "logout".to_owned() };
        self.tokens.clone().revoke(request).await.map_err(|said| refusal(&said))?;
        Ok(Response::new(LogoutResponse {}))
    }

    async fn logout_others(
        &self,
        request: Request<LogoutOthersRequest>,
    ) -> Result<Response<LogoutOthersResponse>, Status> {
        let demands = Demands { fully_consistent: true, ..Demands::default() };
        let caller = self.authenticator.authenticate(request.metadata(), demands).await?;
        self.end_sessions(caller.subject, Some(caller.session), "logout_others").await?;
        Ok(Response::new(LogoutOthersResponse {}))
    }

    async fn grant_role(
        &self,
        request: Request<GrantRoleRequest>,
    ) -> Result<Response<GrantRoleResponse>, Status> {
        self.administrator(request.metadata()).await?;
        let GrantRoleRequest { name, role } = request.into_inner();
        // The account first: a login from here on has the role, and those before are found in the list. A login that
        // read the account before and opens its session after the list was read keeps the old roles; where accounts
        // are in a database, read and open under its row lock.
        let attributes = {
            let mut accounts = self.accounts.lock();
            let account = accounts.get_mut(&name).ok_or_else(|| Status::not_found("no such account"))?;
            if !account.roles.contains(&role) {
                account.roles.push(role);
            }
            account.attributes()
        };
        self.update_sessions(name, attributes).await?;
        Ok(Response::new(GrantRoleResponse {}))
    }

    async fn kick_out(&self, request: Request<KickOutRequest>) -> Result<Response<KickOutResponse>, Status> {
        self.administrator(request.metadata()).await?;
        self.end_sessions(request.into_inner().name, None, "kicked_out").await?;
        Ok(Response::new(KickOutResponse {}))
    }
}

/// What the client gets of what the sidecar made.
fn for_client(tokens: Option<sidecar::Tokens>) -> Tokens {
    let sidecar::Tokens { access_token, refresh_token, refresh_after, .. } = tokens.unwrap_or_default();
    let renew_in = refresh_after.and_then(|at| SystemTime::try_from(at).ok()).map(from_now);
    Tokens { access_token, refresh_token, renew_in: renew_in.and_then(|after| after.try_into().ok()) }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the sidecar's rooms take time from its Clock; a service has its own"
)]
fn from_now(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::now()).unwrap_or_default()
}
