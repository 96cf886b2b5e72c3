#!/bin/sh
# The main job on a real model: install, export, verify, ask. Everything goes into .venv and build/ of this checkout.
set -eu
cd "$(dirname "$0")/.."
python3 -m venv .venv
.venv/bin/python -m pip install --quiet --upgrade pip
.venv/bin/python -m pip install --quiet 'torch==2.13.0' -e '.[onnx,executorch,oracle]'
.venv/bin/edgesdk export smollm2-135m --target linux-x86_64 --recipe w4g32 --out build/smollm2
.venv/bin/edgesdk verify build/smollm2
.venv/bin/edgesdk run build/smollm2 "What is the capital of France?"
.venv/bin/edgesdk export smollm2-135m --target android-arm64 --out build/smollm2-phone
.venv/bin/edgesdk verify build/smollm2-phone
.venv/bin/edgesdk run build/smollm2-phone "What is the capital of France?"
