# The commands for users. Everything that is needed is installed or built on the way; nothing is left outside target/.
#
# WORKFLOW=FILE   the workflow that `make demo` runs instead of its own
# ARGS='...'      more options for `dayfly demo`, e.g. ARGS='--parallel 1 --json'
# SECONDS=N       how long `make fuzz` runs each target; ARGS='names tar' selects some of them
# PREFIX=DIR      where `make install` puts programs and pages, /usr/local; DESTDIR=DIR stands in front of every path
# DISTRO=NAME     the distribution of an image; scripts/image lists the other variables

SHELL := /bin/sh
.DEFAULT_GOAL := help

# Images, templates and runs of `make demo` and `make test` are stored here, so that a second run finds them.
export DAYFLY_STATE ?= $(CURDIR)/target/state
# The folder that scripts/setup unpacks Go to if the host has none that is new enough.
export PATH := $(PATH):$(CURDIR)/target/go/go/bin

HOST := x86_64-unknown-linux-gnu
WORKFLOW ?= demo/workflow.yml
PREFIX ?= /usr/local

.PHONY: help setup setup-tests setup-full build demo test test-full test-kvm test-user test-official fuzz bench lint fmt doctor clean
.PHONY: docs install uninstall deb release test-deb test-release
.PHONY: test-images image-base image-runner image-merge image-inspect image-matrix

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: ## install what is missing on this host (says so first)
	@scripts/setup

build: setup ## build target/release/dayfly and the guest binary beside it
	@scripts/build

demo: build ## run a workflow in microVMs and show its log (WORKFLOW=FILE for your own)
	@target/release/dayfly demo --workflow '$(WORKFLOW)' $(ARGS)

install: ## install what `make build` has built: programs, unit, completions, man pages (PREFIX=, DESTDIR=)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install

uninstall: ## remove what `make install` has installed (`dayfly uninstall` removes the state)
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install --remove

docs: ## build the site of docs/ in target/book and check its links (mdBook is built once)
	@scripts/docs

deb: build ## make a Debian package of what `make build` has built, target/package/*.deb
	@scripts/deb

release: build ## make a static tarball, a package, a bill of materials and checksums of this commit
	@scripts/release

test-deb: build ## install, upgrade with a job that runs, and purge the package in a root folder (root, after `make test`)
	@scripts/test-deb

test-release: setup-full build ## make a release, and check its checksums, programs, bill of materials and package
	@scripts/test-release

test: setup-tests build ## run every test, in at most 25 minutes
	@scripts/test

test-full: setup-full build ## also run the tests that take longer: many machines, many seeds
	@scripts/test --full

test-kvm: setup-tests build ## run machines with KVM, in a dayfly machine that is a host with KVM (a quarter of an hour)
	@scripts/test --kvm

test-user: setup-tests build ## run every test as an ordinary user, and list what that leaves out (root; 25 minutes)
	@scripts/test --user

test-official: setup-tests build ## run GitHub's own runner app in machines (ACTIONS_RUNNER=FILE, else github.com)
	@scripts/test-official

fuzz: setup ## fuzz the code that reads what strangers write (SECONDS=60 for each target, ARGS='names tar')
	@scripts/fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

bench: build ## measure what machines cost here (ARGS='--only fork --samples 5' for less)
	@scripts/bench $(ARGS)

setup-tests:
	@scripts/setup --tests

setup-full:
	@scripts/setup --full

lint: ## rustfmt, clippy with warnings as errors, shell syntax
	@scripts/lint

fmt: ## format the code
	@cargo fmt --all

doctor: build ## show what this host can do
	@target/release/dayfly doctor

image-base: ## build the base step of an image (DISTRO=ubuntu|fedora|debian; scripts/image lists the rest)
	@scripts/image base

image-runner: ## build the runner step of an image, on its base (DISTRO=..., INSTALL_VERSION=...)
	@scripts/image runner

test-images: build ## build the Debian image for real, and check its content (root, some minutes)
	@scripts/test-images

# The workflows call image-merge and image-inspect after all platforms are pushed, and image-matrix before any is built.
image-merge:
	@scripts/image merge $(STEP)

image-inspect:
	@scripts/image inspect $(STEP)

image-matrix:
	@scripts/image matrix

clean: ## remove everything that was built, images included
	@rm -rf target
