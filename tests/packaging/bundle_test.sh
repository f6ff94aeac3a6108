#!/usr/bin/env bash
# The bundle on a machine with nothing but a kernel, glibc and a shell: a root directory of its own,
# in which the archive is unpacked and two ranks answer. Without the right to make one (a mount
# namespace), only what the files ask for is checked, and the test counts as skipped.
# Usage: bundle_test.sh SOURCE SCRATCH PROGRAM... . SPDX-License-Identifier: MIT
set -euo pipefail
source=$1
scratch=$2
shift 2
for tool in patchelf xz; do
  if ! command -v "$tool" > /dev/null; then
    echo "skipped: $tool is not installed (.ci/setup)"
    exit 77
  fi
done
work=$(mktemp -d "$scratch/bundle_test.XXXXXX")
elsewhere=$(mktemp -d "${TMPDIR:-/tmp}/bare_root.XXXXXX")
trap 'rm -rf --one-file-system "$work" "$elsewhere"' EXIT
failed=0
wrong() {
  echo "WRONG: $*"
  failed=1
}

bash "$source/packaging/make_bundle.sh" "$source" "$work/glm_infer-test-x86_64.tar.xz" "$@"
bytes=$(stat -c %s "$work/glm_infer-test-x86_64.tar.xz")
if [ "$bytes" -gt 24000000 ]; then wrong "the archive has $bytes bytes"; fi
mkdir "$elsewhere/opt"
tar -C "$elsewhere/opt" -xJf "$work/glm_infer-test-x86_64.tar.xz"
bundle=$elsewhere/opt/glm_infer-test-x86_64

# What is not ours to give away, and what no file may need from outside.
cuda=$(find "$bundle" -iname '*libcuda*' -o -iname '*nccl*.so*' -o -iname '*cublas*' -o -iname '*nvidia*' -o -iname '*nvrtc*')
if [ -n "$cuda" ]; then wrong "parts of CUDA: $cuda"; fi
glibc='^(ld-linux-x86-64|libc|libm|libmvec|libpthread|libdl|librt|libresolv|libutil)\.so'
checked=0
while IFS= read -r file; do
  dynamic=$(readelf -d "$file" 2> /dev/null) || continue
  grep -q 'Dynamic section' <<< "$dynamic" || continue
  checked=$((checked + 1))
  # shellcheck disable=SC2016 # $ORIGIN is the loader's
  if ! grep -qE '\(RPATH\).*\[\$ORIGIN' <<< "$dynamic"; then wrong "$file: no RPATH of its own"; fi
  while IFS= read -r library; do
    if ! [[ $library =~ $glibc ]] && [ ! -f "$bundle/lib/$library" ]; then wrong "$file needs $library"; fi
  done < <(sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' <<< "$dynamic")
  newest=$(objdump -T "$file" | grep -oE 'GLIBC_2\.[0-9]+' | sort -V | tail -n 1 || true)
  if [ "${newest#GLIBC_2.}" -gt 36 ] 2> /dev/null; then wrong "$file needs $newest"; fi
done < <(find "$bundle" -type f \( -perm -u+x -o -name '*.so*' \))
if [ "$checked" -lt 50 ]; then wrong "only $checked programs and libraries were found"; fi

# Without a GPU the checklist says so and nothing else.
code=0
said=$(cd "$work" && CUDA_VISIBLE_DEVICES='' "$bundle/gpu_checklist.sh" 2>&1) || code=$?
if [ "$code" != 77 ] || [ "$(wc -l <<< "$said")" != 1 ] || ! grep -q 'no GPU' <<< "$said"; then
  wrong "gpu_checklist.sh without a GPU: exit code $code, $said"
fi
if [ "$("$bundle/gpu_checklist.sh" --list '^(device|ops|memcheck)$' | wc -l)" != 3 ]; then wrong "gpu_checklist.sh --list"; fi

# The bare root: the loader and libraries of glibc, a shell, and the few words that launchers use.
mkdir -p "$elsewhere"/{bin,dev,proc,sys,tmp,etc,lib64}
for word in sh readlink dirname basename cat; do cp "$(readlink -f "$(command -v "$word")")" "$elsewhere/bin/$word"; done
while IFS= read -r path; do
  mkdir -p "$elsewhere$(dirname "$path")"
  cp -L "$path" "$elsewhere$path"
done < <(ldd "$elsewhere"/bin/{sh,readlink,dirname,basename,cat} | grep -oE '/[^ ]+\.so[^ ]*' | sort -u)
folder=$(dirname "$(ldd /bin/sh | awk '$1 == "libc.so.6" { print $3 }')")
for library in libm.so.6 libmvec.so.1 libpthread.so.0 libdl.so.2 librt.so.1 libresolv.so.2 libutil.so.1; do
  if [ -e "$folder/$library" ]; then cp -L "$folder/$library" "$elsewhere$folder/"; fi
done
cat > "$elsewhere/run.sh" <<'RUN'
set -e
export HOME=/tmp PATH=/bin OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_mpi_yield_when_idle=1
cd /opt/glm_infer-test-x86_64
if [ -e /usr/bin/mpirun ] || [ -e /etc/openmpi ]; then echo "this root is not bare"; exit 1; fi
echo "== two ranks"
bin/glm_convert models/tiny /tmp/tiny.h5
bin/mpirun --oversubscribe -np 2 bin/glm_infer --model /tmp/tiny.h5 \
  --prompt "What is the capital of France?" --temperature 0 --threads 1
echo "== alone"
bin/glm_infer --model /tmp/tiny.h5 --prompt "What is the capital of Japan?" --temperature 0 --threads 1
echo "== tests"
tests/ops_test --gtest_brief=1 --gtest_filter='*Rms*:*Softmax*:*Moe*f32*'
bin/mpirun --oversubscribe -np 2 tests/mpi_communicator_test --gtest_brief=1
echo "== done"
RUN
enter=(unshare --mount)
if [ "$(id -u)" != 0 ]; then enter+=(--map-root-user); fi
if ! "${enter[@]}" true 2> /dev/null; then
  if [ "$failed" != 0 ]; then exit 1; fi
  echo "skipped: no right to a mount namespace here; only what the files ask for was checked"
  exit 77
fi
code=0
# shellcheck disable=SC2016 # $1 is the inner shell's
"${enter[@]}" sh -c 'for f in dev proc sys; do mount --rbind "/$f" "$1/$f"; done; exec chroot "$1" /bin/sh /run.sh' \
  sh "$elsewhere" > "$work/run.txt" 2>&1 < /dev/null || code=$?
sed 's/^/  /' "$work/run.txt"
for text in Paris Tokyo '== done'; do
  if ! grep -q "$text" "$work/run.txt"; then wrong "no \"$text\" in the bare root"; fi
done
if [ "$code" != 0 ]; then wrong "exit code $code in the bare root"; fi
if [ "$failed" != 0 ]; then exit 1; fi
echo "bundle: $checked programs and libraries need nothing but glibc; two ranks answered in a bare root"
