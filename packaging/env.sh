# shellcheck shell=sh
# What Open MPI and its libraries need to find their parts in this folder instead of where they were
# installed. For the programs of the bundle only. SPDX-License-Identifier: MIT
#
# From bash: source env.sh. From other shells: set GLM_BUNDLE to this folder first.
if [ -n "${BASH_VERSION:-}" ]; then
  # shellcheck disable=SC3028,SC3054 # guarded: bash only
  GLM_BUNDLE=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
fi
export GLM_BUNDLE
export OPAL_PREFIX="$GLM_BUNDLE" OPAL_LIBDIR="$GLM_BUNDLE/lib" OPAL_PKGLIBDIR="$GLM_BUNDLE/lib/openmpi"
export OPAL_PKGDATADIR="$GLM_BUNDLE/share/openmpi" OPAL_SYSCONFDIR="$GLM_BUNDLE/etc"
export PMIX_PREFIX="$GLM_BUNDLE" PMIX_LIBDIR="$GLM_BUNDLE/lib" PMIX_PKGLIBDIR="$GLM_BUNDLE/lib/pmix"
export PMIX_PKGDATADIR="$GLM_BUNDLE/share/pmix" PMIX_SYSCONFDIR="$GLM_BUNDLE/etc"
# Plugins of another hwloc, if the machine has one, do not fit ours.
export HWLOC_PLUGINS_PATH="$GLM_BUNDLE/lib/hwloc"
# Without a shell for other machines Open MPI would not start ranks on this one either.
if [ -z "${OMPI_MCA_plm:-}" ] && ! command -v ssh > /dev/null && ! command -v rsh > /dev/null; then
  export OMPI_MCA_plm=^rsh
fi
