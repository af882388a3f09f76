//! Compiles the protos with a compiler written in Rust, so that a build needs no `protoc`.

use prost::Message;
use std::error::Error;
use std::path::{Path, PathBuf};

/// Messages that hold credentials or claims get a redacting `Debug` in `src/grpc/v1.rs` instead of the derived one.
const REDACTED: [&str; 6] =
    ["VerifyRequest", "VerifyResponse", "RefreshRequest", "RevokeRequest", "Tokens", "Cookie"];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    println!("cargo:rerun-if-changed=proto");
    let files = ["token", "session", "key"].map(|name| format!("proto/countersign/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    std::fs::write(out.join("countersign.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .codec_path("crate::grpc::codec::StrictCodec")
        .skip_debug(REDACTED.map(|name| format!(".countersign.v1.{name}")))
        .compile_fds(descriptors)?;
    compile_envoy(&out)?;
    compile_example("examples/shop/proto", "shop.proto")?;
    compile_example("examples/clients/proto", "example/v1/orders.proto")
}

/// What Envoy's external authorization calls. Headers hold credentials, so whatever holds headers shows none of them.
fn compile_envoy(out: &Path) -> Result<(), Box<dyn Error>> {
    const WITH_HEADERS: [&str; 10] = [
        "config.core.v3.HeaderValue",
        "config.core.v3.HeaderMap",
        "config.core.v3.HeaderValueOption",
        "service.auth.v3.AttributeContext",
        "service.auth.v3.AttributeContext.Request",
        "service.auth.v3.AttributeContext.HttpRequest",
        "service.auth.v3.CheckRequest",
        "service.auth.v3.CheckResponse",
        "service.auth.v3.DeniedHttpResponse",
        "service.auth.v3.OkHttpResponse",
    ];
    let descriptors = protox::compile(["envoy/service/auth/v3/external_auth.proto"], ["proto"])?;
    std::fs::write(out.join("envoy.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_server(false)
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .skip_debug(WITH_HEADERS.map(|name| format!(".envoy.{name}")))
        .compile_fds(descriptors)?;
    Ok(())
}

/// An example's own api, as an application compiles one: with tonic's usual codec.
fn compile_example(folder: &str, file: &str) -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={folder}");
    let descriptors = protox::compile([file], [folder])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
