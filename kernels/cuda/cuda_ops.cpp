// SPDX-License-Identifier: MIT
#include "kernels/cuda/cuda_ops.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/cost.h"
#include "kernels/cpu/kv_page.h"
#include "kernels/shards.h"

namespace glm::GLM_CUDA_SPACE {
namespace cuda = ::glm::GLM_CUDA_SPACE;  // members of Ops have the names of launches
namespace {

constexpr int64_t kBlasRows = 512;  // at a time: more would need more scratch and gain little
constexpr int64_t kPartialBytes = int64_t{64} << 20;  // of splits of the cache, where one row fits

int64_t padded(int64_t bytes) { return (bytes + 255) / 256 * 256; }

int64_t blocks_of(int64_t cols) { return (cols + kQuantBlock - 1) / kQuantBlock; }

cuda::Plane plane_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return cuda::Plane::kF32;
    case DType::kF16:
      return cuda::Plane::kF16;
    case DType::kBF16:
      return cuda::Plane::kBF16;
    case DType::kQ80:
      return cuda::Plane::kQ80;
    case DType::kQ40:
      return cuda::Plane::kQ40;
    default:
      fail(ExitCode::kRuntime, "CUDA: weights of {}", dtype_name(dtype));
  }
}

cuda::KvPlane plane_of(KvDType dtype) {
  if (dtype == KvDType::kF32) return cuda::KvPlane::kF32;
  return dtype == KvDType::kF16 ? cuda::KvPlane::kF16 : cuda::KvPlane::kQ8;
}

bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// What a product's kernels need to know of the matrix.
cuda::ProductArgs matrix_args(const Weight& w, bool gated) {
  cuda::ProductArgs a{};
  a.values = static_cast<const uint8_t*>(w.values);
  a.scales = static_cast<const uint16_t*>(w.scales);
  a.value_stride = w.value_stride();
  a.scale_stride = w.scale_stride() / 2;
  a.rows = w.rows;
  a.cols = w.cols;
  a.blocks = blocks_of(w.cols);
  a.shard_blocks = shard_cols(w.cols) / kQuantBlock;
  a.n_shards = static_cast<int>((a.blocks + a.shard_blocks - 1) / a.shard_blocks);
  a.tiles = w.packing == Packing::kTile16;
  a.gated = gated;
  a.width = gated ? w.rows / 2 : w.rows;
  return a;
}

}  // namespace

void launch_failed(const char* kernel, const char* error) {
  fail(ExitCode::kRuntime, "CUDA: kernel {}: {}", kernel, error);
}

CudaScratchPlan::CudaScratchPlan(const OpsLimits& limits) {
  const int64_t blocks = blocks_of(limits.max_cols);
  inputs = padded(limits.max_rows * blocks * kQuantBlock);
  scales = padded(limits.max_rows * blocks * static_cast<int64_t>(sizeof(cuda::QuantScale)));
  max_items = limits.max_rows;
  items = padded((max_items + 1) * static_cast<int64_t>(sizeof(cuda::WorkItem)));
  const int64_t splits = (limits.max_context + cuda::kSplitLength - 1) / cuda::kSplitLength;
  const int64_t row = 4 * limits.max_heads * splits * (2 + int64_t{limits.max_head_dim});
  const int64_t rows = std::min<int64_t>(limits.max_rows, cuda::kFewInputs);
  partials = splits <= 1 ? 0 : padded(std::min(rows * row, std::max(row, kPartialBytes)));
  if (!limits.fast || !limits.half_weights || limits.max_rows <= cuda::kFewInputs) return;
  workspace = kBlasWorkspace;
  max_piece = std::min(limits.max_rows, kBlasRows);
  parts = padded(max_piece * limits.max_cols * 2);
  part_scales = padded(max_piece * 4);
  // The width of gate is the number of columns of down; rows of wider matrices come by fewer.
  sums = padded(max_piece * 2 * limits.max_cols * 4);
}

