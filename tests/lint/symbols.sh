#!/usr/bin/env bash
# Guards a CPU without AVX-512 (or without AVX2): the units compiled for one instruction set must not
# leak code into the rest. Two rules over our archives: 512-bit registers appear only in units named
# for it, and such units export no weak function (inline, template) with vector code under a name that
# other units may have too, because the linker keeps one copy for everybody. Safe are names that carry
# the own name of the unit, as all do inside `namespace isa_avx2` of isa_avx2.cpp.
# Usage: symbols.sh BUILD_DIR. SPDX-License-Identifier: MIT
set -euo pipefail
BUILD=$(cd "$1" && pwd)

if ! command -v objdump > /dev/null; then
  echo "skipped: objdump is not installed"
  exit 77
fi
if [ "$(uname -m)" != "x86_64" ]; then
  echo "skipped: $(uname -m) has no AVX"
  exit 77
fi
mapfile -t archives < <(find "$BUILD" -name 'libglm_*.a' | sort)
if [ "${#archives[@]}" -eq 0 ]; then
  echo "no libglm_*.a under $BUILD: build first"
  exit 1
fi
failed=0
for archive in "${archives[@]}"; do
  { objdump -t "$archive"; objdump -d --no-show-raw-insn "$archive"; } | awk -v archive="${archive##*/}" '
    / file format / { member = $1; sub(/:$/, "", member); stem = member; sub(/\..*/, "", stem) }
    $2 == "w" && / \.text/ { weak[member, $NF] = 1 }
    /^[0-9a-f]+ <.*>:$/ { name = $2; gsub(/^<|>:$/, "", name); reported = 0 }
    /^ +[0-9a-f]+:/ && !reported {
      if (/%zmm/ && member !~ /avx512|vnni|amx/) {
        printf "%s(%s): %s uses 512-bit registers\n", archive, member, name
        failed = reported = 1
      } else if (member ~ /avx|vnni|amx/ && (member, name) in weak && index(name, stem) == 0 &&
               /\t *v[a-z0-9]+ .*%[xyz]mm/) {
        printf "%s(%s): weak function %s has AVX code\n", archive, member, name
        failed = reported = 1
      }
    }
    END { exit failed }' || failed=1
done
if [ "$failed" -ne 0 ]; then
  exit 1
fi
echo "symbols: ${#archives[@]} archives keep vector code in its units"
