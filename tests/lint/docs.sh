#!/usr/bin/env bash
# Keeps the documentation true where a script can: links exist, pages are listed, README begins with
# its two commands, test labels, environment variables and options are documented, and documented
# options exist. Usage: docs.sh ROOT. SPDX-License-Identifier: MIT
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$1" && pwd)
# shellcheck source=tests/lint/sources.sh
source "$HERE/sources.sh"
cd "$ROOT"
failed=0

wrong() {
  echo "$*"
  failed=1
}

mapfile -t pages < <(all_files | grep -E '\.md$')
for page in "${pages[@]}"; do
  folder=$(dirname "$page")
  while IFS= read -r link; do
    target=${link%%#*}
    case "$link" in
      http://* | https://* | mailto:* | '#'*) continue ;;
    esac
    if [ ! -e "$folder/$target" ]; then wrong "$page: link to $link, which does not exist"; fi
  done < <(grep -oE '\]\([^) ]+\)' "$page" | sed -E 's/^\]\(//; s/\)$//')
done

while IFS= read -r page; do
  name=${page#docs/}
  if [ "$name" != README.md ] && ! grep -qF "($name)" docs/README.md; then
    wrong "docs/README.md does not list $name"
  fi
done < <(all_files | grep -E '^docs/.*\.md$')

# The first two fenced blocks, one line each.
blocks=$(awk '/^```/ { inside = !inside; if (inside) ++n; next } inside && n <= 2 { print n ": " $0 }' README.md)
if [ "$blocks" != $'1: bash .ci/demo\n2: bash .ci/test' ]; then
  wrong "README.md: the first two fenced blocks must be 'bash .ci/demo' and 'bash .ci/test', one line each"
fi

while IFS= read -r label; do
  if ! grep -qE "^\| \`$label\` " docs/CONTRIBUTING.md; then
    wrong "docs/CONTRIBUTING.md: no row for the test label $label"
  fi
done < <(all_files | grep -E 'CMakeLists\.txt$' | xargs grep -ohE '\bLABELS?"? +"?[a-z][a-z;]*' |
  sed -E 's/.*[ "]//' | tr ';' '\n' | grep -E '^[a-z]+$' | sort -u)

# Everything the programs read from the environment.
while IFS= read -r name; do
  if ! grep -qF "\`$name" docs/environment.md; then wrong "docs/environment.md: $name is missing"; fi
done < <(own_sources | grep -v '^tests/' | xargs -r grep -ohE '(getenv|setenv)\("[A-Z_a-z0-9]+"' |
  sed -E 's/.*"(.*)"/\1/' | sort -u)

# Options, both ways, as soon as there are programs.
mapfile -t apps < <(own_sources | grep '^apps/')
if [ "${#apps[@]}" -ne 0 ]; then
  while IFS= read -r option; do
    if ! grep -qE -- "\`${option}[\` =]" docs/*.md; then wrong "docs: option $option is not documented"; fi
  done < <(grep -ohE '"!?(-[A-Za-z],)?--[a-z][a-z-]+' "${apps[@]}" | grep -oE -- '--[a-z-]+' | sort -u)
  while IFS= read -r option; do
    if ! grep -qE -- "$option\b" "${apps[@]}"; then wrong "docs/running.md: $option does not exist in apps/"; fi
  done < <(grep -oE '^\| `--[a-z-]+' docs/running.md | grep -oE -- '--[a-z-]+' | sort -u)
fi

if [ "$failed" -ne 0 ]; then
  exit 1
fi
echo "docs: ${#pages[@]} pages are consistent"
