#!/usr/bin/env bash
# Limits a reviewer may quote: length of files and functions, a licence line in each source, no
# notes to self, no path of somebody's machine, a tracked tree of at most 32 MB.
# Usage: sizes.sh ROOT. SPDX-License-Identifier: MIT
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$1" && pwd)
# shellcheck source=tests/lint/sources.sh
source "$HERE/sources.sh"
cd "$ROOT"
failed=0

# A function at namespace scope starts in the first column and ends with a lone } in the first
# column; that is how our clang-format writes them.
mapfile -t files < <(own_sources)
awk '
  function end_of_file() {
    limit = previous ~ /^kernels\// ? 600 : 400
    if (lines > limit) { printf "%s: %d lines, at most %d\n", previous, lines, limit; failed = 1 }
    if (previous != "" && !licensed) {
      printf "%s: no SPDX-License-Identifier in the first 20 lines\n", previous; failed = 1
    }
  }
  FNR == 1 { end_of_file(); previous = FILENAME; licensed = 0; in_function = 0; start = 0 }
  { lines = FNR }
  FNR <= 20 && /SPDX-License-Identifier:/ { licensed = 1 }
  !in_function && /^[A-Za-z_\[~]/ { start = FNR }
  !in_function && /^(namespace|class|struct|enum|union|extern|using|typedef|INSTANTIATE_)/ { start = 0 }
  !in_function && start && /;$/ { start = 0 }
  !in_function && start && /{$/ { in_function = 1 }
  /^}$/ {
    if (in_function && FNR - start + 1 > 60) {
      printf "%s:%d: function of %d lines, at most 60\n", FILENAME, start, FNR - start + 1
      failed = 1
    }
  }
  /^}/ { in_function = 0; start = 0 }
  END { end_of_file(); exit failed }
' "${files[@]}" || failed=1

# The patterns are written so that they do not find themselves.
if all_files | grep -v '^tests/data/' | xargs -d '\n' grep -nIE '\b(TO[D]O|FIX[M]E|XX[X])\b'; then
  echo "notes to self: finish it or put it into an issue"
  failed=1
fi
if all_files | xargs -d '\n' grep -nIE '(^|[^A-Za-z0-9_.])/(wor[k]|hom[e]|roo[t]|User[s])/[A-Za-z0-9_]'; then
  echo "paths of one machine"
  failed=1
fi
bytes=$(all_files | xargs -d '\n' stat -c %s | awk '{ sum += $1 } END { printf "%d", sum }')
if [ "$bytes" -gt 32000000 ]; then
  echo "the tree holds $bytes bytes, at most 32000000"
  failed=1
fi
if [ "$failed" -ne 0 ]; then
  exit 1
fi
echo "sizes: ${#files[@]} sources, $bytes bytes in the tree"