CudaOps::CudaOps(Device& device, const OpsLimits& limits, cuda::Stream stream, std::string name)
    : plan_(limits), stream_(stream), name_(std::move(name)), fast_(limits.fast) {
  scratch_ = device.allocate(DType::kU8, {plan_.total() - plan_.blas()});
  auto* next = scratch_.as<uint8_t>();
  inputs_ = next;
  next += plan_.inputs;
  scales_ = reinterpret_cast<cuda::QuantScale*>(next);
  next += plan_.scales;
  items_ = reinterpret_cast<cuda::WorkItem*>(next);
  n_items_ = reinterpret_cast<int32_t*>(items_ + plan_.max_items);
  next += plan_.items;
  partials_ = reinterpret_cast<float*>(next);
  if (plan_.blas() == 0) return;
  blas_scratch_ = device.allocate(DType::kU8, {plan_.blas()});
  std::string reason;
  blas_ = open_blas(stream_, blas_scratch_.data, reason);
  if (blas_)
    name_ += ", " + blas_->text();
  else
    note_ =
        "products of f16 and bf16 matrices without cuBLAS, which is slower for prompts: " + reason;
}

// ---- products

// The one place that chooses: for few rows the weights' bytes count, which own kernels read once.
bool CudaOps::takes_blas(const Product& p) const {
  return blas_ && p.groups == nullptr && p.x.rows() > cuda::kFewInputs && p.w.n_matrices == 1 &&
         (p.w.dtype == DType::kF16 || p.w.dtype == DType::kBF16);
}

// out = low w^T + high w^T, small terms first, for as many rows at a time as the scratch holds.
void CudaOps::run_blas(const Product& p) {
  const Weight& w = p.w;
  const bool bf16 = w.dtype == DType::kBF16;
  const int64_t width = p.gated ? w.rows / 2 : w.rows;
  if (width == 0) return;
  auto* high = blas_scratch_.as<uint8_t>() + plan_.workspace;
  auto* low = high + plan_.parts;
  auto* scales = bf16 ? nullptr : reinterpret_cast<float*>(low + plan_.parts);
  auto* sums = reinterpret_cast<float*>(low + plan_.parts + plan_.part_scales);
  int64_t piece = std::min(plan_.max_piece, plan_.parts / (2 * w.cols));
  if (p.gated) piece = std::min(piece, plan_.sums / (4 * w.rows));
  GLM_CHECK(piece > 0, "a matrix of {} x {} exceeds the limits", w.rows, w.cols);
  for (int64_t first = 0; first < p.x.rows(); first += piece) {
    const int64_t n = std::min(piece, p.x.rows() - first);
    float* out = p.out.f32() + first * width;
    float* to = p.gated ? sums : out;
    cuda::cut_rows({p.x.f32() + first * w.cols,
                    reinterpret_cast<uint16_t*>(high),
                    reinterpret_cast<uint16_t*>(low),
                    scales,
                    w.cols},
                   n,
                   stream_);
    blas_->multiply({to, low, w.values, n, w.rows, w.cols, bf16, false});
    blas_->multiply({to, high, w.values, n, w.rows, w.cols, bf16, true});
    const float* bias = p.bias.absent() ? nullptr : p.bias.f32();
    if (p.gated || !bf16 || bias != nullptr)
      cuda::finish_rows_of_sums({out, to, scales, bias, width, p.gated}, n, stream_);
  }
}

void CudaOps::run(const Product& p) {
  if (takes_blas(p)) return run_blas(p);
  cuda::ProductArgs a = matrix_args(p.w, p.gated);
  const cuda::Plane plane = plane_of(p.w.dtype);
  const bool quantized = is_quantized(p.w.dtype);
  const int64_t n_rows = p.groups == nullptr || p.by_row ? p.x.rows() : p.groups->capacity;
  const int64_t n_outputs = p.groups == nullptr ? n_rows : p.groups->capacity;
  if (n_outputs == 0 || a.width == 0 || p.w.n_matrices == 0) return;
  GLM_CHECK(!quantized || n_rows * a.blocks * kQuantBlock <= plan_.inputs,
            "{} rows of {} columns exceed the limits",
            n_rows,
            a.cols);
  // Experts have at most as many inputs each as the step has rows.
  const int64_t most = p.groups == nullptr ? n_rows : p.groups->order.rows();
  const int tile = cuda::product_tile(plane, most);
  int64_t n_items = (n_outputs + tile - 1) / tile;
  cuda::PrepareArgs prepare{};
  if (quantized) prepare = {p.x.f32(), inputs_, scales_, n_rows, a.blocks, {}, {}, {}, {}, {}};
  if (p.groups != nullptr) {
    n_items = std::min(n_outputs, n_outputs / tile + p.groups->n_experts);
    GLM_CHECK(n_items <= plan_.max_items, "{} pieces of work exceed the limits", n_items);
    GLM_CHECK(p.groups->n_experts <= cuda::kMaxExperts, "{} experts", p.groups->n_experts);
    prepare.offsets = p.groups->offsets.i32();
    prepare.n_experts = p.groups->n_experts;
    prepare.tile = tile;
    prepare.items = a.items != nullptr ? nullptr : items_;
    prepare.n_items = n_items_;
    a.items = items_;
    a.n_items = n_items_;
    if (p.by_row) a.index = p.groups->rows.i32();
  }
  cuda::prepare(prepare, stream_);
  a.x = p.x.f32();
  a.q = inputs_;
  a.input_scales = scales_;
  a.n_inputs = n_outputs;
  a.bias = p.bias.absent() ? nullptr : p.bias.f32();
  a.out = p.out.f32();
  const int64_t in_16_bytes = 16 / (quantized ? 1 : dtype_size(p.w.dtype));
  a.aligned = aligned(a.values) && aligned(a.x) && a.cols % 4 == 0 && a.cols % in_16_bytes == 0;
  (quantized ? cuda::quantized_product : cuda::plain_product)(a, plane, tile, n_items, stream_);
}

