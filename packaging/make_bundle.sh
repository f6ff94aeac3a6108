#!/usr/bin/env bash
# Makes the relocatable archive from built programs: what they need is found until nothing is
# missing, and every file is told to look for libraries beside itself.
# Usage: make_bundle.sh SOURCE ARCHIVE.tar.xz PROGRAM... (PROGRAM: a built file; those of a folder
# `tests` go there). SPDX-License-Identifier: MIT
set -euo pipefail
source=$1
archive=$2
shift 2
limit=24000000

fail() {
  echo "make_bundle: $*" >&2
  exit 1
}

for tool in cc patchelf strip ldd xz mpirun; do
  command -v "$tool" > /dev/null || fail "$tool is missing; .ci/setup installs it"
done

# Of the system: glibc, which has to fit the kernel's loader, and what belongs to the GPU's driver
# and toolkit. Everything else travels.
glibc='^(ld-linux-x86-64|libc|libm|libmvec|libpthread|libdl|librt|libresolv|libutil|libanl|libnsl|libnss_.*)\.so'
cuda='^lib(cuda|cudart|cublas|cublasLt|nccl|nvrtc|nvidia-.*|nvJitLink|cusparse|cudnn)\.so'
stood_in='^libcurl\.so'
# Open MPI's parts for network cards of clusters, whose libraries are as large as all the others
# together, and for files and shared memory in ways that are not used here.
unused='ucx|ofi|psm|openib|verbs|oshmem|memheap|scoll|spml|sshmem|atomic|flux|simulator|gridengine|jsm'
unused+='|monitoring|romio|ompio|fbtl|fcoll|_fs_|sharedfp|dbg_msgq|vprotocol|crs_'

name=$(basename "$archive" .tar.xz)
work=$(mktemp -d "$(dirname "$archive")/bundle.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/$name
mkdir -p "$root"/{bin,tests,libexec,lib/openmpi,lib/pmix,share/openmpi,share/pmix,share/licenses,etc,models}
cp "$source/packaging/env.sh" "$root/"

# take FILE FOLDER: a copy that can be changed, without symbols.
take() {
  install -m 755 "$1" "$2/"
  strip --strip-unneeded "$2/$(basename "$1")"
}

# Programs that use MPI are started through a launcher, which sets what env.sh sets.
launcher() {
  cp "$source/packaging/launcher.sh" "$1"
  chmod 755 "$1"
}

for program in "$@"; do
  [ -f "$program" ] || fail "$program is not built"
  place=bin
  case "$program" in */tests/*) place=tests ;; esac
  if [[ $(ldd "$program") == *libmpi.so* ]]; then
    take "$program" "$root/libexec"
    launcher "$root/$place/$(basename "$program")"
  else
    take "$program" "$root/$place"
  fi
done

# Where Open MPI is installed, it says itself.
for word in orterun orted; do take "$(readlink -f "$(command -v "$word")")" "$root/libexec"; done
mv "$root/libexec/orterun" "$root/libexec/mpirun"
ln -s mpirun "$root/libexec/mpiexec"
for word in mpirun mpiexec orted; do launcher "$root/bin/$word"; done
place_of() { ompi_info --parsable --path "$1" | sed -n "s/^path:$1://p"; }
plugins=$(place_of pkglibdir)
for plugin in "$plugins"/mca_*.so; do
  if ! [[ ${plugin##*/} =~ $unused ]]; then take "$plugin" "$root/lib/openmpi"; fi
done
cp "$(place_of pkgdatadir)"/help-*.txt "$root/share/openmpi/"
printf '%s\n' '# Open MPI: in this bundle there is nothing for the network cards of clusters.' \
  'btl_base_warn_component_unused = 0' > "$root/etc/openmpi-mca-params.conf"
pmix=$(ldd "$root/lib/openmpi/mca_pmix_ext3x.so" | awk '$1 ~ /^libpmix\.so/ { print $3 }')
pmix=$(dirname "$(readlink -f "$pmix")")
for folder in "$pmix" "$pmix"/pmix2/lib; do
  for plugin in "$folder"/pmix/pmix_mca_*.so; do
    if [ -f "$plugin" ]; then take "$plugin" "$root/lib/pmix"; fi
  done
  if [ -d "$folder/../share/pmix" ]; then cp "$folder"/../share/pmix/help-*.txt "$root/share/pmix/"; fi
done

# Where each library is, ldd knows; which of them are needed, the files say, one after the other.
mapfile -t files < <(find "$root"/{bin,tests,libexec,lib} -type f -perm -u+x)
declare -A known=() found=()
while read -r library arrow path _; do
  if [ "$arrow" = "=>" ]; then known[$library]=$path; fi
