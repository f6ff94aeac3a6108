// Encoding and writing of tensors by several threads. SPDX-License-Identifier: MIT
#include "core/model/weight_stream.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <future>
#include <limits>
#include <mutex>
#include <string>
#include <thread>

#include "kernels/quantize.h"

namespace glm {
namespace {

using Plane = WeightReader::Plane;

// Elements of one piece of work: small enough to stay in cache, large enough to be read at once.
constexpr int64_t kUnitElements = 1 << 16;

// What a worker needs besides its rows: undecoded bytes, its stack.
constexpr int64_t kWorkerOverhead = int64_t{512} << 10;
// What finishing the file takes.
constexpr int64_t kFinishBytes = int64_t{6} << 20;

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
  ~Streamer() {
    if (writing_.valid()) writing_.wait();  // it uses our buffers
  }
  Streamer(const Streamer&) = delete;
  Streamer& operator=(const Streamer&) = delete;

  // Returns the bytes that were there already.
  int64_t run() {
    for (size_t i = 0; i < tensors_.size(); ++i) stream(i);
    if (writing_.valid()) writing_.get();
    return resumed_;
  }

 private:
  // f32 rows per worker, and two batches of encoded planes: one is written while the other is
  // filled. All of it and what the process holds by now stay within the limit.
  void allocate() {
    int64_t rows_elements = 0;
    int64_t unit_bytes = 0;
    int64_t largest = 0;
    for (const StreamTensor& tensor : tensors_) {
      const Shape shape(tensor);
      largest = std::max(largest, stored_bytes(tensor.spec, tensor.type));
      const int64_t rows = std::min(shape.unit, shape.rows);
      rows_elements = std::max(rows_elements, rows * shape.cols);
      unit_bytes = std::max(
          unit_bytes,
          shape.plane_bytes(Plane::kValues, rows) + shape.plane_bytes(Plane::kScales, rows));
    }
    const int64_t worker_bytes =
        rows_elements * static_cast<int64_t>(sizeof(float)) + kWorkerOverhead;
    const MemoryUse use = memory_use();
    const int64_t least = worker_bytes + 2 * unit_bytes + kFinishBytes;
    const int64_t needed = std::max(use.peak, use.now + least);
    if (options_.memory_limit < needed)
      fail(ExitCode::kResources,
           "a memory limit of {} bytes is too small: reading config, tokenizer and headers took "
           "{}, of which {} are in use, and the buffers need at least {}; give at least {}",
           options_.memory_limit,
           use.peak,
           use.now,
           least,
           needed);
    const int64_t available = options_.memory_limit - use.now - kFinishBytes;
    threads_ = static_cast<int>(
        std::clamp<int64_t>((available - 2 * unit_bytes) / worker_bytes, 1, options_.threads));
    batch_bytes_ = std::max(
        unit_bytes,
        std::min({options_.batch_bytes, largest, (available - threads_ * worker_bytes) / 2}));
    rows_.resize(static_cast<size_t>(threads_));
    for (std::vector<float>& rows : rows_) rows.resize(static_cast<size_t>(rows_elements));
    for (std::vector<char>& batch : encoded_) batch.resize(static_cast<size_t>(batch_bytes_));
  }

  void stream(size_t index) {
    const StreamTensor& tensor = tensors_[index];
    const Shape shape(tensor);
    const int64_t unit_bytes = shape.plane_bytes(Plane::kValues, shape.unit) +
                               shape.plane_bytes(Plane::kScales, shape.unit);
    const int64_t batch_rows = std::max<int64_t>(1, batch_bytes_ / unit_bytes) * shape.unit;
    for (int64_t first = skip_rows(tensor.spec.name, shape); first < shape.rows;
         first += batch_rows) {
      const int64_t rows = std::min(batch_rows, shape.rows - first);
      std::vector<char>& batch = encoded_[next_batch_];
      next_batch_ = 1 - next_batch_;
      encode(batch, index, shape, first, rows);
      if (writing_.valid()) writing_.get();
      writing_ = std::async(std::launch::async, [this, &tensor, shape, &batch, first, rows] {
        write(tensor.spec.name, shape, batch, first, rows);
      });
      done_ += shape.plane_bytes(Plane::kValues, rows) + shape.plane_bytes(Plane::kScales, rows);
      if (options_.progress) options_.progress({done_, resumed_, total_, tensor.spec.name, false});
    }
  }

