# Which module may include which, and where third-party headers may appear. These lists are the
# rule; docs/architecture.md draws them. Input: all sources as file arguments, relative to the root.
# Prints file:line of each breach, exit 1. SPDX-License-Identifier: MIT

BEGIN {
  # Direct edges; what they reach is allowed as well.
  edge["apps"] = "core/engine"
  edge["core/engine"] = "core/model"
  edge["core/model"] = "parallel io"
  edge["parallel"] = "kernels"
  edge["kernels"] = "core/base"
  edge["io"] = "core/base"
  edge["core/base"] = ""
  # These see every module.
  anything["tests"] = anything["benchmarks"] = 1
  n_modules = split("core/base core/model core/engine apps kernels parallel io tests benchmarks", modules, " ")

  # Written by CMake into the build tree.
  generated["git_version.h"] = 1

  # Header pattern -> pattern of the files that may include it. Tests of the file format write
  # hostile files, so they may call HDF5 themselves; the benchmark of the exchange compares with MPI.
  fence("^(cuda|cublas|curand|cooperative_groups|mma\\.h|nvtx|nvToolsExt|cub/|thrust/)",
        "^(kernels/cuda/|core/base/device_cuda|parallel/nccl_|tests/support/fake_cublas)", "CUDA")
  fence("^nccl", "^(parallel/nccl_|tests/support/fake_nccl)", "NCCL")
  fence("^(mpi\\.h|mpi-ext\\.h|openmpi/)", "^(parallel/|benchmarks/bench_exchange)", "MPI")
  fence("^(hdf5|H5)", "^(io/|tests/io/|tests/apps/)", "HDF5")
  fence("^CLI/", "^apps/", "CLI11")
  fence("^(gtest|gmock)/", "^tests/", "GoogleTest")
  fence("^(histedit|editline/)", "^apps/line_editor_", "libedit")
  fence("^(pcre2|utf8proc)", "^io/", "PCRE2 and utf8proc")
  fence("^openssl/", "^io/sha256\\.cpp", "OpenSSL")
}

function fence(header, files, what) {
  ++n_fences
  fence_header[n_fences] = header
  fence_files[n_fences] = files
  fence_name[n_fences] = what
}

function module_of(path, i) {
  for (i = 1; i <= n_modules; ++i) {
    if (index(path, modules[i] "/") == 1) return modules[i]
  }
  return ""
}

function reaches(from, to, next_modules, n, i) {
  if (from == to) return 1
  n = split(edge[from], next_modules, " ")
  for (i = 1; i <= n; ++i) {
    if (reaches(next_modules[i], to)) return 1
  }
  return 0
}

function breach(text) {
  printf "%s:%d: %s\n", FILENAME, FNR, text
  failed = 1
}

/^[ \t]*#[ \t]*include[ \t]*["<]/ {
  quoted = $0 ~ /include[ \t]*"/
  header = $0
  sub(/^[^"<]*["<]/, "", header)
  sub(/[">].*$/, "", header)
  from = module_of(FILENAME)
  to = module_of(header)
  if (from == "") breach("is in no module (tests/lint/layering.awk lists them)")
  if (quoted && to == "" && !(header in generated)) breach("\"" header "\": includes of ours begin at the repository root")
  if (to != "" && !(from in anything) && !reaches(from, to)) {
    breach(from " must not include " to " (" header ")")
  }
  for (i = 1; i <= n_fences; ++i) {
    if (header ~ fence_header[i] && FILENAME !~ fence_files[i]) {
      breach(fence_name[i] " header " header " outside " fence_files[i])
    }
  }
}

END { exit failed }
