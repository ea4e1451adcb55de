#!/usr/bin/env bash
# Makes .venv from a lock:  deployments/environment.sh cpu|cuda
#   without Overedit itself, which changes more often (a container's layer):  deployments/environment.sh cpu|cuda packages
# Compiles the locks anew:  deployments/environment.sh lock
set -euo pipefail
cd "$(dirname "$0")/.."

find_uv() { # uv from the PATH, else our own copy of it in .uv
    if command -v uv >/dev/null 2>&1; then command -v uv; return; fi
    if [ ! -x .uv/bin/uv ]; then
        python3 -m venv .uv && .uv/bin/python -m pip install --quiet --disable-pip-version-check uv >&2
    fi
    echo "$PWD/.uv/bin/uv"
}

compile() { # compile EXTRA [uv options]: a lock that records versions, no hosts
    "$uv" pip compile pyproject.toml --extra "$1" --extra dev --python-version 3.11 --quiet --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --python-platform x86_64-unknown-linux-gnu "${@:2}" -o "deployments/locks/$1.txt"
}

uv=$(find_uv)
# uv does not read pip's configuration: hand on where pip finds local wheels (a CPU build of torch, say).
export UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-$(python3 -m pip config get global.find-links 2>/dev/null || true)}}"
export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-300}"

if [ "$1" = lock ]; then
    compile cuda
    # The registry has only CUDA builds of these four, and one of them beside a CPU torch breaks transformers.
    compile cpu --no-emit-package torchvision --no-emit-package torchaudio --no-emit-package torchcodec --no-emit-package triton \
        --constraint <(echo "torch==2.13.0+cpu")
    exit
fi

echo "Setting up .venv from deployments/locks/$1.txt (once) ..."
[ -x .venv/bin/python ] || "$uv" venv --quiet --python 3.11 .venv || "$uv" venv --quiet --python ">=3.11" .venv
backend=()
if [ "$1" = cpu ] && ! compgen -G "${UV_FIND_LINKS:-/nonexistent}/torch-*+cpu*.whl" >/dev/null; then backend=(--torch-backend cpu); fi
"$uv" pip install --python .venv/bin/python --quiet --no-deps --compile-bytecode "${backend[@]}" -r "deployments/locks/$1.txt"
if [ "${2:-}" = packages ]; then exit; fi
"$uv" pip install --python .venv/bin/python --quiet --no-deps --no-build-isolation --editable .
# mypy reads the package as it is installed: overedit/ with the three folders inside.
mkdir -p .venv/mypy/overedit
for inside in editing tasks flows overedit/__init__.py; do ln -sfn "$PWD/$inside" ".venv/mypy/overedit/$(basename "$inside")"; done
