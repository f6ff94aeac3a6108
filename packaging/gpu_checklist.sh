#!/usr/bin/env bash
# Everything that a GPU has to show (docs/gpu_checklist.md), as one command from the unpacked bundle.
# Writes checklist.md, checklist.json and checklist.log into $OUT, or ./gpu_checklist_out; goes on
# after a step that fails. Exit code: 0 all passed, 1 some failed, 77 no GPU.
# SPDX-License-Identifier: MIT
#
# Usage: gpu_checklist.sh [--list] [--seconds N] [PATTERN...]
#   PATTERN     run the steps whose name matches one of these extended regular expressions
#   --seconds   start no step after so many seconds; what is left is noted as not run
#   GLM_NCCL_DIR=FOLDER with libnccl.so.2 (2.30 or newer): the steps with several ranks on one GPU
#               are run over NCCL as well
set -u
bundle=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
export bundle
list=0
limit=86400
patterns=()
while [ "$#" -gt 0 ]; do
  case "$1" in
    --list) list=1 ;;
    --seconds) limit=${2:?seconds}; shift ;;
    -*) sed -n 's/^# \{0,1\}//; 2,15p' "$0" >&2; exit 2 ;;
    *) patterns+=("$1") ;;
  esac
  shift
done

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_rmaps_base_oversubscribe=1
export TMPDIR="${TMPDIR:-/tmp}"
if [ "$list" = 0 ]; then
  "$bundle/tests/cuda_ops_test" --gtest_filter=None.* > /dev/null 2>&1
  if [ "$?" = 77 ]; then
    echo "gpu_checklist: skipped: no GPU on this machine (no device, no driver, or a build without CUDA)"
    exit 77
  fi
  out=${OUT:-gpu_checklist_out}
  mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 1
  work=$(mktemp -d "$TMPDIR/gpu_checklist.XXXXXX") || exit 1
  trap 'rm -rf "$work"' EXIT
  export work
  : > "$out/checklist.log"
fi
names=() states=() times=() notes=()

# step NAME SECONDS COMMAND...: 77 from the command means that something it needs is not here.
step() {
  local name=$1 seconds=$2 pattern chosen=1 begin code state note
  shift 2
  if [ "${#patterns[@]}" -gt 0 ]; then
    chosen=0
    for pattern in "${patterns[@]}"; do if [[ $name =~ $pattern ]]; then chosen=1; fi; done
  fi
  if [ "$chosen" = 0 ]; then return; fi
  if [ "$list" = 1 ]; then
    printf '%-32s at most %4s s\n' "$name" "$seconds"
    return
  fi
  if [ "$SECONDS" -ge "$limit" ]; then
    note_result "$name" "not run" 0 "the time given by --seconds was over"
    return
  fi
  begin=$EPOCHREALTIME
  timeout -k 10 "$seconds" bash -o pipefail -c '"$@"' step "$@" > "$work/step.log" 2>&1 < /dev/null
  code=$?
  case "$code" in
    0) state=passed ;;
    77) state=skipped ;;
    124 | 137) state="timed out" ;;
    *) state="failed ($code)" ;;
  esac
  note=$(grep -a '^note: ' "$work/step.log" | tail -n 1 | cut -c 7-200)
  if [ -z "$note" ] && [ "$state" != passed ]; then
    note=$(grep -aE 'error|FAILED|ERROR|skipped' "$work/step.log" | head -n 1 | cut -c 1-200)
  fi
  note_result "$name" "$state" "$(awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')" "$note"
  { printf '\n===== %s: %s\n' "$name" "$state"; tail -c 200000 "$work/step.log"; } >> "$out/checklist.log"
}

