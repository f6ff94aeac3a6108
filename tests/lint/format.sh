#!/usr/bin/env bash
# clang-format over all of our sources. Versions format differently, so only the pinned major
# version judges; without it the test is skipped. Usage: format.sh ROOT. SPDX-License-Identifier: MIT
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$1" && pwd)
VERSION=14
# shellcheck source=tests/lint/sources.sh
source "$HERE/sources.sh"

tool=$(command -v "clang-format-$VERSION" || command -v clang-format || true)
if [ -z "$tool" ] || ! "$tool" --version | grep -q "version $VERSION\."; then
  echo "skipped: clang-format $VERSION is not installed"
  exit 77
fi
cd "$ROOT"
own_sources | xargs -r "$tool" --dry-run -Werror --ferror-limit=3
echo "format: $(own_sources | wc -l) files are formatted"
