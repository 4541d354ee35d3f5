#!/usr/bin/env bash
# Writes the Python modules of src/gosvae/protocol/proto/link.proto beside it. PYTHON chooses the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-src}
"${PYTHON:-.venv/bin/python}" -m grpc_tools.protoc -I src --python_out="$out" --pyi_out="$out" \
  src/gosvae/protocol/proto/link.proto