done < <(for file in "${files[@]}"; do ldd "$file" 2> /dev/null || true; done | sort -u)
while [ "${#files[@]}" -gt 0 ]; do
  mapfile -t needed < <(readelf -d "${files[@]}" 2> /dev/null | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | sort -u)
  files=()
  for library in "${needed[@]}"; do
    if [[ $library =~ $glibc|$cuda|$stood_in ]] || [ -n "${found[$library]:-}" ]; then continue; fi
    path=${known[$library]:-}
    [ -f "$path" ] || fail "$library, which a program needs, is not on this machine"
    found[$library]=$(readlink -f "$path")
    install -m 644 "${found[$library]}" "$root/lib/$library"
    files+=("$root/lib/$library")
  done
done

# Debian's HDF5 can read files from web servers, which nobody asks of it here, and for that wants libcurl
# with thirty more libraries. A libcurl that always says no stands in.
for library in "$root"/lib/libhdf5*.so*; do
  nm -D "$library" | sed -nE 's/^ +U (curl_[a-z_]+)@.*/void *\1(void);\nvoid *\1(void) { return 0; }/p' > "$work/curl.c"
  nm -D "$library" | sed -nE 's/^ +U curl_[a-z_]+@(.*)/\1 { global: curl_*; };/p' | sort -u > "$work/curl.map"
  if [ -s "$work/curl.c" ]; then
    curl=$(readelf -d "$library" | sed -nE 's/.*\(NEEDED\).*\[(libcurl.*)\]/\1/p')
    cc -shared -fPIC -O1 -s -Wl,-soname,"$curl" -Wl,--version-script="$work/curl.map" "$work/curl.c" -o "$root/lib/$curl"
  fi
done

# RPATH, not RUNPATH: it holds for the needs of what is loaded later as well, and goes before an
# LD_LIBRARY_PATH with another Open MPI.
for file in "$root"/libexec/* "$root"/tests/* "$root"/bin/*; do
  # shellcheck disable=SC2016 # $ORIGIN is for the loader
  if [ ! -L "$file" ] && readelf -h "$file" > /dev/null 2>&1; then patchelf --force-rpath --set-rpath '$ORIGIN/../lib' "$file"; fi
done
# shellcheck disable=SC2016
patchelf --force-rpath --set-rpath '$ORIGIN' "$root"/lib/*.so*
# shellcheck disable=SC2016
patchelf --force-rpath --set-rpath '$ORIGIN/..' "$root"/lib/openmpi/*.so
# shellcheck disable=SC2016
if compgen -G "$root/lib/pmix/*.so" > /dev/null; then
  patchelf --force-rpath --set-rpath '$ORIGIN/..' "$root"/lib/pmix/*.so
fi

# Debian's packages come with their licences. Some are listed with the folders of before /usr was all.
mapfile -t paths < <(readlink -f "${found[@]}" "$plugins/mca_pml_ob1.so" "$(command -v mpirun)" | sed 'p; s|^/usr||')
mapfile -t packages < <(dpkg-query -S "${paths[@]}" 2> /dev/null | sed 's/:.*//' | sort -u)
for package in "${packages[@]}"; do
  if [ -f "/usr/share/doc/$package/copyright" ]; then
    cp -L "/usr/share/doc/$package/copyright" "$root/share/licenses/$package"
  fi
done
cp "$source/LICENSE" "$root/"

# The demonstration model, its questions, and models with known greedy answers.
mkdir -p "$root/models/tiny" "$root/models/golden" "$root/models/shapes"
cp "$source"/tests/data/tiny/*.{json,jinja,safetensors} "$source/tests/data/tiny/expected/answers.jsonl" "$root/models/tiny/"
for model in glm4_moe_air glm4_moe_355b qwen3_moe glm; do
  mkdir "$root/models/golden/$model"
  cp "$source/tests/data/golden/$model"/{config,generation_config,expected}.json \
    "$source/tests/data/golden/$model/model.safetensors" "$root/models/golden/$model/"
done
cp "$source"/packaging/shapes/*.json "$root/models/shapes/"

install -m 755 "$source/packaging/gpu_checklist.sh" "$root/"
cp "$source/packaging/bundle.txt" "$root/README.txt"
# Without a driver or a GPU the programs still start: this one says what it was built from.
"$root/bin/glm_infer" --version > "$root/VERSION" || fail "glm_infer of the bundle does not run here"

# Programs share most of their code, which one dictionary for all of them finds.
tar -C "$work" --sort=name --owner=0 --group=0 --numeric-owner --mtime='2000-01-01' -cf - "$name" |
  xz -T1 --lzma2=preset=1,dict=128MiB > "$work/archive"
bytes=$(stat -c %s "$work/archive")
echo "bundle: $archive: $bytes bytes, $(du -sm "$root" | cut -f1) MB unpacked," \
  "${#found[@]} libraries, $(find "$root/lib/openmpi" -name '*.so' | wc -l) parts of Open MPI"
if [ "$bytes" -gt "$limit" ]; then fail "the archive has $bytes bytes, at most $limit are allowed"; fi
mv "$work/archive" "$archive"
