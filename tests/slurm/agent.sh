#!/usr/bin/env bash
# Stands in for ssh where mpirun starts its daemon on a pretended host: HOST COMMAND...
# SPDX-License-Identifier: MIT
set -euo pipefail
host=$1
shift
exec nsenter --target="$(cat "/run/glm/$host/init")" --mount --net --pid --uts --ipc \
  env TMPDIR="/run/glm/$host/tmp" bash -c "$*"
