#!/bin/sh
# Regenerates the committed code of jscale/proto/v1 from its .proto (`make proto`).
# The version is fixed: code of protobuf 6.31 loads with every later 6 and with 7,
# and that of grpcio 1.73 with every later grpcio.
set -eu
cd "$(dirname "$0")/../.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
"${PYTHON:-python3}" -m venv "$tools"
"$tools/bin/pip" install --quiet "grpcio-tools==1.73.1" "setuptools<81"
"$tools/bin/python" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
  --grpc_python_out=. jscale/proto/v1/jscale.proto
