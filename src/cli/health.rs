//! `countersign health`.

use crate::cli::output::{Output, Tone};
use crate::cli::{HealthArgs, NO, YES, client};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub(crate) fn run(args: &HealthArgs, output: &Output) -> u8 {
    let asked = client::block_on(async {
        let channel = client::connect(&args.address, args.timeout).await?;
        let request = HealthCheckRequest { service: args.service.clone() };
        let answer = HealthClient::new(channel).check(request).await;
        answer.map(|answer| answer.into_inner().status()).map_err(|status| status.message().to_owned())
    });
    match asked.flatten() {
        Ok(ServingStatus::Serving) => {
            output.headline(Tone::Good, "SERVING", &args.service);
            YES
        }
        Ok(_) => {
            output.headline(Tone::Bad, "NOT SERVING", &args.service);
            NO
        }
        Err(why) => output.undecided(&why),
    }
}
