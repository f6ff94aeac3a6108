// Nothing wrong silently: weights that are not numbers, bytes that changed in any part of a model
// file, and a host that has another file. One error line and one exit code on 1, 2 and 4 ranks.
// SPDX-License-Identifier: MIT
#include <cstring>
#include <limits>

#include "io/model_file.h"
#include "tests/apps/programs.h"

namespace glm::testing_support {
namespace {

namespace fs = std::filesystem;

constexpr double kSoonEnough = 30;  // seconds, on a busy machine

void flip_bit(const fs::path& path, int64_t offset) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(offset);
  const int byte = file.get();
  file.seekp(offset);
  file.put(static_cast<char>(byte ^ 0x10));
}

// A copy of a model with bytes of its own.
class ChangedModel {
 public:
  ChangedModel(const std::string& name, const std::string& original)
      : folder_(name), path_(folder_ / "model.h5") {
    fs::copy_file(original, path_);
    index_ = read_model_index(path_);
  }
  const std::string& path() const { return path_; }
  const TensorEntry& tensor(const std::string& name) const { return *index_.find(name); }
  const ModelIndex& index() const { return index_; }

  void put(int64_t offset, const std::string& bytes) const {
    std::fstream file(path_, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(offset);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }
  // Again restores it.
  void flip(int64_t offset) const { flip_bit(path_, offset); }
  // Where `text` stands for the first time.
  int64_t find(const std::string& text) const {
    return static_cast<int64_t>(read_bytes(path_).find(text));
  }

 private:
  TempFolder folder_;
  std::string path_;
  ModelIndex index_;
};

std::string bytes_of(float value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

Command asked(int ranks, const std::string& model, const Args& more) {
  Args args = {"--model", model, "--prompt", kFrance, "--temperature", "0", "--max-tokens", "3"};
  args.insert(args.end(), more.begin(), more.end());
  Command command = infer(ranks, args);
  command.timeout = kSoonEnough;
  return command;
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(NotFinite, TheLayerIsNamedOnAnyNumberOfRanks) {
  const ChangedModel model("not_finite", model_file("tiny", "f32"));
  model.put(model.tensor("layers.4.mlp_norm").values_offset + 8, bytes_of(kNan));
  for (const int ranks : {0, 2, 4})
    expect_error(
        asked(ranks, model.path(), {"--no-verify"}), 6, {"the output of layer 4 is not finite"});
  expect_error(
      asked(4, model.path(), {"--no-verify", "--data", "4"}), 6, {"the output of layer 4"});
}

TEST(NotFinite, TheOperationIsNamedByCheckedOps) {
  const ChangedModel model("not_finite_op", model_file("tiny", "f32"));
  model.put(model.tensor("layers.4.mlp_norm").values_offset + 8, bytes_of(kNan));
  for (const int ranks : {0, 2})
    expect_error(asked(ranks, model.path(), {"--no-verify", "--ops", "checked"}),
                 6,
                 {"rms_norm", "nan", "layer 4"});
}

TEST(NotFinite, InfinitiesEverywhere) {
  const auto broken = [](const std::string& tensor, const std::string& where) {
    SCOPED_TRACE(tensor);
    const ChangedModel model("infinite", model_file("tiny", "f32"));
    model.put(model.tensor(tensor).values_offset, bytes_of(-kInfinity));
    expect_error(asked(0, model.path(), {"--no-verify"}), 6, {where, "not finite"});
  };
  broken("layers.0.input_norm", "the output of layer 0");
  broken("layers.2.attention.qkv", "the output of layer 2");
  broken("layers.5.attention.out", "the output of layer 5");
  broken("final_norm", "the logits");
  broken("head", "the logits");
}

// An f16 scale of a q40 block.
TEST(NotFinite, ScalesOfQuantisedWeights) {
  const ChangedModel model("not_finite_scale", model_file("tiny", "q40"));
  const TensorEntry& down = model.tensor("layers.3.shared.down");
  std::string infinite;
  for (int64_t i = 0; i < down.scales_bytes / 2; ++i) infinite += std::string("\x00\x7c", 2);
  model.put(down.scales_offset, infinite);
  for (const int ranks : {0, 2})
    expect_error(asked(ranks, model.path(), {"--no-verify"}), 6, {"the output of layer 3"});
}

// What reading the whole file says: "" when nothing is wrong.
std::string read_all(const std::string& path) {
  try {
    const ModelIndex index = read_model_index(path);
    WeightReader reader(index, true);
    std::string out;
    for (const TensorEntry& entry : index.entries)
      for (const auto plane : {WeightReader::Plane::kValues, WeightReader::Plane::kScales}) {
        const bool values = plane == WeightReader::Plane::kValues;
        out.resize(static_cast<size_t>(values ? entry.values_bytes : entry.scales_bytes));
        const WeightReader::Range whole[] = {{0, static_cast<int64_t>(out.size()), out.data()}};
        reader.read(entry, plane, whole);
      }
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kModelFile) << error.what();
    return error.what();
  }
  return {};
}

// One bit of every kind of dataset, and of the attributes beside them.
TEST(ChangedBytes, OfEveryKindAreNoticed) {
  const ChangedModel model("changed", model_file("tiny", "q40"));
  const auto noticed = [&](const std::string& what, int64_t offset, const std::string& text) {
    SCOPED_TRACE(what);
    ASSERT_GE(offset, 0);
    model.flip(offset);
    const std::string error = read_all(model.path());
    EXPECT_NE(error.find("model.h5"), std::string::npos) << error;
    EXPECT_NE(error.find(text), std::string::npos) << error;
    model.flip(offset);
  };
  for (const TensorEntry& entry : model.index().entries) {
    noticed(entry.name, entry.values_offset + entry.values_bytes / 2, entry.name + ": block");
    if (entry.scales_bytes > 0)
      noticed(entry.name, entry.scales_offset, entry.name + ".scales: block");
  }
  const std::string damaged = "index is damaged";
  noticed("config.json", model.find("\"hidden_size\""), damaged);
  noticed("tokenizer.json", model.find("\"model\""), damaged);
  noticed("generation_config.json", model.find("\"temperature\""), damaged);
  noticed("tokenizer_config.json", model.find("tokenizer_class"), damaged);
  noticed("chat_template.jinja", model.find("[gMASK]<sop>"), damaged);
  noticed("index", model.find("\"block_bytes\""), damaged);
  noticed("checksums", model.index().manifest.back().offset, damaged);
  noticed("superblock", 30, "superblock");
  // Of an attribute: its name, zero, 8 to 12 bytes of type, 4 of shape, the value.
  for (const std::string attribute : {"format",
                                      "schema_version",
                                      "architecture",
                                      "converter_version",
                                      "source_fingerprint",
                                      "index_crc32c",
                                      "complete"}) {
    const int64_t name = model.find(attribute);
    const bool number = attribute == "index_crc32c" || attribute == "complete";
    noticed("name of " + attribute, name, "");
    noticed(attribute, name + static_cast<int64_t>(attribute.size()) + (number ? 18 : 14), "");
  }
  EXPECT_EQ(read_all(model.path()), "") << "all flips were taken back";
}

TEST(ChangedBytes, EndTheProgram) {
  const ChangedModel model("changed_program", model_file("tiny", "q40"));
  const TensorEntry& experts = model.tensor("layers.3.experts.gate_up");
  for (const int64_t offset : {experts.values_offset,
                               experts.scales_offset,
                               model.find("\"hidden_size\""),
                               model.find("source_fingerprint") + 40}) {
    model.flip(offset);
    expect_error(asked(0, model.path(), {}), 3, {"model.h5"});
    expect_error(asked(2, model.path(), {}), 3, {"model.h5"});
    model.flip(offset);
  }
}

// Only the part that a rank reads is verified by it: the error comes from the rank that reads it.
TEST(ChangedBytes, AreFoundByTheRanksThatReadThem) {
  const ChangedModel model("changed_part", model_file("tiny", "q80"));
  const TensorEntry& last = model.tensor("layers.5.experts.down");
  model.flip(last.values_offset);
  for (const int ranks : {1, 2, 4})
    expect_error(asked(ranks, model.path(), {"--pipeline", std::to_string(ranks), "--mtp", "off"}),
                 3,
                 {"dataset layers.5.experts.down: block 0",
                  ranks == 1 ? "" : "rank " + std::to_string(ranks - 1) + " of"});
  model.flip(last.values_offset);
  // Without drafts nobody reads the layer that predicts a second token.
  const TensorEntry& unread = model.tensor("mtp.projection");
  model.flip(unread.values_offset);
  for (const int ranks : {1, 2, 4}) expect_good(asked(ranks, model.path(), {"--mtp", "off"}));
}

// The same words on every rank, but each looks into a folder of its own, as on hosts without a
// shared file system.
Command apart(int first_ranks, const fs::path& first, int others, const fs::path& second) {
  Command command = asked(first_ranks, "model.h5", {"--no-verify"});
  const Args words(command.argv.end() - 9, command.argv.end());
  command.argv.resize(command.argv.size() - 10);
  command.argv.insert(command.argv.end(), {"-wdir", first, program("glm_infer")});
  command.argv.insert(command.argv.end(), words.begin(), words.end());
  command.argv.insert(command.argv.end(),
                      {":", "-np", std::to_string(others), "-wdir", second, program("glm_infer")});
  command.argv.insert(command.argv.end(), words.begin(), words.end());
  return command;
}

TEST(OtherFile, OfOneHostIsNoticed) {
  const TempFolder here("host_a");
  const TempFolder there("host_b");
  const std::string good = model_file("tiny", "q80");
  fs::copy_file(good, here / "model.h5");
  fs::copy_file(good, there / "model.h5");
  expect_good(apart(1, here.path(), 1, there.path()));

  // Of the same size and layout: another weight, and its own checksum beside it.
  const ModelIndex index = read_model_index(there / "model.h5");
  flip_bit(there / "model.h5", index.find("embedding")->values_offset);
  flip_bit(there / "model.h5", index.manifest.back().offset);
  for (const int ranks : {1, 3})
    expect_error(
        apart(1, here.path(), ranks, there.path()), 3, {"model.h5", "rank 1", "another file"});

  fs::copy_file(
      model_file("tiny", "q40"), there / "model.h5", fs::copy_options::overwrite_existing);
  expect_error(apart(2, here.path(), 2, there.path()), 3, {"model.h5", "rank 2", "another file"});

  fs::remove(there / "model.h5");
  expect_error(apart(1, here.path(), 1, there.path()), 3, {"model.h5", "rank 1", "cannot open"});
}

}  // namespace
}  // namespace glm::testing_support
