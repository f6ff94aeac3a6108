// Encoding and writing of tensors by several threads. SPDX-License-Identifier: MIT
#include "core/model/weight_stream.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <mutex>
#include <thread>

#include "kernels/quantize.h"

namespace glm {
namespace {

using Plane = WeightReader::Plane;

// Elements of one piece of work: small enough to stay in cache, large enough to be read at once.
constexpr int64_t kUnitElements = 1 << 16;
// Encoded bytes that are written together.
constexpr int64_t kBatchBytes = int64_t{32} << 20;

// Runs body(index, worker) for every index, on this thread and `threads` - 1 others; rethrows the
// first error.
template <class Body>
void parallel_for(int64_t count, int threads, const Body& body) {
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex mutex;
  const auto work = [&](int worker) {
    try {
      for (int64_t i = next++; i < count; i = next++) body(i, worker);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      next = count;
    }
  };
  {
    std::vector<std::jthread> team;
    const int helpers = static_cast<int>(std::min<int64_t>(threads, count)) - 1;
    for (int i = 0; i < helpers; ++i) team.emplace_back(work, i + 1);
    work(0);
  }
  if (error) std::rethrow_exception(error);
}

// The rows of a tensor in stored order, flattened over its matrices.
struct Shape {
  explicit Shape(const StreamTensor& tensor) : type(tensor.type) {
    const TensorSpec& spec = tensor.spec;
    const bool vector = spec.dims.size() == 1;
    cols = vector ? 1 : spec.cols();
    rows = vector ? spec.cols() : spec.n_matrices() * spec.rows();
    matrix_rows = vector ? rows : spec.rows();
    interleaved = spec.gated && type.packing == Packing::kTile16;
    unit = (kUnitElements / cols + kTileRows) / kTileRows * kTileRows;
  }
  int64_t plane_bytes(Plane plane, int64_t n) const {
    return plane == Plane::kValues ? value_bytes(type.dtype, n, cols)
                                   : scale_bytes(type.dtype, n, cols);
  }

  StoredType type;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t matrix_rows = 0;
  int64_t unit = 0;          // rows of one piece of work
  bool interleaved = false;  // tiles of gate and up rows alternate
};

// Stored rows [first, first + count) as f32. `count` may cross matrices.
void read_stored(const RowSource& source,
                 size_t tensor,
                 const Shape& shape,
                 int64_t first,
                 int64_t count,
                 float* out) {
  if (!shape.interleaved) {
    source.read(tensor, first, count, out);
    return;
  }
  const int64_t inner = shape.matrix_rows / 2;
  for (int64_t row = first; row < first + count; row += kTileRows, out += kTileRows * shape.cols) {
    const int64_t matrix = row / shape.matrix_rows;
    const int64_t tile = row % shape.matrix_rows / kTileRows;
    const int64_t from = tile / 2 * kTileRows + (tile % 2 == 0 ? 0 : inner);
    source.read(tensor, matrix * shape.matrix_rows + from, kTileRows, out);
  }
}

class Streamer {
 public:
  Streamer(ModelWriter& writer,
           const std::vector<StreamTensor>& tensors,
           const RowSource& source,
           const ConvertOptions& options)
      : writer_(writer), tensors_(tensors), source_(source), options_(options) {
    for (const StreamTensor& tensor : tensors) total_ += stored_bytes(tensor.spec, tensor.type);
    allocate();
  }

  void run() {
    for (size_t i = 0; i < tensors_.size(); ++i) stream(i);
  }

 private:
  // f32 rows per worker, and one batch of encoded planes.
  void allocate() {
    int64_t rows_elements = 0;
    int64_t unit_bytes = 0;
    for (const StreamTensor& tensor : tensors_) {
      const Shape shape(tensor);
      const int64_t rows = std::min(shape.unit, shape.rows);
      rows_elements = std::max(rows_elements, rows * shape.cols);
      unit_bytes = std::max(
          unit_bytes,
          shape.plane_bytes(Plane::kValues, rows) + shape.plane_bytes(Plane::kScales, rows));
    }
    const int64_t worker_bytes = rows_elements * static_cast<int64_t>(sizeof(float));
    const int64_t least = worker_bytes + unit_bytes;
    if (options_.memory_limit < least)
      fail(ExitCode::kResources,
           "a memory limit of {} bytes is too small: the buffers need at least {}",
           options_.memory_limit,
           least);
    threads_ = static_cast<int>(std::clamp<int64_t>(
        (options_.memory_limit - unit_bytes) / std::max<int64_t>(worker_bytes, 1),
        1,
        options_.threads));
    batch_bytes_ = std::max(unit_bytes,
                            std::min(kBatchBytes, options_.memory_limit - threads_ * worker_bytes));
    rows_.resize(static_cast<size_t>(threads_));
    for (std::vector<float>& rows : rows_) rows.resize(static_cast<size_t>(rows_elements));
    encoded_.resize(static_cast<size_t>(batch_bytes_));
  }

