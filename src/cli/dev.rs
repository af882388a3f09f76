//! `countersign serve --dev`: everything in a temporary directory of mode 0700, loopback only, every right granted to
//! everyone, and the exact commands to try it.

use crate::app::App;
use crate::cli::client;
use crate::cli::output::{Output, Tone};
use crate::clock::Clock;
use crate::grpc::v1::session_service_client::SessionServiceClient;
use crate::grpc::v1::{Attributes, CreateSessionRequest, Device};
use crate::keys::{KeyFile, NewKey, SigningAlgorithm};
use crate::token::random_bytes;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

/// The directory of a development run; removed with everything in it when dropped.
#[derive(Debug)]
pub struct Home {
    directory: PathBuf,
}

impl Home {
    /// Makes the directory and fresh keys.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn new() -> Result<Self, String> {
        let random = random_bytes::<8>().map_err(|error| error.to_string())?;
        let name =
            random.iter().fold("countersign-dev-".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        let home = Self { directory: std::env::temp_dir().join(name) };
        let failed =
            |error: &dyn std::fmt::Display| format!("can't prepare {}: {error}", home.directory.display());
        DirBuilder::new().mode(0o700).create(&home.directory).map_err(|error| failed(&error))?;
        let secret = random_bytes::<32>().map_err(|error| failed(&error))?;
        std::fs::write(home.directory.join("developer.secret"), URL_SAFE_NO_PAD.encode(secret))
            .map_err(|error| failed(&error))?;
        let now = Clock::system().now().judged;
        for (file, new) in
            [("signing.json", NewKey::Signing(SigningAlgorithm::EdDsa)), ("handles.json", NewKey::Handles)]
        {
            let made = KeyFile::generate(new, now).and_then(|keys| keys.create(&home.directory.join(file)));
            made.map_err(|error| failed(&error))?;
        }
        Ok(home)
    }

    /// The configuration, as settings.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        let directory = self.directory.display();
        let settings = [
            "api.tcp=127.0.0.1:50051".to_owned(),
            "api.serve=[verify, refresh, revoke, sessions, jwks, check]".to_owned(),
            "ops.address=127.0.0.1:9090".to_owned(),
            "drain.grace=0s".to_owned(),
            "drain.deadline=2s".to_owned(),
            format!("store=sqlite:{directory}/store.db"),
            "own.issuer=https://countersign.example.com".to_owned(),
            format!("own.signing_keys={directory}/signing.json"),
            format!("own.handle_keys={directory}/handles.json"),
            "own.policies={low: {}, medium: {}, high: {}}".to_owned(),
            "own.default_policy=medium".to_owned(),
            // Everyone may do everything; this caller only says that somebody may.
            format!(
                "callers=[{{name: developer, secret_file: {directory}/developer.secret, may: [sessions, revoke]}}]"
            ),
            "log.level=warn".to_owned(),
        ];
        settings.to_vec()
    }

    /// Opens a session as soon as the sidecar is ready, and says what can be done with it.
    pub(crate) fn greet(&self, app: &App, output: &Output) -> impl Future<Output = ()> + use<> {
        let address = app.api_addresses().first().cloned().unwrap_or_default();
        let (ops, readiness) = (app.ops_address(), app.readiness());
        let output = output.clone();
        async move {
            if !readiness.reached().await {
                return;
            }
            match login(&address).await {
                Ok(tokens) => explain(&tokens, &address, &ops.to_string(), &output),
                Err(why) => {
                    output.undecided(&why);
                }
            }
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What can't be removed stays in the system's temporary directory, readable by its owner alone.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// What a session's first tokens are.
struct FirstTokens {
    session: String,
    access: String,
    refresh: String,
}

async fn login(address: &str) -> Result<FirstTokens, String> {
    let channel = client::connect(address, Duration::from_secs(5)).await?;
    let request = CreateSessionRequest {
        subject: "alice".to_owned(),
        client_id: "shop".to_owned(),
        device: Some(Device { name: "this terminal".to_owned(), ..Device::default() }),
        attributes: Some(Attributes {
            roles: vec!["customer".to_owned()],
            scopes: vec!["orders:read".to_owned(), "orders:write".to_owned()],
            claims_json: String::new(),
        }),
        ..CreateSessionRequest::default()
    };
    let opened = SessionServiceClient::new(channel).create_session(request).await;
    let opened = opened.map_err(|status| status.message().to_owned())?.into_inner();
    let tokens = opened.tokens.unwrap_or_default();
    Ok(FirstTokens {
        session: opened.session.unwrap_or_default().session_id,
        access: tokens.access_token,
        refresh: tokens.refresh_token,
    })
}

fn explain(tokens: &FirstTokens, address: &str, ops: &str, output: &Output) {
    let program =
        std::env::current_exe().map_or_else(|_| "countersign".to_owned(), |path| path.display().to_string());
    let FirstTokens { session, access, refresh } = tokens;
    let at = if address == "127.0.0.1:50051" { String::new() } else { format!(" --address {address}") };
    output.headline(
        Tone::Unsure,
        "DEVELOPMENT MODE",
        "fresh keys, every right to every caller, and all is forgotten at the end. Never serve users with this.",
    );
    output.line(&format!(
        "\n  api     {address}   gRPC: countersign.v1, health, reflection\
         \n  ops     http://{ops}   /livez /readyz /metrics /.well-known/jwks.json\
         \n\nalice is logged in. Her access token (15 minutes) and her refresh token; paste both lines into another terminal:\
         \n\nACCESS={access}\
         \nREFRESH={refresh}\
         \n\nThere, try:\
         \n\n  {program} verify{at} $ACCESS\
         \n  {program} verify{at} --scope orders:write --fully-consistent $ACCESS\
         \n  {program} inspect $REFRESH\
         \n  {program} sessions list{at} alice\
         \n  {program} sessions end{at} {session}\
         \n  {program} verify{at} $ACCESS\
         \n\nThe last one is refused: alice was logged out the line before. Ctrl-C ends the sidecar."
    ));
}
