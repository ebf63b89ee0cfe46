# What people and CI call; the work is in tests/setup, tests/images and cargo.

TARGET := $(or $(CARGO_TARGET_DIR),target)
IMAGES := $(or $(VMCTL_TEST_IMAGES),$(CURDIR)/.cache/images)
FUZZ   := $(abspath .cache/fuzz)
# How long `make fuzz` looks for texts that break the VMFile's reader.
SECONDS ?= 60
DEMO   := examples/two-tier
# Tests that run at once: they wait for guests most of the time, of which only a few run at once whatever this says.
THREADS ?= 4
VMCTL  := $(TARGET)/debug/vmctl
# A whole Debian can only be installed by root.
SUDO   := $(if $(filter 0,$(shell id -u)),,sudo)

.DEFAULT_GOAL := help
.PHONY: help setup images images-debian build demo demo-down check test bench fuzz book record deb install clean

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: ## install with apt-get what is missing on this machine (no-op when all is there)
	@tests/setup

images: setup ## build the tiny guest's images into .cache/images
	@tests/images/build-tiny-guest "$(IMAGES)"
	@tests/images/build-tiny-guest "$(IMAGES)/generic" --kernel generic

images-debian: ## build a Debian 12 cloud image (root, two minutes)
	@tests/setup --debian
	@$(SUDO) tests/images/build-debian-cloud "$(IMAGES)"

build: setup ## build vmctl
	cargo build --locked --package vmctl

demo: build images ## plan and apply two machines on this host, and show what to do next
	@examples/demo "$(VMCTL)" "$(DEMO)"

demo-down: ## remove what `make demo` made
	"$(VMCTL)" apply --file $(DEMO)/VMFile.kdl --destroy --yes

check: setup ## formatting and lints
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --package vmctl --features failpoints --bin vmctl-failpoints -- -D warnings

test: images images-debian check ## everything: lints, unit tests, end-to-end tests with real guests
	cargo build --locked --package vmctl
	cargo build --locked --package vmctl --features failpoints --bin vmctl-failpoints
	VMCTL_BIN="$(abspath $(VMCTL))" VMCTL_FAILPOINTS_BIN="$(abspath $(VMCTL)-failpoints)" \
		VMCTL_TEST_IMAGES="$(IMAGES)" RUST_TEST_THREADS=$(THREADS) cargo test --locked --workspace

bench: setup images images-debian ## vmctl against references measured in the same run, as a table (BENCH="3 P8": runs, goals)
	$(if $(BENCH),,cargo bench --locked --package vmctl-planner --bench engine)
	cargo build --locked --release --package vmctl --package vmctl-tests
	VMCTL_BIN="$(abspath $(TARGET)/release/vmctl)" VMCTL_TEST_IMAGES="$(IMAGES)" "$(TARGET)/release/vmctl-bench" $(BENCH)

fuzz: ## look for SECONDS (60) for a VMFile that breaks its reader; needs g++ and cargo-fuzz, and installs them
	@tests/setup --fuzz
	@rm -rf "$(FUZZ)/tmp" && mkdir -p "$(FUZZ)/tmp" "$(FUZZ)/vmfile"
	TMPDIR="$(FUZZ)/tmp" cargo fuzz run --fuzz-dir tests/fuzz --target-dir "$(abspath $(TARGET)/fuzz)" --sanitizer none \
		vmfile "$(FUZZ)/vmfile" tests/fuzz/corpus/vmfile -- \
		-max_total_time=$(SECONDS) -timeout=10 -max_len=8192 -dict=tests/fuzz/vmfile.dict

book: ## build the documentation as web pages into target/book
	cargo test --locked --package vmctl-tests --test docs -- --ignored --exact book::write_the_book
	@echo "The book begins at target/book/index.html"

record: build images ## record docs/demo.cast anew
	@examples/record "$(VMCTL)" "$(IMAGES)/tiny.qcow2" docs/demo.cast

deb: setup ## build a Debian package into target/debian; needs cargo-deb, and installs it
	@cargo deb --version >/dev/null 2>&1 || cargo install --locked cargo-deb
	cargo build --locked --release --package vmctl
	@examples/assets "$(TARGET)/release/vmctl" "$(TARGET)/release/assets"
	cargo deb --locked --no-build --package vmctl

install: setup ## install vmctl with cargo, built for speed
	cargo install --locked --path cli

clean: ## remove what was built, and the images
	cargo clean
	rm -rf .cache
