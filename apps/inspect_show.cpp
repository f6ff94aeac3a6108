// glm_inspect show. SPDX-License-Identifier: MIT
#include "apps/inspect_show.h"

#include <map>

#include "apps/program.h"
#include "core/model/tensor_specs.h"
#include "io/crc32c.h"

namespace glm {
namespace {

// The table of tensors, and what the file says of each; entries are null for a folder.
struct Row {
  TensorSpec spec;
  const TensorEntry* entry = nullptr;
};

std::vector<Row> rows_of(const ModelSource& source, const ModelConfig& config) {
  const bool mtp =
      source.index ? source.index->find("mtp.projection") != nullptr : config.announces_mtp;
  std::vector<Row> rows;
  for (TensorSpec& spec : tensor_specs(config, mtp)) {
    const TensorEntry* entry = source.index ? source.index->find(spec.name) : nullptr;
    if (spec.optional && entry == nullptr) continue;
    rows.push_back({std::move(spec), entry});
  }
  return rows;
}

std::map<Kind, int64_t> parameters_by_kind(const std::vector<Row>& rows) {
  std::map<Kind, int64_t> sums;
  for (const Row& row : rows) sums[row.spec.kind] += row.spec.elements();
  return sums;
}

std::map<Kind, int64_t> bytes_by_kind(const std::vector<Row>& rows) {
  std::map<Kind, int64_t> sums;
  for (const Row& row : rows)
    if (row.entry != nullptr)
      sums[row.spec.kind] += row.entry->values_bytes + row.entry->scales_bytes;
  return sums;
}

OrderedJson config_json(const ModelConfig& config) {
  OrderedJson json;
  json["family"] = family_name(config.family);
  json["hidden"] = config.hidden;
  json["layers"] = config.n_layers;
  json["heads"] = config.n_heads;
  json["kv_heads"] = config.n_kv_heads;
  json["head_dim"] = config.head_dim;
  json["intermediate"] = config.intermediate;
  json["vocab"] = config.vocab;
  json["max_positions"] = config.max_positions;
  json["norm_eps"] = config.norm_eps;
  json["qkv_bias"] = config.qkv_bias;
  json["qk_norm"] = config.qk_norm;
  json["sandwich_norms"] = config.sandwich_norms;
  json["tied"] = config.tied;
  json["rope_theta"] = config.rope.theta;
  json["rope_type"] = config.rope.llama3 ? "llama3" : "default";
  json["rotary_dim"] = config.rope.rotary_dim;
  json["rotary_pairing"] =
      config.rope.pairing == RopePairing::kInterleaved ? "interleaved" : "half_split";
  if (config.is_moe()) {
    json["experts"] = config.router.n_experts;
    json["experts_per_token"] = config.router.top_k;
    json["router"] = config.router.kind == RouterKind::kSigmoid ? "sigmoid" : "softmax";
    json["routed_scale"] = config.router.scale;
    json["moe_intermediate"] = config.moe_intermediate;
    json["shared_intermediate"] = config.shared_intermediate;
    int64_t moe_layers = 0;
    for (const bool moe : config.moe_layers) moe_layers += moe ? 1 : 0;
    json["moe_layers"] = moe_layers;
  }
  json["announces_mtp"] = config.announces_mtp;
  json["eos_ids"] = config.eos_ids;
  return json;
}

OrderedJson texts_json(const ModelTexts& texts) {
  OrderedJson json;
  json["config"] = texts.config.size();
  json["generation_config"] = texts.generation_config.size();
  json["tokenizer"] = texts.tokenizer.size();
  json["tokenizer_config"] = texts.tokenizer_config.size();
  json["chat_template"] = texts.chat_template.size();
  return json;
}

// One number for all checksums of the file, in the order of the index.
std::string checksum_digest(const ModelIndex& index) {
  const uint32_t crc = crc32c(0, index.checksums.data(), index.checksums.size() * sizeof(uint32_t));
  return fmt::format("{:08x}", crc);
}

OrderedJson file_json(const ModelIndex& index) {
  OrderedJson json;
  json["bytes"] = index.file_bytes;
  json["converter"] = escaped(index.converter_version);
  json["source_fingerprint"] = escaped(index.source_fingerprint);
  json["checksum_blocks"] = index.checksums.size();
  json["checksum_block_bytes"] = index.block_bytes;
  json["checksum_digest"] = checksum_digest(index);
  return json;
}

OrderedJson tensor_json(const Row& row) {
  OrderedJson json;
  json["name"] = row.spec.name;
  json["kind"] = kind_name(row.spec.kind);
  json["dims"] = row.spec.dims;
  if (row.entry == nullptr) return json;
  json["dtype"] = dtype_name(row.entry->dtype);
  json["packing"] = packing_name(row.entry->packing);
  json["bytes"] = row.entry->values_bytes + row.entry->scales_bytes;
  return json;
}

ModelConfig config_of(const ModelSource& source) {
  return parse_config(source.texts.config, source.name_of("config.json"));
}

}  // namespace

OrderedJson show_json(const ModelSource& source) {
  const ModelConfig config = config_of(source);
  const std::vector<Row> rows = rows_of(source, config);
  OrderedJson json;
  json["path"] = escaped(source.path, 4096);
  json["config"] = config_json(config);
  if (source.index) json["file"] = file_json(*source.index);
  json["texts"] = texts_json(source.texts);
  int64_t parameters = 0;
  for (const auto& [kind, count] : parameters_by_kind(rows)) {
    json["parameters_by_kind"][std::string(kind_name(kind))] = count;
    parameters += count;
  }
  json["parameters"] = parameters;
  for (const auto& [kind, bytes] : bytes_by_kind(rows))
    json["bytes_by_kind"][std::string(kind_name(kind))] = bytes;
  json["tensors"] = OrderedJson::array();
  for (const Row& row : rows) json["tensors"].push_back(tensor_json(row));
  return json;
}

std::string show_text(const ModelSource& source) {
  const ModelConfig config = config_of(source);
  const std::vector<Row> rows = rows_of(source, config);
  std::string text = fmt::format("{}\n\nconfig\n", escaped(source.path));
  const OrderedJson config_values = config_json(config);
  for (const auto& item : config_values.items())
    text += fmt::format("  {:<20} {}\n", item.key(), item.value().dump());
  if (source.index) {
    text += "\nfile\n";
    const OrderedJson file_values = file_json(*source.index);
    for (const auto& item : file_values.items())
      text += fmt::format("  {:<20} {}\n", item.key(), item.value().dump());
  }
  text += "\ntexts (bytes)\n";
  const OrderedJson text_values = texts_json(source.texts);
  for (const auto& item : text_values.items())
    text += fmt::format("  {:<20} {}\n", item.key(), item.value().dump());
  text += "\nby kind\n";
  const std::map<Kind, int64_t> bytes = bytes_by_kind(rows);
  for (const auto& [kind, count] : parameters_by_kind(rows)) {
    const auto at = bytes.find(kind);
    text += fmt::format("  {:<20} {:>14} parameters {:>14}\n",
                        kind_name(kind),
                        count_text(count),
                        at == bytes.end() ? "" : bytes_text(at->second));
  }
  text += fmt::format("\n{} tensors\n", rows.size());
  for (const Row& row : rows) {
    const std::string dims = fmt::format("[{}]", fmt::join(row.spec.dims, ", "));
    text += fmt::format("  {:<36} {:<22}", row.spec.name, dims);
    if (row.entry != nullptr)
      text += fmt::format(" {:<5} {:<7} {:>12}",
                          dtype_name(row.entry->dtype),
                          packing_name(row.entry->packing),
                          bytes_text(row.entry->values_bytes + row.entry->scales_bytes));
    text += "\n";
  }
  return text;
}

}  // namespace glm
