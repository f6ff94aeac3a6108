// The one table of tensors: name, shape, role, split and source of every tensor of a model.
// Converter, loader, memory plan, synthetic models and glm_inspect all read these rows
// (docs/adding_a_model.md). SPDX-License-Identifier: MIT
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/model/config.h"

namespace glm {

// Decides the stored dtype: vectors, router weights and biases stay f32.
enum class Role : uint8_t { kEmbedding, kHead, kMatrix, kVector, kRouter };

// How tensor-, expert- and pipeline-parallel ranks divide a tensor (core/model/shard.h).
enum class Split : uint8_t {
  kNone,      // on every rank of the stage
  kVocab,     // rows, in units of 16
  kQkv,       // rows of the rank's heads: query, key, value; also the bias
  kHeadCols,  // columns of the rank's query heads (out projection)
  kGateUp,    // gate and up rows, in units of 32
  kDown,      // columns, in units of 32
};

// For the plan and for reports.
enum class Kind : uint8_t {
  kEmbedding,
  kHead,
  kAttention,
  kDense,
  kExperts,
  kShared,
  kRouter,
  kNorm,
  kMtp
};
std::string_view kind_name(Kind kind);

// A piece of a stored tensor in the checkpoint: `rows` rows of source tensor `name` from row
// `first_row`, which become the next rows of matrix `matrix` (gate rows before up rows; q before k
// before v). Elements of a vector count as rows.
struct SourcePart {
  std::string name;
  int64_t matrix = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
};

struct TensorSpec {
  std::string name;           // in the model file
  std::vector<int64_t> dims;  // [n] | [rows, cols] | [n_experts, rows, cols]
  Role role = Role::kMatrix;
  Split split = Split::kNone;
  Kind kind = Kind::kNorm;
  int64_t layer = -1;     // -1: embedding, head, final norm; n_layers: MTP
  bool gated = false;     // rows hold gate and up (order: kernels/ops.h gate_up)
  bool experts = false;   // dims[0] counts experts, divided among expert shares
  bool optional = false;  // may be absent in the checkpoint (copies in an MTP layer)
  std::vector<SourcePart> sources;

  int64_t n_matrices() const { return dims.size() == 3 ? dims[0] : 1; }
  int64_t rows() const { return dims.size() == 1 ? 1 : dims[dims.size() - 2]; }
  int64_t cols() const { return dims.back(); }
  int64_t elements() const { return n_matrices() * rows() * cols(); }
};

// All tensors in file order: embedding, layers, final norm, head (absent when tied), then the MTP
// layer if `with_mtp`.
std::vector<TensorSpec> tensor_specs(const ModelConfig& config, bool with_mtp);

// --dtype, --embedding-dtype, --head-dtype.
struct DTypeChoice {
  DType body = DType::kQ40;
  DType embedding = DType::kQ80;
  DType head = DType::kQ80;
};
// The defaults of docs/file_format.md: embedding and head are q80 when the body is q40, else the
// body's dtype.
DTypeChoice default_dtypes(DType body);

// What a tensor is stored as: its role's dtype; f16 where the columns are no multiple of 32; tile16
// where quantised and all borders fall on 16 rows.
struct StoredType {
  DType dtype;
  Packing packing;
};
StoredType stored_type(const TensorSpec& spec,
                       const ModelConfig& config,
                       const DTypeChoice& choice);
int64_t stored_bytes(const TensorSpec& spec, StoredType type);

}  // namespace glm