void CudaOps::do_linear(Tensor out, Tensor x, const Weight& w, Tensor bias) {
  run({out, x, w, false, bias});
}

void CudaOps::do_gate_up(Tensor out, Tensor x, const Weight& w) { run({out, x, w, true}); }

void CudaOps::do_expert_gate_up(Tensor out, Tensor x, const ExpertGroups& groups, const Weight& w) {
  run({out, x, w, true, {}, &groups, true});
}

void CudaOps::do_expert_down(Tensor out, Tensor h, const ExpertGroups& groups, const Weight& w) {
  run({out, h, w, false, {}, &groups, false});
}

// ---- rows

void CudaOps::do_embed(Tensor out, Tensor ids, const Weight& table, int64_t first_row) {
  const cuda::EmbedArgs args{out.f32(),
                             ids.i32(),
                             table.values,
                             static_cast<const uint16_t*>(table.scales),
                             plane_of(table.dtype),
                             table.packing == Packing::kTile16,
                             table.rows,
                             table.cols,
                             first_row};
  cuda::embed(args, out.rows(), stream_);
}

void CudaOps::do_rms_norm(Tensor out, Tensor x, Tensor weight, float eps) {
  cuda::rms_norm({out.f32(), x.f32(), nullptr, weight.f32(), x.cols(), eps}, x.rows(), stream_);
}

void CudaOps::do_add_rms_norm(Tensor out, Tensor x, Tensor y, Tensor weight, float eps) {
  const Span span(trace_, "op.add_rms_norm", element_work(x.elements(), 4, 5));
  cuda::rms_norm({out.f32(), x.f32(), y.f32(), weight.f32(), x.cols(), eps}, x.rows(), stream_);
}

void CudaOps::do_head_norm(
    Tensor qkv, int first_head, int n_heads, int head_dim, Tensor weight, float eps) {
  cuda::head_norm({qkv.f32(), weight.f32(), qkv.cols(), first_head, n_heads, head_dim, eps},
                  qkv.rows(),
                  stream_);
}

void CudaOps::do_rope_table(Tensor out, Tensor positions, Tensor inv_freq) {
  cuda::rope_table(
      {out.f32(), positions.i32(), inv_freq.f32(), static_cast<int>(inv_freq.elements())},
      out.rows(),
      stream_);
}

void CudaOps::do_rope(Tensor qkv, Tensor table, const HeadLayout& heads, RopePairing pairing) {
  const cuda::RopeArgs args{qkv.f32(),
                            table.f32(),
                            heads.row_width(),
                            heads.n_heads + heads.n_kv_heads,
                            heads.head_dim,
                            static_cast<int>(table.cols() / 2),
                            pairing == RopePairing::kInterleaved};
  cuda::rope(args, qkv.rows(), stream_);
}

void CudaOps::do_gather_rows(Tensor out, Tensor x, Tensor index) {
  const cuda::GatherArgs args{
      out.as<uint32_t>(), x.as<const uint32_t>(), index.i32(), x.rows(), out.cols()};
  cuda::gather_rows(args, out.rows(), stream_);
}

void CudaOps::do_add(Tensor x, Tensor y) { cuda::add({x.f32(), y.f32(), x.elements()}, stream_); }

