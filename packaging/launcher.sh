#!/bin/sh
# Starts the program of its own name with the bundle's Open MPI. SPDX-License-Identifier: MIT
self=$(readlink -f -- "$0")
GLM_BUNDLE=$(dirname -- "$(dirname -- "$self")")
# shellcheck source=packaging/env.sh
. "$GLM_BUNDLE/env.sh"
exec "$GLM_BUNDLE/libexec/$(basename -- "$self")" "$@"
