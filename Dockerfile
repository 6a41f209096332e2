# syntax=docker/dockerfile:1
# docker build -t mcp-edge .
# docker run -p 80:80 -p 443:443 -v ./conf:/etc/mcp-edge:ro -v mcp-edge:/var/lib/mcp-edge --stop-timeout 40 mcp-edge
# (the engine kills after 10 s by default, and `shutdown.grace` is 30 s)
#
# No image has been built from this by the tests, which have no container engine: hadolint reads it, and its COPY and
# cargo lines are run outside.

FROM rust:1-bookworm AS build
# zlib-ng, which pingora links, is built with cmake; the image's suite decides its version
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# without the demo: no MCP server ships in the image
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --no-default-features --bin mcp-edge \
    && cp target/release/mcp-edge /mcp-edge && mkdir /state

# glibc, libgcc and CAs of the same Debian; no shell, no package manager
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /mcp-edge /usr/bin/mcp-edge
COPY --from=build --chown=65532:65532 /state /var/lib/mcp-edge
# a number, so that Kubernetes sees that it is not root; engines let it bind ports below 1024
USER 65532:65532
# for configs without `state_dir`
ENV XDG_STATE_HOME=/var/lib
EXPOSE 80 443
# asks the admin listener; with another address or `off`: --health-cmd "mcp-edge health http://127.0.0.1:80/healthz"
HEALTHCHECK --interval=15s --timeout=6s --start-period=5s --retries=3 CMD ["/usr/bin/mcp-edge", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/mcp-edge"]
CMD ["run", "--config", "/etc/mcp-edge/mcp-edge.yaml"]
