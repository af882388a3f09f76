# The image: countersign, the libraries it names, certificate authorities, and nothing that could run anything else.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --release --bin countersign
RUN helm/image/assemble.sh target/release/countersign /image

FROM scratch
LABEL org.opencontainers.image.title="countersign" \
      org.opencontainers.image.description="A gRPC token-verification sidecar" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 50051 9090
ENTRYPOINT ["/usr/bin/countersign"]
CMD ["serve", "--config", "/etc/countersign/config/countersign.yaml"]