void CudaOps::do_concat_columns(Tensor out, Tensor in, const std::vector<int64_t>& widths) {
  cuda::ConcatArgs args{out.f32(), in.f32(), out.cols(), out.rows(), {}};
  int n = 0;
  int64_t to = 0;
  for (size_t i = 0; i < widths.size(); ++i) {
    args.slices[n++] = {to * out.rows(), to, widths[i]};
    to += widths[i];
    if (n < cuda::kMaxSlices && i + 1 < widths.size()) continue;
    cuda::concat_columns(args, n, stream_);
    n = 0;
  }
}

void CudaOps::do_pad_columns(Tensor out, Tensor in, int64_t first) {
  cuda::pad_columns({out.f32(), in.f32(), out.cols(), out.rows() == 0 ? 0 : in.cols(), first},
                    out.rows(),
                    stream_);
}

void CudaOps::do_fill_random(const Weight& w,
                             int64_t first,
                             int64_t count,
                             const RandomRows& from) {
  cuda::RandomArgs a{};
  a.values = static_cast<uint8_t*>(const_cast<void*>(w.values));
  a.scales = static_cast<uint16_t*>(const_cast<void*>(w.scales));
  a.value_stride = w.value_stride();
  a.scale_stride = w.scale_stride() / 2;
  a.first = first;
  a.count = count;
  a.cols = w.cols;
  a.plane = plane_of(w.dtype);
  a.tiles = w.packing == Packing::kTile16;
  a.key = from.key;
  a.low = from.low;
  a.width = from.width;
  a.all_rows = from.rows;
  a.all_cols = from.cols;
  a.alternate = from.alternate;
  a.from_matrix = from.first_matrix;
  a.from_row = from.first_row;
  a.from_col = from.first_col;
  cuda::fill_random(a, w.n_matrices, stream_);
}

// ---- experts

void CudaOps::do_route(
    Tensor experts, Tensor weights, Tensor logits, Tensor bias, const RouterConfig& config) {
  GLM_CHECK(config.n_experts <= cuda::kMaxExperts, "{} experts", config.n_experts);
  const cuda::RouteArgs args{experts.i32(),
                             weights.f32(),
                             logits.f32(),
                             bias.absent() ? nullptr : bias.f32(),
                             config.n_experts,
                             config.top_k,
                             config.n_group,
                             config.topk_group,
                             config.scale,
                             config.kind == RouterKind::kSigmoid,
                             config.norm_topk};
  cuda::route(args, logits.rows(), stream_);
}

void CudaOps::do_group_rows(ExpertGroups& groups,
                            Tensor experts,
                            Tensor weights,
                            int first_expert) {
  GLM_CHECK(groups.n_experts <= cuda::kMaxExperts, "{} experts", groups.n_experts);
  const int64_t n_rows = experts.rows();
  const cuda::GroupArgs args{groups.offsets.i32(),
                             groups.rows.i32(),
                             groups.order.i32(),
                             groups.weights.f32(),
                             experts.i32(),
                             weights.f32(),
                             n_rows,
                             n_rows == 0 ? 1 : static_cast<int>(experts.cols()),
                             groups.n_experts,
                             first_expert};
  cuda::group_rows(args, stream_);
}

void CudaOps::do_copy_rows(
    RowCopies& out, Tensor experts, Tensor weights, Tensor borders, int slices) {
  const int64_t n_rows = experts.rows();
  const cuda::CopyArgs args{out.index.i32(),
                            out.routing.i32(),
                            out.places.i32(),
                            experts.i32(),
                            weights.f32(),
                            borders.i32(),
                            n_rows,
                            n_rows == 0 ? 0 : out.places.cols(),
                            n_rows == 0 ? 0 : static_cast<int>(experts.cols()),
                            slices,
                            static_cast<int>(borders.elements() - 1) * slices};
  cuda::copy_rows(args, stream_);
}

void CudaOps::do_split_routing(Tensor experts, Tensor weights, Tensor routing) {
  const int64_t n = experts.elements();
  cuda::split_routing({experts.i32(),
                       weights.f32(),
                       routing.i32(),
                       n,
                       n == 0 ? 1 : static_cast<int>(experts.cols())},
                      stream_);
}

void CudaOps::do_combine(Tensor out, Tensor rows, const ExpertGroups& groups) {
  run_combine(out, rows, groups, nullptr);
}

void CudaOps::do_combine_add(Tensor out, Tensor rows, const ExpertGroups& groups, Tensor addend) {
  const Work work = element_work(groups.order.elements() * out.cols() + out.elements(), 1, 2);
  const Span span(trace_, "op.combine", work);
  run_combine(out, rows, groups, addend.f32());
}

