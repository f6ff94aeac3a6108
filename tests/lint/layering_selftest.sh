#!/usr/bin/env bash
# Shows that layering.sh can fail: a tiny good tree passes, and each kind of breach, added alone, is
# found with file and line. Usage: layering_selftest.sh SCRATCH_DIR. SPDX-License-Identifier: MIT
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
TREE=$(mktemp -d "$1/layering.XXXXXX")
trap 'rm -rf "$TREE"' EXIT
failures=0

# add FILE LINES...: one file of the tree.
add() {
  mkdir -p "$TREE/$(dirname "$1")"
  printf '%s\n' "${@:2}" > "$TREE/$1"
}

good_tree() {
  rm -rf "${TREE:?}"/*
  add core/base/check.h '#pragma once' '#include <string>'
  add io/hdf5_file.cpp '#include <hdf5.h>' '#include "core/base/check.h"'
  add parallel/mpi_session.cpp '#include <mpi.h>' '#include "kernels/ops.h"'
  add apps/glm_infer.cpp '#include <CLI/CLI.hpp>' '#include "io/json.h"' '#include "core/base/check.h"'
  add tests/io/json_test.cpp '#include <gtest/gtest.h>' '#include "io/json.h"'
}

# expect PATTERN FILE LINES...: adding this file must be found.
expect() {
  good_tree
  add "${@:2}"
  local output
  if output=$("$HERE/layering.sh" "$TREE" 2>&1); then
    echo "not found: $2: ${*:3}"
    failures=$((failures + 1))
  elif ! grep -qE "$1" <<< "$output"; then
    echo "wrong message for $2: wanted '$1', got '$output'"
    failures=$((failures + 1))
  fi
}

good_tree
if ! "$HERE/layering.sh" "$TREE" > /dev/null; then
  echo "the good tree fails"
  failures=$((failures + 1))
fi
expect '^io/a.cpp:2: io must not include parallel' io/a.cpp '' '#include "parallel/communicator.h"'
expect '^parallel/a.h:1: parallel must not include io' parallel/a.h '#include "io/json.h"'
expect '^core/base/a.h:1: core/base must not' core/base/a.h '#include "kernels/ops.h"'
expect '^core/model/a.h:1: core/model must not' core/model/a.h '#include "core/engine/engine.h"'
expect '^kernels/a.cpp:1: kernels must not' kernels/a.cpp '#  include "parallel/communicator.h"'
expect '^core/engine/a.cpp:1: core/engine must not' core/engine/a.cpp '#include "tests/support/x.h"'
expect '^core/engine/a.cpp:1: MPI header' core/engine/a.cpp '#include <mpi.h>'
expect '^core/model/a.cpp:1: HDF5 header' core/model/a.cpp '#include <hdf5.h>'
expect '^io/a.cpp:1: CLI11 header' io/a.cpp '#include <CLI/CLI.hpp>'
expect '^apps/a.cpp:1: GoogleTest header' apps/a.cpp '#include <gtest/gtest.h>'
expect '^kernels/cpu/a.cpp:1: CUDA header' kernels/cpu/a.cpp '#include <cuda_runtime.h>'
expect '^parallel/mpi_communicator.cpp:1: NCCL header' parallel/mpi_communicator.cpp '#include <nccl.h>'
expect '^io/a.cpp:1: .json.h.: includes of ours begin' io/a.cpp '#include "json.h"'
expect '^core/a.cpp:1: is in no module' core/a.cpp '#include <string>'

if [ "$failures" -ne 0 ]; then
  exit 1
fi
echo "layering: every planted breach was found"
