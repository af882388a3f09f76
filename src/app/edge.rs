//! What the edge is told of the configuration.

use crate::config::{self, Config};
use crate::grpc::{self, Rpc};
use crate::ops::Health;
use tonic::service::Routes;

pub(super) fn edge_settings(config: &Config) -> grpc::Settings {
    let served = config.api.serve.iter().map(|rpc| match rpc {
        config::Rpc::Verify => Rpc::Verify,
        config::Rpc::Refresh => Rpc::Refresh,
        config::Rpc::Revoke => Rpc::Revoke,
        config::Rpc::Sessions => Rpc::Sessions,
        config::Rpc::Jwks => Rpc::Jwks,
    });
    grpc::Settings {
        served: served.collect(),
        max_in_flight: config.api.max_in_flight.div_ceil(config.api.workers.max(1)),
        deadline: config.api.default_deadline,
        max_waiting_per_stream: 64,
    }
}

/// The full names of the services served, for health.
pub(super) fn served_names(config: &Config) -> Vec<&'static str> {
    let serves = |rpcs: &[config::Rpc]| rpcs.iter().any(|rpc| config.api.serve.contains(rpc));
    let mut names = Vec::new();
    if serves(&[config::Rpc::Verify, config::Rpc::Refresh, config::Rpc::Revoke]) {
        names.push("countersign.v1.TokenService");
    }
    if serves(&[config::Rpc::Sessions]) {
        names.push("countersign.v1.SessionService");
    }
    if serves(&[config::Rpc::Jwks]) {
        names.push("countersign.v1.KeyService");
    }
    names
}

/// What is not ours: health, and the protos for whoever asks. Python's and older Go clients still ask in v1alpha.
pub(super) fn rest(health: &Health, reflection: bool) -> Routes {
    let mut rest = Routes::new(health.server());
    if reflection {
        let builder = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(grpc::v1::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        if let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) {
            rest = rest.add_service(v1).add_service(v1alpha);
        }
    }
    rest
}
