#!/usr/bin/env bash
# clang-tidy over every source of ours that the build tree compiles, with the checks of .clang-tidy.
# Minutes of work: registered as slow. Each source is taken alone, unlike in a build that joins them.
# Usage: tidy.sh ROOT BUILD_DIR. SPDX-License-Identifier: MIT
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$1" && pwd)
BUILD=$(cd "$2" && pwd)
# shellcheck source=tests/lint/sources.sh
source "$HERE/sources.sh"

tool=$(command -v clang-tidy-14 || command -v clang-tidy || true)
if [ -z "$tool" ]; then
  echo "skipped: clang-tidy is not installed"
  exit 77
fi
cmake -S "$ROOT" -B "$BUILD/tidy" -G Ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DCMAKE_BUILD_TYPE=Release > /dev/null
cmake --build "$BUILD/tidy" --target glm_git_version > /dev/null
BUILD="$BUILD/tidy"
cd "$ROOT"
compiled() {
  own_sources | grep '\.cpp$' | while IFS= read -r file; do
    if grep -qF "\"$ROOT/$file\"" "$BUILD/compile_commands.json"; then echo "$file"; fi
  done
}
compiled | xargs -r -n 4 -P "$(nproc)" "$tool" -p "$BUILD" --quiet
echo "tidy: $(compiled | wc -l) files are clean"
