//! What the edge is told of the configuration.

use crate::config::{self, Config};
use crate::grpc::{self, Rpc, check};
use crate::ops::Health;
use crate::verify::{Encode, EncodeForProxies};
use std::sync::Arc;
use tonic::service::Routes;

pub(super) fn edge_settings(config: &Config) -> grpc::Settings {
    let served = config.api.serve.iter().map(|rpc| match rpc {
        config::Rpc::Verify => Rpc::Verify,
        config::Rpc::Refresh => Rpc::Refresh,
        config::Rpc::Revoke => Rpc::Revoke,
        config::Rpc::Sessions => Rpc::Sessions,
        config::Rpc::Jwks => Rpc::Jwks,
        config::Rpc::Check => Rpc::Check,
    });
    grpc::Settings {
        served: served.collect(),
        max_in_flight: config.api.max_in_flight.div_ceil(config.api.workers.max(1)),
        deadline: config.api.default_deadline,
        max_waiting_per_stream: 64,
        check: check_told(&config.ext_authz),
    }
}

/// How answers are made, once for each accepted credential.
pub(super) fn encode(config: &Config) -> Encode {
    let told = check_told(&config.ext_authz).settings;
    let answers_proxies = config.api.serve.contains(&config::Rpc::Check);
    Encode {
        answer: grpc::encode,
        for_proxies: answers_proxies
            .then(|| Arc::new(move |answer: &[u8]| told.allowed(answer)) as EncodeForProxies),
    }
}

fn check_told(settings: &config::ExtAuthz) -> check::Told {
    check::Told {
        settings: check::Settings::new(
            settings.header_prefix.clone(),
            settings.claims_header,
            settings.realm.clone(),
        ),
        route: check::Route {
            audiences: settings.audiences.clone(),
            scopes: settings.scopes.clone(),
            fully_consistent: settings.consistency == config::Floor::FullyConsistent,
            optional: settings.optional,
            cookies: settings.cookies.clone(),
        },
        complained: Arc::default(),
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
    if serves(&[config::Rpc::Check]) {
        names.push("envoy.service.auth.v3.Authorization");
    }
    names
}

/// What is not ours: health, and the protos for whoever asks. Python's and older Go clients still ask in v1alpha.
pub(super) fn rest(health: &Health, api: &config::Api) -> Routes {
    let mut rest = Routes::new(health.server());
    if api.reflection {
        let builder = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(grpc::v1::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            match api.serve.contains(&config::Rpc::Check) {
                true => builder.register_encoded_file_descriptor_set(grpc::envoy::DESCRIPTORS),
                false => builder,
            }
        };
        if let (Ok(v1), Ok(v1alpha)) = (builder().build_v1(), builder().build_v1alpha()) {
            rest = rest.add_service(v1).add_service(v1alpha);
        }
    }
    rest
}