  // Rows that a killed run has left whole, in both planes.
  int64_t skip_rows(const std::string& name, const Shape& shape) {
    if (!writer_.resumed()) return 0;
    if (writing_.valid()) writing_.get();
    const bool scaled = is_quantized(shape.type.dtype);
    int64_t rows = shape.rows;
    for (const Plane plane : {Plane::kValues, Plane::kScales}) {
      if (plane == Plane::kScales && !scaled) continue;
      // 16 rows of either plane are whole bytes.
      const int64_t tile = shape.plane_bytes(plane, kTileRows);
      const int64_t whole = shape.plane_bytes(plane, shape.rows);
      const int64_t intact = writer_.intact_bytes(name, plane);
      if (intact < whole) rows = std::min(rows, intact / tile * kTileRows);
    }
    writer_.skip(name, Plane::kValues, shape.plane_bytes(Plane::kValues, rows));
    if (scaled) writer_.skip(name, Plane::kScales, shape.plane_bytes(Plane::kScales, rows));
    const int64_t bytes =
        shape.plane_bytes(Plane::kValues, rows) + shape.plane_bytes(Plane::kScales, rows);
    done_ += bytes;
    resumed_ += bytes;
    if (options_.progress) options_.progress({done_, resumed_, total_, name, false});
    return rows;
  }

  // Fills `batch` with the values of `rows` rows, then their scales.
  void encode(
      std::vector<char>& batch, size_t index, const Shape& shape, int64_t first, int64_t rows) {
    char* values = batch.data();
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

  void write(const std::string& name,
             const Shape& shape,
             const std::vector<char>& batch,
             int64_t first,
             int64_t rows) {
    const int64_t values = shape.plane_bytes(Plane::kValues, rows);
    writer_.write(
        name, Plane::kValues, shape.plane_bytes(Plane::kValues, first), batch.data(), values);
    if (is_quantized(shape.type.dtype))
      writer_.write(name,
                    Plane::kScales,
                    shape.plane_bytes(Plane::kScales, first),
                    batch.data() + values,
                    shape.plane_bytes(Plane::kScales, rows));
  }

  ModelWriter& writer_;
  const std::vector<StreamTensor>& tensors_;
  const RowSource& source_;
  const ConvertOptions& options_;
  int threads_ = 1;
  int64_t batch_bytes_ = 0;
  int64_t total_ = 0;
  int64_t done_ = 0;
  int64_t resumed_ = 0;
  std::vector<std::vector<float>> rows_;  // per worker
  std::array<std::vector<char>, 2> encoded_;
  size_t next_batch_ = 0;
  std::future<void> writing_;  // of the batch that is not next
};

}  // namespace

MemoryUse memory_use() {
  MemoryUse use;
  std::ifstream status("/proc/self/status");
  const auto kilobytes = [](const std::string& line) {
    return std::strtoll(line.c_str() + line.find_first_of("0123456789"), nullptr, 10) * 1024;
  };
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) use.peak = kilobytes(line);
    if (line.starts_with("VmRSS:")) use.now = kilobytes(line);
  }
  return use;
}

void stream_model(const std::filesystem::path& out,
                  const FileHeader& header,
                  const std::vector<StreamTensor>& tensors,
                  const RowSource& source,
                  const ConvertOptions& options,
                  ConvertReport& report) {
  std::vector<ModelWriter::TensorShape> shapes;
  shapes.reserve(tensors.size());
  for (const StreamTensor& tensor : tensors)
    shapes.push_back({tensor.spec.name, tensor.type.dtype, tensor.type.packing, tensor.spec.dims});
  ModelWriter writer(out,
                     header.architecture,
                     header.texts,
                     header.fingerprint,
                     shapes,
                     {options.resume, header.stamp});
  if (options.resume && !writer.resumed())
    report.warnings.push_back(
        "--resume: nothing was left by an unfinished conversion of the same source with the same "
        "options; this one began at the start");
  report.resumed_bytes = Streamer(writer, tensors, source, options).run();
  writer.finish([&](int64_t hashed, int64_t total) {
    if (options.progress) options.progress({hashed, 0, total, "sha256", true});
  });
  report.peak_memory = memory_use().peak;
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
