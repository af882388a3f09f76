//! The way to the sidecar beside this service, and what its refusals mean.

use countersign::grpc::v1::token_service_client::TokenServiceClient;
use countersign::grpc::v1::{VerifyRequest, VerifyResponse};
use std::time::Duration;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// All waiting and repeating ends here, or where the caller's own deadline does: tonic then drops the call with all it awaits.
const DEADLINE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
/// How often "can't tell" is asked.
const ATTEMPTS: u32 = 3;

/// To `127.0.0.1:50051` or `unix:/run/countersign/api.sock`. Connects when it is first needed.
pub(crate) fn dial(address: &str) -> Result<TokenServiceClient<Channel>, Error> {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    Ok(TokenServiceClient::new(Endpoint::from_shared(uri)?.connect_lazy()))
}

/// The claims of an accepted token, or what the service answers instead: the sidecar's own words, with the details that tell
/// a client to refresh, to log in, or when to try again. All else is "can't tell", never "yes".
pub(crate) async fn verify(
    sidecar: &TokenServiceClient<Channel>,
    request: VerifyRequest,
) -> Result<VerifyResponse, Status> {
    let can_t_tell = || Status::unavailable("can't tell who is calling; try again");
    let answer = tokio::time::timeout(DEADLINE, persistently(sidecar, request)).await;
    answer.map_err(|_| can_t_tell())?.map_err(|said| match (said.code(), reason(&said).as_deref()) {
        (Code::Unauthenticated | Code::Unavailable, Some(_)) => said,
        (Code::PermissionDenied, Some("INSUFFICIENT_SCOPE")) => said,
        _ => can_t_tell(),
    })
}

/// tonic neither waits for a server nor repeats, so both stand here: a sidecar that can't be reached starts or restarts, and
/// is waited for; one that can't tell is asked again; a "no" has other codes and is final.
async fn persistently(
    sidecar: &TokenServiceClient<Channel>,
    request: VerifyRequest,
) -> Result<VerifyResponse, Status> {
    let mut attempt = 0;
    loop {
        let said = match sidecar.clone().verify(request.clone()).await {
            Ok(accepted) => return Ok(accepted.into_inner()),
            Err(said) => said,
        };
        attempt += u32::from(reason(&said).is_some());
        if said.code() != Code::Unavailable || attempt == ATTEMPTS {
            return Err(said);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn reason(said: &Status) -> Option<String> {
    said.get_details_error_info().filter(|info| info.domain == "countersign").map(|info| info.reason)
}
