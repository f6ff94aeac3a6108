#!/usr/bin/env bash
# Every shell script parses; where shellcheck is installed it finds nothing either.
# Usage: shell.sh ROOT. SPDX-License-Identifier: MIT
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$1" && pwd)
# shellcheck source=tests/lint/sources.sh
source "$HERE/sources.sh"
cd "$ROOT"
failed=0
mapfile -t scripts < <(all_files | grep -E '^\.ci/[^.]*$|\.(sh|sbatch)$')
for script in "${scripts[@]}"; do
  bash -n "$script" || failed=1
done
if command -v shellcheck > /dev/null; then
  shellcheck -x -P SCRIPTDIR -P "$ROOT" --shell=bash "${scripts[@]}" || failed=1
else
  echo "shellcheck is not installed: only parsed"
fi
if [ "$failed" -ne 0 ]; then
  exit 1
fi
echo "shell: ${#scripts[@]} scripts are fine"
