#!/usr/bin/env bash
# Holds the layers and the third-party fences of layering.awk against every source.
# Usage: layering.sh ROOT. SPDX-License-Identifier: MIT
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$1" && pwd)
# shellcheck source=tests/lint/sources.sh
source "$HERE/sources.sh"

cd "$ROOT"
mapfile -t files < <(own_sources)
if [ "${#files[@]}" -eq 0 ]; then
  echo "layering: no sources found under $ROOT"
  exit 1
fi
awk -f "$HERE/layering.awk" "${files[@]}"
echo "layering: ${#files[@]} files keep the layers"
