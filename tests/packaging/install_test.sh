#!/usr/bin/env bash
# cmake --install into a folder that is then moved: programs run and answer from there, man pages and
# completions have every option of --help, bash completes, module files find their prefix.
# Usage: install_test.sh CMAKE BUILD SCRATCH MPIRUN . SPDX-License-Identifier: MIT
set -euo pipefail
cmake=$1
build=$2
mpirun=$4
work=$(mktemp -d "$3/install_test.XXXXXX")
trap 'rm -rf "$work"' EXIT
failed=0
wrong() {
  echo "WRONG: $*"
  failed=1
}

"$cmake" --install "$build" --prefix "$work/first" > "$work/installed.txt"
mv "$work/first" "$work/moved"
prefix=$work/moved
if grep -rIl "$work/first" "$prefix"; then wrong "these files name the folder they were installed to"; fi

programs=0
for program in "$prefix"/bin/*; do
  programs=$((programs + 1))
  name=$(basename "$program")
  version=$("$program" --version)
  if ! grep -q "^$name [0-9.]* (commit " <<< "$version"; then wrong "$name --version: $version"; fi
  if readelf -d "$program" | grep -E 'R(UN)?PATH'; then wrong "$name looks for libraries in a fixed place"; fi
done
if [ "$programs" -lt 4 ]; then wrong "only $programs programs"; fi

# Two ranks answer from the moved folder.
model=$work/tiny.h5
"$prefix/bin/glm_convert" "$prefix/share/glm_infer/models/tiny" "$model" > /dev/null
answer=$("$mpirun" --oversubscribe -np 2 "$prefix/bin/glm_infer" --model "$model" --threads 1 \
  --prompt "What is the capital of France?" --temperature 0 2> "$work/err.txt" < /dev/null)
if ! grep -q Paris <<< "$answer"; then wrong "two ranks answered: $answer $(cat "$work/err.txt")"; fi

# One file for each of the program's forms, with every option of --help and of its commands' --help.
check_options() { # PROGRAM MAN BASH ZSH FISH COMMAND...
  local program=$1 man=$2 bash=$3 zsh=$4 fish=$5 help option found=0
  shift 5
  help=$("$program" "$@" --help)
  while IFS= read -r option; do
    found=$((found + 1))
    # In the page a hyphen is a minus sign.
    if ! grep -qF -- "\\fB${option//-/\\-}\\fR" "$man"; then wrong "$man: no $option"; fi
    if ! grep -qE -- "[' ]${option}[' ]" "$bash"; then wrong "$bash: no $option"; fi
    if ! grep -qF -- "${option}[" "$zsh"; then wrong "$zsh: no $option"; fi
    if ! grep -qE -- " -l ${option#--}( |$)" "$fish"; then wrong "$fish: no $option"; fi
  done < <(sed -nE 's/^ +(-[A-Za-z],)?(--[a-z][a-z-]*).*/\2/p' <<< "$help" | sort -u)
  if [ "$found" -lt 2 ]; then wrong "$program $*: only $found options in --help"; fi
}
commands_of() { sed -nE '/^Subcommands:/,$s/^  ([a-z]+) .*/\1/p' <<< "$("$1" --help)"; }

