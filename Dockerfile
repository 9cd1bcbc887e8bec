# Two images of the same sources: `proxymatic` (the default), and with `--target demo` the programs of the local cluster.
#
#     docker build --tag proxymatic .
#     docker build --tag proxymatic-demo --target demo .
#
# The first stage needs a network: Debian's packages, crates.io. Where cargo is at hand `cargo xtask image` builds the same
# two images with neither: it takes what is below from the first `FROM scratch` on, and puts the files there itself.
#
# Run in the tests: everything from the first `FROM scratch` on, by `cargo xtask test docker`; and `cargo xtask image
# --prepare`, on Debian bookworm. Not run: the two apt-get lines, since the machine of the tests cannot pull Debian's image.

FROM debian:bookworm-slim AS build
# rustc-web and cargo-web are the compiler that Debian keeps new for its browsers, in bookworm-security.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates cargo-web g++ libc6-dev make pkg-config rustc-web zlib1g-dev libzstd-dev
WORKDIR /src
COPY . .
# Installs what it misses for eBPF (libstd-rust-web-dev-bpf, LLVM) and builds bpf-linker: some ten minutes on two cores.
RUN cargo xtask image --prepare

FROM scratch AS demo
COPY --from=build /src/target/image/demo /
LABEL org.opencontainers.image.title="proxymatic-demo" \
      org.opencontainers.image.description="Replicas, a client of Marathon and a simulated Marathon, for a cluster on one machine" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"

FROM scratch
COPY --from=build /src/target/image/proxymatic /
LABEL org.opencontainers.image.title="proxymatic" \
      org.opencontainers.image.description="Service forwarding for Mesos/Marathon clusters in the Linux kernel" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
ENV PATH=/usr/bin
# Asks the agent itself: a source that is away, or a service without tasks, is no reason to start it again.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s CMD ["proxymatic", "healthcheck"]
# SIGTERM, which is the default, ends the agent and leaves what it attached.
ENTRYPOINT ["proxymatic"]
CMD ["run"]
