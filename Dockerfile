# The image of longembed-server. How to build, run and read it: deploy/container/README.md.
#
#   docker build -t longembed-server .
#   docker build -t longembed-server --build-arg MODEL=e5-small-v2 .     the model in the image
#   docker build -t longembed-server:cuda --build-arg DEVICE=cuda .      with LibTorch's CUDA libraries
#
# Every step is a script of deploy/container, so that tests/container/check.sh and developers can run it without a container engine. The cache mounts keep
# packages, wheels, crates and object files between builds; nothing of them gets into a layer.

# cpu | cuda: whether LibTorch's CUDA libraries are in the image.
ARG DEVICE=cpu
# The Debian release that compiles the programs and whose libraries the image contains.
ARG DEBIAN=bookworm

FROM debian:${DEBIAN}-slim AS tools
WORKDIR /src
COPY deploy/setup.sh deploy/
COPY deploy/container/install_tools.sh deploy/container/
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    deploy/container/install_tools.sh

FROM tools AS libtorch
ARG DEVICE
# A folder of the build context with another LibTorch in it (include/ and lib/), for example one without CUDA. Empty: that of the wheel on PyPI.
ARG LIBTORCH=""
COPY model/export/requirements.txt model/export/
COPY deploy/container/install_libtorch.sh deploy/container/
RUN --mount=type=cache,target=/root/.cache/pip \
    deploy/container/install_libtorch.sh

FROM libtorch AS model
# The argument of model/export: a name, or owner/name of the hub. Empty: /models is empty, and models are mounted there.
ARG MODEL=""
COPY model/export model/export
COPY deploy/container/bake_model.sh deploy/container/
RUN --mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked \
    --mount=type=cache,target=/root/.m2/repository \
    deploy/container/bake_model.sh

FROM libtorch AS build
# An ARG belongs to its stage; not every builder hands it on to a stage made from that one.
ARG DEVICE
ARG LIBTORCH=""
COPY . .
RUN --mount=type=cache,target=/root/.cache/ccache --mount=type=cache,target=/root/.cargo/registry \
    deploy/container/compile.sh
RUN deploy/container/collect_runtime.sh build/release /image

# Not a slim Debian with the packages installed: copying exactly what the loader asks for saves 70 MB, a shell, perl and apt, and there is no list of packages
# to keep, because the loader's own answer is the list. Where the files are from is written down for scanners (/var/lib/dpkg/status.d).
FROM scratch AS runtime-cpu
# LibTorch first: its layer stays the same from release to release.
COPY --from=build /image/libtorch/ /
COPY --from=build /image/server/ /
COPY --from=model /src/models/ /models/
# COPY keeps the mode that a file has where the image is built. After a clone with umask 077 the image's user could not read it.
COPY --chmod=644 deploy/container/config.yaml /etc/longembed/config.yaml
# Fails here when the loader does not find a library.
RUN ["/usr/local/bin/longembed-server", "--version"]
EXPOSE 50051 8080 50052 9464
USER 10001:10001
STOPSIGNAL SIGTERM
# The first success ends the start period. It must be as long as large models load, because Swarm and others replace a container that is unhealthy.
HEALTHCHECK --interval=10s --timeout=5s --start-period=1800s --retries=3 \
    CMD ["/usr/local/bin/longembed", "health", "--server", "127.0.0.1:50052"]
ENTRYPOINT ["/usr/local/bin/longembed-server"]
CMD ["--config", "/etc/longembed/config.yaml"]

# Read by NVIDIA's container runtime: the visible GPUs, and the driver's libraries.
FROM runtime-cpu AS runtime-cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM runtime-${DEVICE} AS image
ARG VERSION=0.1.0
# The commit.
ARG REVISION=""
LABEL org.opencontainers.image.title="longembed-server" \
      org.opencontainers.image.description="Text embeddings over gRPC and HTTP; each request chooses how to embed a text longer than the context of a model" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