for program in "$prefix"/bin/*; do
  name=$(basename "$program")
  files=("$prefix/share/man/man1/$name.1" "$prefix/share/bash-completion/completions/$name"
    "$prefix/share/zsh/site-functions/_$name" "$prefix/share/fish/vendor_completions.d/$name.fish")
  forms=(man bash zsh fish)
  for i in 0 1 2 3; do
    if ! cmp -s "${files[i]}" <("$program" --generate "${forms[i]}"); then wrong "${files[i]} is not what $name makes"; fi
  done
  check_options "$program" "${files[@]}"
  for command in $(commands_of "$program"); do
    check_options "$program" "${files[@]}" "$command"
    if ! grep -qF "\\fI$command\\fR" "${files[0]}" && ! grep -qE "^\.SS .*$command" "${files[0]}"; then
      wrong "${files[0]}: no command $command"
    fi
  done
  if command -v man > /dev/null; then
    said=$(LC_ALL=C.UTF-8 MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "${files[0]}" 2>&1 > /dev/null || true)
    if [ -n "$said" ]; then wrong "man warns of ${files[0]}: $said"; fi
  elif command -v groff > /dev/null; then
    said=$(groff -man -ww -Tutf8 -z "${files[0]}" 2>&1)
    if [ -n "$said" ]; then wrong "groff warns of ${files[0]}: $said"; fi
  fi
  if ! bash -n "${files[1]}"; then wrong "${files[1]}"; fi
  if command -v zsh > /dev/null && ! zsh -n "${files[2]}"; then wrong "${files[2]}"; fi
  if command -v fish > /dev/null && ! fish -n "${files[3]}"; then wrong "${files[3]}"; fi
done
if [ "$(commands_of "$prefix/bin/glm_eval" | wc -l)" -lt 3 ]; then wrong "glm_eval's commands were not found"; fi

# completed PROGRAM WORD...: what bash offers for the last word. The shell is a fresh one.
completed() {
  bash --norc --noprofile -c '
    source "$1/share/bash-completion/completions/$2"
    shift
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
    function_name=$(complete -p "$1" | sed -E "s/.*-F ([^ ]+) .*/\1/")
    "$function_name" "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2> /dev/null
    printf "%s " "${COMPREPLY[@]}"' bash "$prefix" "$@"
}
expect() { # WANTED GOT: what was asked
  if [ "$2" != "$1" ]; then wrong "completion: wanted '$1', got '$2'"; fi
}
expect '--pipeline ' "$(completed glm_infer --pip)"
expect '--repeat --repetition-penalty --reproducible ' "$(completed glm_infer --model x --rep | tr ' ' '\n' | sort | tr '\n' ' ' | sed 's/^ *//')"
expect 'auto reduce alltoall ' "$(completed glm_infer --expert-exchange '')"
expect 'reduce ' "$(completed glm_infer --expert-exchange = r)"
expect 'doctor ' "$(completed glm_infer doc)"
expect '--self-test ' "$(completed glm_infer doctor --self)"
expect '' "$(completed glm_infer --self | tr -d ' ')"
expect '' "$(completed glm_infer --seed '' | tr -d ' ')"
touch "$work/air.h5"
expect "$work/air.h5 " "$(completed glm_infer --model "$work/ai")"
expect "$work/air.h5 " "$(completed glm_inspect show "$work/ai")"
expect 'perplexity ' "$(completed glm_eval perp)"

# Module files say where they are.
modules=$prefix/share/modulefiles/glm_infer
version=$("$prefix/bin/glm_infer" --version | sed -nE '1s/^glm_infer ([^ ]+) .*/\1/p')
for file in "$modules/$version" "$modules/$version.lua"; do
  if [ ! -f "$file" ]; then wrong "no module file $file"; fi
  if grep -nE '@[A-Z]' "$file"; then wrong "$file has gaps"; fi
done
wanted="GLM_HOME $prefix
PATH $prefix/bin
MANPATH $prefix/share/man"
if command -v tclsh > /dev/null; then
  got=$(tclsh <<< "
    proc conflict {name} {}
    proc module-whatis {text} {}
    proc setenv {name value} { puts \"\$name \$value\" }
    proc prepend-path {name value} { puts \"\$name \$value\" }
    set ModulesCurrentModulefile $modules/$version
    source $modules/$version")
  if [ "$got" != "$wanted" ]; then wrong "the Tcl module file sets $got"; fi
fi
if command -v lua5.4 > /dev/null; then
  got=$(lua5.4 -e "
    function help() end
    function whatis() end
    function conflict() end
    function myFileName() return '$modules/$version.lua' end
    function pathJoin(a, b) return a .. '/' .. b end
    function setenv(name, value) print(name .. ' ' .. value) end
    prepend_path = setenv" "$modules/$version.lua")
  if [ "$got" != "$wanted" ]; then wrong "the Lua module file sets $got"; fi
fi

if [ "$failed" != 0 ]; then exit 1; fi
echo "install: $programs programs answer from where they were moved; man pages and completions are whole"