note_result() {
  names+=("$1") states+=("$2") times+=("$3") notes+=("$(tr -d '|"\134' <<< "$4" | tr '\t\r' '  ')")
  printf '%-32s %-12s %8s s  %s\n' "$1" "$2" "$3" "$4"
}

# What follows runs in a shell of its own for each step, under its timeout.

model() {  # FOLDER DTYPE: converted once
  local file
  file=$work/$(basename "$1")_$2.h5
  if [ ! -f "$file" ]; then "$bundle/bin/glm_convert" "$1" "$file" --dtype "$2" >&2 || return 1; fi
  echo "$file"
}
infer() { "$bundle/bin/glm_infer" --device cuda --temperature 0 "$@"; }
ranks() {  # NP OPTIONS...: on the one GPU
  "$bundle/bin/mpirun" -np "$1" "$bundle/bin/glm_infer" --device cuda --allow-shared-gpu \
    --nccl "${nccl:-off}" --temperature 0 "${@:2}"
}
over_nccl() {  # COMMAND...: with the library of GLM_NCCL_DIR, which is to say that it was there
  local code
  if [ ! -e "${GLM_NCCL_DIR:-/none}/libnccl.so.2" ]; then
    echo "skipped: GLM_NCCL_DIR names no folder with libnccl.so.2"
    return 77
  fi
  rm -f "$work"/nccl.*
  NCCL_MULTI_RANK_GPU_ENABLE=1 NCCL_DEBUG=${NCCL_DEBUG:-WARN} NCCL_DEBUG_FILE="$work/nccl.%p" \
    GLM_NCCL_LIBRARY="$GLM_NCCL_DIR/libnccl.so.2" nccl=on "$@"
  code=$?
  cat "$work"/nccl.* || true
  if [ "$code" = 0 ] && ! grep -qs 'NCCL version' "$work"/nccl.*; then
    echo "error: NCCL was not used"
    return 1
  fi
  return "$code"
}
machine() {
  uname -a
  ldd --version | head -n 1
  nvidia-smi || true
  cat "$bundle/VERSION"
  "$bundle/bin/glm_infer" --version
  echo "note: $(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null | head -n 1)"
}
device() {
  "$bundle/tests/device_cuda_test" | tee "$work/device.txt"
  local code=${PIPESTATUS[0]}
  if grep -q 'no GPU on this machine' "$work/device.txt"; then return 1; fi
  return "$code"
}
sanitize() {  # TOOL FILTER
  local tool
  tool=$(command -v compute-sanitizer || compgen -G '/usr/local/cuda*/bin/compute-sanitizer' | head -n 1)
  if [ -z "$tool" ]; then
    echo "skipped: no compute-sanitizer on this machine"
    return 77
  fi
  "$tool" --tool "$1" --error-exitcode 1 "$bundle/tests/cuda_ops_test" --gtest_brief=1 --gtest_filter="$2"
}
tiny_answer() {  # DTYPE
  local file
  file=$(model "$bundle/models/tiny" "$1") || return 1
  infer --model "$file" --prompt "What is the capital of France?" | tee "$work/answer.txt"
  grep -q Paris "$work/answer.txt"
}
all_answers() {  # DTYPE: all 412 questions, as on the CPU
  local file
  file=$(model "$bundle/models/tiny" "$1") || return 1
  "$bundle/bin/glm_eval" answers --model "$file" --jsonl "$bundle/models/tiny/answers.jsonl" --device cuda |
    tee "$work/answers.txt"
  echo "note: $(tail -n 1 "$work/answers.txt")"
  grep -q '^412 of 412' "$work/answers.txt"
}
golden_options() {  # NAME DTYPE: sets options and wanted
  local file folder=$bundle/models/golden/$1
  file=$(model "$folder" "$2") || return 1
  wanted=$(sed -E 's/.*"greedy": \[([^]]*)\].*/\1/; s/ //g' "$folder/expected.json")
  options=(--model "$file" --tokens "$(sed -E 's/.*"prompt": \[([^]]*)\].*/\1/; s/ //g' "$folder/expected.json")"
    --max-tokens "$(tr ',' '\n' <<< "$wanted" | wc -l)")
}
# The greedy tokens of an independent implementation, at f32.
golden() {  # NAME
  local options wanted
  golden_options "$1" f32 || return 1
  infer "${options[@]}" | tee "$work/golden.txt" || return 1
  if [ "$(tr -d ' \n' < "$work/golden.txt")" != "$wanted" ]; then
    echo "error: other tokens than $wanted"
    return 1
  fi
}
# Logits and tokens are, to the bit, those of the CPU.
bits() {  # NAME DTYPE
  local options wanted
  golden_options "$1" "$2" || return 1
  options+=(--reproducible --dump-logits)
  infer "${options[@]}" "$work/gpu.h5" > "$work/gpu.txt" || return 1
  "$bundle/bin/glm_infer" --device cpu --temperature 0 "${options[@]}" "$work/cpu.h5" > "$work/cpu.txt" || return 1
  cmp "$work/gpu.txt" "$work/cpu.txt" && same_logits "$work/gpu.h5" "$work/cpu.h5"
}
same_logits() {
  cmp "$1" "$2" || { echo "error: the logits differ"; return 1; }
}
prompt="Explain what MPI is."
one_rank() {  # DTYPE: what every grid must give
  file=$(model "$bundle/models/tiny" "$1") || return 1
  if [ ! -f "$work/one_$1.h5" ]; then
    infer --model "$file" --prompt "$prompt" --max-tokens 24 --reproducible --dump-logits "$work/one_$1.h5" \
      > "$work/one_$1.txt" || return 1
  fi
}
grid() {  # DTYPE NP AXES...
  local file dtype=$1 np=$2
  shift 2
  one_rank "$dtype" || return 1
  rm -f "$work/grid.h5"
  ranks "$np" "$@" --model "$file" --prompt "$prompt" --max-tokens 24 --reproducible --dump-logits "$work/grid.h5" |
    tee "$work/grid.txt" || return 1
  cmp "$work/grid.txt" "$work/one_$dtype.txt" && same_logits "$work/grid.h5" "$work/one_$dtype.h5"
}
mixed() {  # AXES...: a rank with the GPU and one without
  local file
  one_rank q40 || return 1
  rm -f "$work/mixed.h5"
  "$bundle/bin/mpirun" -np 2 "$bundle/bin/glm_infer" --device cuda,cpu "$@" --temperature 0 --model "$file" \
    --prompt "$prompt" --max-tokens 24 --reproducible --dump-logits "$work/mixed.h5" | tee "$work/mixed.txt" || return 1
  cmp "$work/mixed.txt" "$work/one_q40.txt" && same_logits "$work/mixed.h5" "$work/one_q40.h5"
}
blas() {  # DTYPE: with cuBLAS the answer to a long prompt is that of our own kernels
  local file long
  file=$(model "$bundle/models/tiny" "$1") || return 1
  long=$(yes "$prompt" | head -n 12 | tr '\n' ' ')
  infer --model "$file" --prompt "$long" --max-tokens 24 --json > "$work/blas.json" || return 1
  if ! grep -o 'cuBLAS [0-9.]*' "$work/blas.json"; then
    echo "skipped: no libcublas on this machine"
    return 77
  fi
  infer --model "$file" --prompt "$long" --max-tokens 24 > "$work/blas.txt" &&
    GLM_CUBLAS_LIBRARY=off infer --model "$file" --prompt "$long" --max-tokens 24 > "$work/own.txt" &&
    cmp "$work/blas.txt" "$work/own.txt"
}
refusal() {  # a plan that does not fit ends with exit code 4 and says what would fit
  local file code
  file=$(model "$bundle/models/tiny" q40) || return 1
  infer --model "$file" --prompt x --memory-fraction 0.000001
  code=$?
  echo "exit code $code"
  [ "$code" = 4 ]
}
synthetic() {  # CONFIG GB OPTIONS...: where the GPU has so much free
  local config=$1 needed=$2 free
  shift 2
  free=$(nvidia-smi --query-gpu=memory.free --format=csv,noheader,nounits 2> /dev/null | head -n 1)
  if [ -n "$free" ] && [ "$free" -lt $((needed * 1000)) ]; then
    echo "skipped: the GPU has $free MiB free, the model takes about $needed GB"
    return 77
  fi
  infer --synthetic "$config" --dtype q40 --embedding-dtype q40 --head-dtype q40 --benchmark "$@" 2>&1 |
    tee "$work/synthetic.txt" || return 1
  echo "note: $(grep -aE '^(prefill|decode): [0-9.]+ \(' "$work/synthetic.txt" | grep -oE '^[a-z]+: [0-9.]+' | tr '\n' ' ')tokens/s"
}
bench_forward() {  # MODEL or config.json
  local file=$1
  if [ -d "$1" ]; then file=$(model "$1" q40) || return 1; fi
  "$bundle/bin/bench_forward" "$file" --device cuda
}
bench_exchange() {  # NP
  "$bundle/bin/mpirun" -np "$1" "$bundle/bin/bench_exchange" --device cuda
}
export prompt
while read -r _ _ function; do export -f "${function?}"; done < <(declare -F)

tiny=$bundle/models/tiny/config.json
air=$bundle/models/shapes/glm-4.5-air.json
# Races are looked for where blocks work together; the largest shapes take hours under the tool.
small='-*cols4096*:*cols1*:*Attention*air*'
step machine 60 machine
step mpi 60 "$bundle/bin/mpirun" -np 2 "$bundle/tests/mpi_communicator_test" --gtest_brief=1
step device 120 device
step ops 600 "$bundle/tests/cuda_ops_test" --gtest_brief=1
for dtype in f32 f16 bf16 q80 q40; do step "tiny.$dtype" 60 tiny_answer "$dtype"; done
for name in glm4_moe_air glm4_moe_355b qwen3_moe glm; do
  step "golden.$name" 60 golden "$name"
  for dtype in f32 q80 q40; do step "bits.$name.$dtype" 60 bits "$name" "$dtype"; done
done
for dtype in f16 bf16; do step "blas.$dtype" 60 blas "$dtype"; done
step refusal 60 refusal
for dtype in q40 f32; do
  for axes in "--tensor 2" "--pipeline 2" "--data 2" "--data 2 --expert 2 --expert-exchange alltoall" \
    "--pipeline 2 --tensor 2" "--tensor 4" "--data 2 --tensor 2 --expert 4" "--data 4 --expert 4"; do
    np=$(grep -oE '(pipeline|tensor|data) [0-9]' <<< "$axes" | awk 'BEGIN { n = 1 } { n *= $2 } END { print n }')
    name=$(tr -d ' ' <<< "${axes//--/.}")
    # shellcheck disable=SC2086 # words are meant
    step "grid.$dtype$name" 120 grid "$dtype" "$np" $axes
    # shellcheck disable=SC2086
    step "nccl.$dtype$name" 120 over_nccl grid "$dtype" "$np" $axes
  done
done
step mixed.pipeline2 120 mixed --pipeline 2
step mixed.tensor2 120 mixed --tensor 2
step answers.q40 300 all_answers q40
step synthetic.tiny 60 synthetic "$tiny" 1 --prompt-tokens 64 --max-tokens 32
step synthetic.air 600 synthetic "$air" 64 --prompt-tokens 512 --max-tokens 128
step bench_ops 300 "$bundle/bin/bench_ops" --device cuda
step bench_forward.tiny 120 bench_forward "$bundle/models/tiny"
step bench_forward.air 300 bench_forward "$air"
for np in 2 4; do
  step "bench_exchange.$np" 120 bench_exchange "$np"
  step "nccl.bench_exchange.$np" 120 over_nccl bench_exchange "$np"
done
step memcheck 900 sanitize memcheck '*'
step racecheck 1800 sanitize racecheck "$small"
if [ "$list" = 1 ]; then exit 0; fi

failed=0
{
  printf '# GPU checklist\n\n%s, %s\n\n| step | result | s | note |\n|---|---|---|---|\n' \
    "$(date -u '+%Y-%m-%d %H:%M UTC')" "$(head -n 1 "$bundle/VERSION")"
  for i in "${!names[@]}"; do printf '| %s | %s | %s | %s |\n' "${names[i]}" "${states[i]}" "${times[i]}" "${notes[i]}"; done
} > "$out/checklist.md"
{
  printf '{"version": "%s", "steps": [' "$(head -n 1 "$bundle/VERSION" | tr -d '"\134')"
  for i in "${!names[@]}"; do
    printf '%s\n {"step": "%s", "result": "%s", "seconds": %s, "note": "%s"}' "$([ "$i" = 0 ] || echo ,)" \
      "${names[i]}" "${states[i]}" "${times[i]}" "${notes[i]}"
  done
  printf '\n]}\n'
} > "$out/checklist.json"
for state in "${states[@]}"; do
  case "$state" in passed | skipped) ;; *) failed=$((failed + 1)) ;; esac
done
passed=$(printf '%s\n' "${states[@]}" | grep -c '^passed$')
echo "gpu_checklist: $passed of ${#names[@]} steps passed, $failed failed, timed out or were not run; $out/checklist.md"
[ "$failed" = 0 ]
