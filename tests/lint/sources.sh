# shellcheck shell=bash
# Lists of our own files for the lint scripts. Owns nothing but the question "which files are ours".
# Read with `source`; the caller has set ROOT. SPDX-License-Identifier: MIT

# Every file of the tree, relative to ROOT: what git tracks, or, in a copy without git, everything
# but build trees.
all_files() {
  if git -C "$ROOT" rev-parse --is-inside-work-tree > /dev/null 2>&1 &&
    [ "$(git -C "$ROOT" rev-parse --show-prefix 2> /dev/null)" = "" ]; then
    git -C "$ROOT" ls-files
  else
    (cd "$ROOT" && find . -path ./build -prune -o -path ./.git -prune -o -type f -print) |
      sed 's|^\./||'
  fi | sort | while IFS= read -r file; do
    if [ -f "$ROOT/$file" ]; then echo "$file"; fi
  done
}

# C++ and CUDA sources, without test data.
own_sources() {
  all_files | grep -E '\.(h|cpp|cu|cuh)$' | grep -v '^tests/data/' || true
}
