#!/usr/bin/env bash
# Lists registers, shared memory, stack and spills of every CUDA kernel, as ptxas reported them while
# building, and fails where one spills or keeps arrays in local memory. (fill_rope_table may: the
# CUDA library's cosine in double does so for large angles, once per step.)
# Usage: cuda_resources.sh BUILD_DIR. SPDX-License-Identifier: MIT
set -euo pipefail
BUILD=$(cd "$1" && pwd)

mapfile -t logs < <(find "$BUILD/kernels" -name '*.o.resources' 2> /dev/null | sort)
if [ "${#logs[@]}" -eq 0 ]; then
  echo "skipped: no CUDA kernels in $BUILD"
  exit 77
fi
report=$(awk '
  / Compiling entry function / {
    split($0, quoted, "\047")
    name = quoted[2]
    arch = quoted[4]
  }
  /bytes stack frame/ {
    stack = $1
    spilled = $5 + $9
  }
  / Used [0-9]+ registers/ {
    registers = $0
    sub(/^.* Used /, "", registers)
    sub(/ registers.*$/, "", registers)
    print arch, registers, stack, spilled, name
  }
' "${logs[@]}" | sort -k5,5 -k1,1)
if command -v c++filt > /dev/null; then report=$(c++filt <<< "$report"); fi
report=$(sed -E 's/glm::cuda::\(anonymous namespace\)::|glm::cuda:://g; s/void //; s/\([A-Za-z]*Args\)$//' <<< "$report")
printf '%-6s %9s %6s %6s  %s\n' arch registers stack spills kernel
awk '{ printf "%-6s %9d %6d %6d  %s", $1, $2, $3, $4, $5; for (i = 6; i <= NF; ++i) printf " %s", $i; print "" }' <<< "$report"
if awk '$4 > 0 || ($3 > 0 && $5 != "fill_rope_table") { found = 1 } END { exit !found }' <<< "$report"; then
  echo "kernels with a stack or spills: see above"
  exit 1
fi
echo "cuda_resources: $(wc -l <<< "$report") kernels, none spills"