  void stream(size_t index) {
    const StreamTensor& tensor = tensors_[index];
    const Shape shape(tensor);
    const int64_t unit_bytes = shape.plane_bytes(Plane::kValues, shape.unit) +
                               shape.plane_bytes(Plane::kScales, shape.unit);
    const int64_t batch_rows = std::max<int64_t>(1, batch_bytes_ / unit_bytes) * shape.unit;
    for (int64_t first = 0; first < shape.rows; first += batch_rows) {
      const int64_t rows = std::min(batch_rows, shape.rows - first);
      const int64_t values = shape.plane_bytes(Plane::kValues, rows);
      encode(index, shape, first, rows);
      writer_.write(tensor.spec.name,
                    Plane::kValues,
                    shape.plane_bytes(Plane::kValues, first),
                    encoded_.data(),
                    values);
      if (is_quantized(shape.type.dtype))
        writer_.write(tensor.spec.name,
                      Plane::kScales,
                      shape.plane_bytes(Plane::kScales, first),
                      encoded_.data() + values,
                      shape.plane_bytes(Plane::kScales, rows));
      done_ += values + shape.plane_bytes(Plane::kScales, rows);
      if (options_.progress) options_.progress(done_, total_, tensor.spec.name);
    }
  }

  // Fills encoded_ with the values of `rows` rows, then their scales.
  void encode(size_t index, const Shape& shape, int64_t first, int64_t rows) {
    char* values = encoded_.data();
    char* scales = values + shape.plane_bytes(Plane::kValues, rows);
    parallel_for((rows + shape.unit - 1) / shape.unit, threads_, [&](int64_t unit, int worker) {
      const int64_t begin = unit * shape.unit;
      const int64_t count = std::min(shape.unit, rows - begin);
      float* buffer = rows_[static_cast<size_t>(worker)].data();
      read_stored(source_, index, shape, first + begin, count, buffer);
      encode_rows(buffer,
                  count,
                  shape.cols,
                  shape.type.dtype,
                  shape.type.packing,
                  values + shape.plane_bytes(Plane::kValues, begin),
                  scales + shape.plane_bytes(Plane::kScales, begin));
    });
  }

  ModelWriter& writer_;
  const std::vector<StreamTensor>& tensors_;
  const RowSource& source_;
  const ConvertOptions& options_;
  int threads_ = 1;
  int64_t batch_bytes_ = 0;
  int64_t total_ = 0;
  int64_t done_ = 0;
  std::vector<std::vector<float>> rows_;  // per worker
  std::vector<char> encoded_;
};

}  // namespace

void stream_model(const std::filesystem::path& out,
                  const FileHeader& header,
                  const std::vector<StreamTensor>& tensors,
                  const RowSource& source,
                  const ConvertOptions& options) {
  std::vector<ModelWriter::TensorShape> shapes;
  shapes.reserve(tensors.size());
  for (const StreamTensor& tensor : tensors)
    shapes.push_back({tensor.spec.name, tensor.type.dtype, tensor.type.packing, tensor.spec.dims});
  ModelWriter writer(out, header.architecture, header.texts, header.fingerprint, shapes);
  Streamer(writer, tensors, source, options).run();
  writer.finish();
}

float largest_storable(DType dtype) {
  constexpr float kLargestF16 = 65504.0f;
  switch (dtype) {
    case DType::kF16:
      return kLargestF16;
    case DType::kQ40:
      return kLargestF16 * 8.0f;
    case DType::kQ80:
      return kLargestF16 * 127.0f;
    default:
      return std::numeric_limits<float>::max();
  }
}

}  // namespace glm
