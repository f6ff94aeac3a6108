#!/usr/bin/env bash
# Shows that sizes.sh, symbols.sh and docs.sh can fail: each planted fault is found, and the tree
# without it passes. Usage: selftest.sh SCRATCH_DIR CXX. SPDX-License-Identifier: MIT
# shellcheck disable=SC2016 # the backquotes are Markdown
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
CXX=$2
mkdir -p "$1"
TREE=$(mktemp -d "$1/selftest.XXXXXX")
trap 'rm -rf "$TREE"' EXIT
failures=0

# check STATUS PATTERN COMMAND...: the command leaves with this status and its output matches.
check() {
  local status=0 output
  output=$("${@:3}" 2>&1) || status=$?
  if [ "$status" -ne "$1" ] || ! grep -qE "$2" <<< "$output"; then
    echo "wanted status $1 and '$2' of ${*:3}, got $status and: $output"
    failures=$((failures + 1))
  fi
}

licence='// One line. SPDX-License-Identifier: MIT'
function_of() {
  echo "int f(int a) {"
  for ((i = 0; i < $1 - 3; ++i)); do echo "  a += $i;"; done
  printf '  return a;\n}\n'
}

mkdir -p "$TREE/io" "$TREE/docs" "$TREE/build"
good_tree() {
  { echo "$licence"; function_of 60; } > "$TREE/io/a.cpp"
  rm -f "$TREE/io/b.cpp"
  printf '# Documentation\n' > "$TREE/docs/README.md"
  printf '| `unit` | x |\n' > "$TREE/docs/CONTRIBUTING.md"
  printf '[c](CONTRIBUTING.md)\n' >> "$TREE/docs/README.md"
  printf '| `GLM_A` | x |\n[c](CONTRIBUTING.md)\n' > "$TREE/docs/environment.md"
  printf '[e](environment.md)\n' >> "$TREE/docs/README.md"
  printf '```\nbash .ci/demo\n```\n```\nbash .ci/test\n```\n' > "$TREE/README.md"
  echo 'glm_test(a LABEL unit SOURCES a.cpp)' > "$TREE/CMakeLists.txt"
}

good_tree
check 0 '^sizes: ' "$HERE/sizes.sh" "$TREE"
check 0 '^docs: ' "$HERE/docs.sh" "$TREE"
{ echo "$licence"; function_of 61; } > "$TREE/io/b.cpp"
check 1 '^io/b.cpp:2: function of 61 lines' "$HERE/sizes.sh" "$TREE"
{ echo "$licence"; for ((i = 0; i < 400; ++i)); do echo '// x'; done; } > "$TREE/io/b.cpp"
check 1 '^io/b.cpp: 401 lines' "$HERE/sizes.sh" "$TREE"
echo 'int b = 0;' > "$TREE/io/b.cpp"
check 1 '^io/b.cpp: no SPDX' "$HERE/sizes.sh" "$TREE"
printf '%s\n// %s\n' "$licence" 'TO''DO later' > "$TREE/io/b.cpp"
check 1 '^io/b.cpp:2:.*later' "$HERE/sizes.sh" "$TREE"
printf '%s\n// see %s\n' "$licence" '/ho''me/someone/x' > "$TREE/io/b.cpp"
check 1 'paths of one machine' "$HERE/sizes.sh" "$TREE"

good_tree
echo '[gone](gone.md#part)' >> "$TREE/docs/README.md"
check 1 'link to gone.md#part' "$HERE/docs.sh" "$TREE"
good_tree
echo 'glm_test(a LABEL other SOURCES a.cpp)' >> "$TREE/CMakeLists.txt"
check 1 'test label other' "$HERE/docs.sh" "$TREE"
good_tree
printf '%s\nconst char* b = getenv("GLM_B");\n' "$licence" > "$TREE/io/b.cpp"
check 1 'GLM_B is missing' "$HERE/docs.sh" "$TREE"
good_tree
printf '```\nmake\n```\n' > "$TREE/README.md"
check 1 'first two fenced blocks' "$HERE/docs.sh" "$TREE"

# Machine code: 512-bit registers outside their unit, and a weak function inside one.
if [ "$(uname -m)" = x86_64 ] && command -v objdump > /dev/null; then
  # archive UNIT CODE: build/libglm_x.a of one unit.
  archive() {
    rm -f "$TREE/build"/*
    echo "$2" > "$TREE/build/$1.cpp"
    "$CXX" -O1 -mavx512f -c "$TREE/build/$1.cpp" -o "$TREE/build/$1.cpp.o"
    ar rc "$TREE/build/libglm_x.a" "$TREE/build/$1.cpp.o"
  }
  wide='asm volatile("vpxorq %zmm1, %zmm1, %zmm1");'
  archive linear_avx512 "void f() { $wide }"
  check 0 '^symbols: ' "$HERE/symbols.sh" "$TREE/build"
  archive linear "void f() { $wide }"
  check 1 'linear.cpp.o.*512-bit' "$HERE/symbols.sh" "$TREE/build"
  archive linear_avx512 "inline __attribute__((noinline)) void g() { $wide } void f() { g(); }"
  check 1 'weak function _Z1gv' "$HERE/symbols.sh" "$TREE/build"
  archive isa_avx512 "namespace isa_avx512 { inline __attribute__((noinline)) void g() { $wide } } void f() { isa_avx512::g(); }"
  check 0 '^symbols: ' "$HERE/symbols.sh" "$TREE/build"
fi

if [ "$failures" -ne 0 ]; then
  exit 1
fi
echo "lint: every planted fault was found"
