//! `countersign sessions`.

use crate::cli::output::{Output, Tone, printable};
use crate::cli::{Caller, SessionsCommand, YES, client, verify};
use crate::grpc::v1::revoke_request::Target;
use crate::grpc::v1::session_service_client::SessionServiceClient;
use crate::grpc::v1::token_service_client::TokenServiceClient;
use crate::grpc::v1::{ListSessionsRequest, RevokeRequest, Session, SessionRevocation, SubjectRevocation};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Status};

pub(crate) fn run(command: &SessionsCommand, output: &Output) -> u8 {
    match command {
        SessionsCommand::List { subject, caller } => {
            told(client::block_on(list(subject, caller)).flatten(), output, |sessions| {
                show(&sessions, output)
            })
        }
        SessionsCommand::End { session, subject, except, caller } => {
            let target = match (session, subject) {
                (Some(session_id), _) => {
                    Target::Session(SessionRevocation { session_id: session_id.clone(), issuer: None })
                }
                (None, subject) => Target::Subject(SubjectRevocation {
                    subject: subject.clone().unwrap_or_default(),
                    issuer: None,
                    except_session_id: except.clone(),
                    before: None,
                }),
            };
            told(client::block_on(end(target, caller)).flatten(), output, |revision| {
                output.headline(Tone::Good, "ENDED", "");
                output.field("revision", &revision);
            })
        }
    }
}

/// What a conversation came to: an answer, a status, or no sidecar to talk to.
type Asked<T> = Result<Result<T, Status>, String>;

fn told<T>(asked: Asked<T>, output: &Output, show: impl FnOnce(T)) -> u8 {
    match asked {
        Ok(Ok(answer)) => {
            show(answer);
            YES
        }
        Ok(Err(status)) => verify::refused(&status, output),
        Err(why) => output.undecided(&why),
    }
}

fn request<T>(message: T, caller: &Caller) -> Result<Request<T>, String> {
    let mut request = Request::new(message);
    if let Some(file) = &caller.secret_file {
        let secret = std::fs::read_to_string(file)
            .map_err(|error| format!("can't read {}: {error}", file.display()))?;
        let mut value = AsciiMetadataValue::try_from(format!("Bearer {}", secret.trim_end()))
            .map_err(|_| format!("{} holds no secret that fits a header", file.display()))?;
        value.set_sensitive(true);
        request.metadata_mut().insert("authorization", value);
    }
    Ok(request)
}

async fn list(subject: &str, caller: &Caller) -> Asked<Vec<Session>> {
    let channel = client::connect(&caller.target.address, caller.target.timeout).await?;
    let mut client = SessionServiceClient::new(channel);
    let mut sessions = Vec::new();
    let mut page_token = String::new();
    loop {
        let asked = ListSessionsRequest { subject: subject.to_owned(), page_size: 0, page_token };
        match client.list_sessions(request(asked, caller)?).await {
            Ok(answer) => {
                let page = answer.into_inner();
                sessions.extend(page.sessions);
                page_token = page.next_page_token;
            }
            Err(status) => return Ok(Err(status)),
        }
        if page_token.is_empty() {
            return Ok(Ok(sessions));
        }
    }
}

async fn end(target: Target, caller: &Caller) -> Asked<String> {
    let channel = client::connect(&caller.target.address, caller.target.timeout).await?;
    let asked = RevokeRequest { target: Some(target), reason: "command_line".to_owned() };
    let answer = TokenServiceClient::new(channel).revoke(request(asked, caller)?).await;
    Ok(answer.map(|answer| answer.into_inner().revision))
}

fn show(sessions: &[Session], output: &Output) {
    if sessions.is_empty() {
        output.line("no live sessions");
        return;
    }
    output.line(&format!(
        "{:<22}  {:<10}  {:<20}  {:<20}  DEVICE",
        "SESSION", "POLICY", "CREATED", "LAST ACTIVE"
    ));
    for session in sessions {
        let at = |at: &Option<prost_types::Timestamp>| at.as_ref().map(verify::instant).unwrap_or_default();
        let device = session.device.as_ref().map(|device| printable(&device.name)).unwrap_or_default();
        output.line(&format!(
            "{:<22}  {:<10}  {:<20}  {:<20}  {device}",
            session.session_id,
            printable(&session.policy),
            at(&session.created_at),
            at(&session.last_active_at),
        ));
    }
}
