# syntax=docker/dockerfile:1
# docker build -t mcp-edge .
# docker run -p 443:443 -v ./conf:/etc/mcp-edge:ro -v mcp-edge:/var/lib/mcp-edge mcp-edge

FROM rust:1-bookworm AS build
# zlib-ng, which pingora links, is built with cmake
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# without the demo: no MCP server ships in the image
RUN cargo build --release --locked --no-default-features --bin mcp-edge && mkdir /state

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/mcp-edge /usr/bin/mcp-edge
COPY --from=build --chown=nonroot:nonroot /state /var/lib/mcp-edge
EXPOSE 80 443
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/mcp-edge"]
CMD ["run", "--config", "/etc/mcp-edge/mcp-edge.yaml"]
