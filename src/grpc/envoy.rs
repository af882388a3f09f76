//! The generated messages of Envoy's external authorization, and a client of it.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    reason = "generated; the proto files document every message and field"
)]
#![allow(
    clippy::all,
    clippy::wildcard_enum_match_arm,
    clippy::allow_attributes_without_reason,
    clippy::enum_variant_names,
    reason = "generated"
)]

/// The compiled protos, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin"));

pub mod config {
    pub mod core {
        pub mod v3 {
            tonic::include_proto!("envoy.config.core.v3");
            redacted!(HeaderValue, HeaderMap, HeaderValueOption, header_value_option::HeaderAppendAction);
        }
    }
}

pub mod r#type {
    pub mod v3 {
        tonic::include_proto!("envoy.r#type.v3");
    }
}

pub mod service {
    pub mod auth {
        pub mod v3 {
            tonic::include_proto!("envoy.service.auth.v3");
            redacted!(
                AttributeContext,
                attribute_context::Request,
                attribute_context::HttpRequest,
                CheckRequest,
                CheckResponse,
                DeniedHttpResponse,
                OkHttpResponse
            );
        }
    }
}
