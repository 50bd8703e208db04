# `make run` and `make test` are the whole set-up. Each step installs what it needs (.ci/setup).

# llama.cpp takes minutes to compile: ccache lets debug and release builds share it.
ifneq ($(shell command -v ccache),)
export CMAKE_C_COMPILER_LAUNCHER := ccache
export CMAKE_CXX_COMPILER_LAUNCHER := ccache
endif
TOOLS := target/tools/bin

.PHONY: help run test clients check bench dist chaos mutations fuzz demo-kill format

help: ## Says what there is to make
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "  make %-9s %s\n", $$1, $$2 }'

run: ## Builds everything and starts the whole mesh with a small real model (settings: UNBROKEN_…)
	@.ci/setup build
	@$(MAKE) --no-print-directory start

.PHONY: start
start:
	cargo build --release --locked --workspace --bin unbroken
	@exec target/release/unbroken $(ARGS)

test: ## Runs every test
	@.ci/setup test
	@$(MAKE) --no-print-directory tests

.PHONY: tests
tests:
	cargo test --workspace --locked

clients: ## Tries the SDKs and frameworks that people have (LangChain, LlamaIndex, litellm, Vercel's AI SDK, …)
	@.ci/setup clients
	cargo test --locked --workspace --test it -- --ignored clients::

check: ## Format, lints, docs, the contract, licences
	@.ci/setup check
	@$(MAKE) --no-print-directory checks

.PHONY: checks
checks:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --locked --quiet
	$(TOOLS)/buf lint proto
	$(TOOLS)/buf format --diff --exit-code proto
	$(TOOLS)/cargo-deny check bans licenses sources
	k8s/validate.sh

bench: ## Measures the mesh beside nginx
	@.ci/setup bench
	@$(MAKE) --no-print-directory benches

.PHONY: benches
benches: images
	$(DIST) cargo bench --profile dist --locked --workspace --bench decode >target/bench-llama.jsonl
	target/dist/bench --bin target/laid-out --llama target/bench-llama.jsonl $(ARGS)

dist: ## Builds what images carry into target/laid-out: optimised as a whole, and laid out by what runs
	@.ci/setup dist
	@$(MAKE) --no-print-directory images

# BOLT needs what the linker knows of addresses, and takes a dot in a symbol for a piece of a function.
DIST := RUSTFLAGS="-Clink-arg=-Wl,--emit-relocs -Csymbol-mangling-version=v0"

.PHONY: images
images:
	$(DIST) cargo build --profile dist --locked --workspace $(foreach name,gateway router worker store,--bin unbroken-$(name)) --bin unbroken --bin bench --bin train
	.ci/lay-out target/dist target/laid-out

format: ## Formats all code
	cargo fmt --all
	$(TOOLS)/buf format -w proto

chaos: ## Kills processes in the middle of answers, and checks that nobody notices
	@.ci/setup build
	cargo build --release --locked --workspace
	target/release/chaos $(ARGS)
	UNBROKEN_SEEDS=$${UNBROKEN_SEEDS:-200} cargo test --workspace --locked --test it -- --nocapture simulated_mesh

mutations: ## Breaks the promise on purpose, one build after the other, and sees that the tests notice
	@.ci/setup test
	python3 services/trial/mutations.py $(ARGS)

# Without a sanitizer, which stable Rust has none of: there is no unsafe code in what is fuzzed.
FUZZ := target/cargo-fuzz/bin/cargo-fuzz run --fuzz-dir services/trial/fuzz --target-dir target/fuzz --sanitizer none
FUZZ_SECONDS ?= 30

fuzz: ## Lets libFuzzer make streams of upstreams and requests of clients (FUZZ_SECONDS=30 for each)
	@.ci/setup fuzz
	mkdir -p target/fuzz-corpus/upstream target/fuzz-corpus/doors target/fuzz-corpus/guarded
	$(FUZZ) upstream target/fuzz-corpus/upstream engine-worker/transcripts -- -max_total_time=$(FUZZ_SECONDS) -max_len=8192
	$(FUZZ) doors target/fuzz-corpus/doors gateway/tests/it/fuzzed -- -max_total_time=$(FUZZ_SECONDS) -max_len=4096
	$(FUZZ) guarded target/fuzz-corpus/guarded gateway/tests/it/guarded -- -max_total_time=$(FUZZ_SECONDS) -max_len=2048

demo-kill: ## An answer of the real model, and a kill -9 of the worker that is writing it
	@.ci/setup build
	cargo build --release --locked --workspace
	target/release/demo $(ARGS)
