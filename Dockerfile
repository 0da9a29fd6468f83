# The image of AgentRunner: one binary and what it needs to run. See docs/install.md.
#
#   docker build .                                                          builds from the sources
#   scripts/image                                                           with a binary that was built on this machine
#
# The bases are arguments, for whoever has them from elsewhere. RUNTIME_BASE has glibc, GCC's runtime, certificate
# roots and no shell; agents with tools that are commands (npx, uvx) need one that has those commands, such as
# node:22-bookworm-slim.
ARG BUILD_BASE=rust:1.95-bookworm
ARG RUNTIME_BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUNTIME_BASE} AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="AgentRunner" \
      org.opencontainers.image.description="Multi-agent orchestration that survives crashes, in one binary" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/your-org/agentrunner" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# What it writes goes to /app/data and /app/logs, which are mounted, or nowhere: the root may be read-only.
WORKDIR /app
ENV CONFIG_DIR=/app/config DATA_DIR=/app/data \
    PATH=/usr/local/bin:/usr/bin:/bin
USER 1000:1000
EXPOSE 8001 8002 8003 8004 8005 8006
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=3 CMD ["agentrunner", "health", "--self"]
ENTRYPOINT ["agentrunner"]
CMD ["up"]

# With the binary that scripts/image has put there.
FROM base AS from-host
COPY target/image/agentrunner /usr/local/bin/agentrunner

FROM ${BUILD_BASE} AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --package agentrunner \
    && cp target/dist/agentrunner /agentrunner

FROM base AS image
COPY --from=build /agentrunner /usr/local/bin/agentrunner