void CudaOps::run_combine(Tensor out,
                          Tensor rows,
                          const ExpertGroups& groups,
                          const float* addend) {
  const int64_t n_rows = out.rows();
  const cuda::CombineArgs args{out.f32(),
                               rows.f32(),
                               addend,
                               groups.order.i32(),
                               groups.weights.f32(),
                               n_rows == 0 ? 0 : out.cols(),
                               n_rows == 0 ? 0 : static_cast<int>(groups.order.cols())};
  cuda::combine(args, n_rows, stream_);
}

// ---- attention

cuda::StoreArgs CudaOps::store_args(const KvLayer& cache,
                                    Tensor qkv,
                                    Tensor slots,
                                    const HeadLayout& heads) {
  const KvPageLayout page(cache);
  return {qkv.f32(),
          slots.i32(),
          static_cast<uint8_t*>(cache.keys),
          static_cast<uint8_t*>(cache.values),
          heads.row_width(),
          page.bytes(),
          page.scales(),
          cache.n_blocks * kKvBlockTokens,
          heads.n_heads,
          heads.n_kv_heads,
          heads.head_dim};
}

void CudaOps::do_store_kv(const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads) {
  cuda::store_kv(store_args(cache, qkv, slots, heads), plane_of(cache.dtype), qkv.rows(), stream_);
}

void CudaOps::do_place_heads(
    const KvLayer& cache, Tensor qkv, Tensor slots, const HeadLayout& heads, const HeadTurn& turn) {
  const Span span(trace_, "op.place_heads", element_work(2 * qkv.elements(), 2, 4));
  const cuda::HeadsArgs args{store_args(cache, qkv, slots, heads),
                             qkv.f32(),
                             turn.q_norm.absent() ? nullptr : turn.q_norm.f32(),
                             turn.k_norm.absent() ? nullptr : turn.k_norm.f32(),
                             turn.table.f32(),
                             turn.eps,
                             static_cast<int>(turn.table.cols() / 2),
                             turn.pairing == RopePairing::kInterleaved};
  cuda::place_heads(args, plane_of(cache.dtype), qkv.rows(), stream_);
}

void CudaOps::do_attention(
    Tensor out, Tensor qkv, const KvLayer& cache, const BatchRows& rows, const HeadLayout& heads) {
  if (rows.n_rows == 0 || heads.n_heads == 0) return;
  const KvPageLayout page(cache);
  cuda::AttentionArgs a{};
  a.out = out.f32();
  a.qkv = qkv.f32();
  a.keys = static_cast<const uint8_t*>(cache.keys);
  a.values = static_cast<const uint8_t*>(cache.values);
  a.spans = rows.spans.i32();
  a.block_table = rows.block_table.i32();
  a.row_width = heads.row_width();
  a.page_bytes = page.bytes();
  a.scale_bytes = page.scales();
  a.n_spans = rows.n_spans;
  a.n_heads = heads.n_heads;
  a.n_kv_heads = heads.n_kv_heads;
  a.head_dim = heads.head_dim;
  a.ratio = heads.ratio;
  a.first_head = heads.first_head;
  a.chunks = (heads.ratio + cuda::kMaxHeadsOfBlock - 1) / cuda::kMaxHeadsOfBlock;
  a.heads_per_block = (heads.ratio + a.chunks - 1) / a.chunks;
  a.scale = 1.0f / std::sqrt(static_cast<float>(heads.head_dim));
  a.n_splits = (rows.max_context + cuda::kSplitLength - 1) / cuda::kSplitLength;
  const int64_t partial_bytes =
      int64_t{4} * rows.n_rows * heads.n_heads * a.n_splits * (2 + int64_t{heads.head_dim});
  if (a.n_splits > 1 && partial_bytes <= plan_.partials) a.partials = partials_;
  // The one place that chooses: sequences with many rows go to tensor cores where bits may differ
  // from the CPU's; which of the step's they are is known on the device only.
  const int longest = rows.n_rows - rows.n_spans + 1;  // every sequence has a row
  const bool tiles = fast_ && longest >= cuda::kTileRows && heads.head_dim <= cuda::kMaxTileDim;
  if (tiles) {
    a.tile_rows = cuda::kTileRows;
    cuda::attention_tiles(a, plane_of(cache.dtype), rows.n_rows, stream_);
    if (rows.n_spans == 1) return;
  }
  cuda::attention(a, plane_of(cache.dtype), rows.n_rows, stream_);
}

}  // namespace glm::GLM_CUDA_SPACE
