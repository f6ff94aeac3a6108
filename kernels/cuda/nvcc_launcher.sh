#!/usr/bin/env bash
# Runs nvcc and puts aside what ptxas says about registers and memory of every kernel (-Xptxas=-v):
# FILE.o.resources beside FILE.o, for tests/lint/cuda_resources.sh. Everything else nvcc says is passed
# on. Usage: nvcc_launcher.sh NVCC ARGUMENTS. SPDX-License-Identifier: MIT
set -uo pipefail
object=""
previous=""
for argument in "$@"; do
  if [ "$previous" = "-o" ]; then object=$argument; fi
  previous=$argument
done
said=$(mktemp)
trap 'rm -f "$said"' EXIT
"$@" 2> "$said"
status=$?
pattern="^ptxas info|^ *[0-9]+ bytes stack frame"
if [ "${object##*.}" = "o" ]; then grep -E "$pattern" "$said" > "$object.resources" || true; fi
grep -vE "$pattern" "$said" >&2 || true
exit "$status"
