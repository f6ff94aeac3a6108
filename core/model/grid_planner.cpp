// SPDX-License-Identifier: MIT
#include "core/model/grid_planner.h"

#include <algorithm>

namespace glm {
namespace {

constexpr double kAsGood = 1.05;
// Of the ranking that is shown.
constexpr size_t kShown = 5;

std::string milliseconds(double seconds) { return fmt::format("{:.2f} ms", seconds * 1e3); }

bool same_axes(const GridShape& a, const GridShape& b) {
  return a.data == b.data && a.pipeline == b.pipeline && a.tensor == b.tensor;
}

// Among equally fast grids: smaller is better.
std::vector<int> preference(const GridShape& shape, const GridShape& usual) {
  // Copies of attention and of experts that the grid makes.
  const int copies = shape.data * (shape.tensor * shape.data / exchange_size(shape));
  return {shape == usual ? 0 : 1, same_axes(shape, usual) ? 0 : 1, copies};
}

std::string reason_of(const GridChoice& choice, const GridEstimate& chosen) {
  std::string text = fmt::format("chosen: {} (estimated decode {}/token, prefill {:.3f} s",
                                 chosen.shape.text(),
                                 milliseconds(chosen.decode_seconds),
                                 chosen.prefill_seconds);
  for (const GridEstimate& other : choice.ranked) {
    if (other.shape == chosen.shape || !other.fits) continue;
    text += fmt::format("; next best {}: {}, {:.3f} s",
                        other.shape.text(),
                        milliseconds(other.decode_seconds),
                        other.prefill_seconds);
    break;
  }
  return text + ")";
}

// Without grids that leave stages without layers or ranks without heads, where others exist.
std::vector<GridShape> useful_shapes(const ModelConfig& config, int world, bool shares_tokens) {
  const std::vector<GridShape> all = legal_grid_shapes(world, config.is_moe(), shares_tokens);
  std::vector<GridShape> useful;
  for (const GridShape& shape : all)
    if (shape.pipeline <= config.n_layers && shape.tensor <= config.n_heads)
      useful.push_back(shape);
  return useful.empty() ? all : useful;
}

}  // namespace

std::vector<GridShape> legal_grid_shapes(int world, bool is_moe, bool shares_tokens) {
  std::vector<GridShape> shapes;
  for (int tensor = 1; tensor <= world; ++tensor) {
    if (world % tensor != 0) continue;
    for (int data = 1; data <= world / tensor; ++data) {
      if (world / tensor % data != 0) continue;
      const int pipeline = world / (tensor * data);
      for (int expert = 1; expert <= (is_moe ? data * tensor : 1); ++expert) {
        const bool within = tensor % expert == 0;
        const bool across = !shares_tokens && expert % tensor == 0 && data % (expert / tensor) == 0;
        if (within || across) shapes.push_back({data, pipeline, tensor, expert});
      }
    }
  }
  return shapes;
}

GridChoice choose_grid(const ModelConfig& config,
                       const std::map<std::string, StoredType, std::less<>>& stored,
                       const Machine& machine,
                       const Workload& workload,
                       bool shares_tokens,
                       const std::function<bool(const GridShape&)>& fits) {
  const auto world = static_cast<int>(machine.hosts.size());
  const GridShape usual = complete_grid({}, world, config.is_moe());
  const ModelCosts costs = model_costs(config, stored);
  GridChoice choice;
  for (const GridShape& shape : useful_shapes(config, world, shares_tokens))
    choice.ranked.push_back(estimate_grid(config, costs, shape, machine, workload));
  std::stable_sort(choice.ranked.begin(), choice.ranked.end(), [](const auto& a, const auto& b) {
    return a.total_seconds < b.total_seconds;
  });

  // Looks at the fastest ones until one fits, and at those that are as good as it.
  const GridEstimate* best = nullptr;
  const GridEstimate* chosen = nullptr;
  size_t seen = 0;
  for (; seen < choice.ranked.size(); ++seen) {
    GridEstimate& next = choice.ranked[seen];
    if (best != nullptr && seen >= kShown && next.total_seconds > kAsGood * best->total_seconds)
      break;
    next.fits = fits(next.shape);
    if (!next.fits) continue;
    if (best == nullptr) best = &next;
    const bool as_good = next.total_seconds <= kAsGood * best->total_seconds;
    if (as_good &&
        (chosen == nullptr || preference(next.shape, usual) < preference(chosen->shape, usual)))
      chosen = &next;
  }
  choice.shape = chosen == nullptr ? usual : chosen->shape;
  choice.reason = chosen == nullptr
                      ? fmt::format("chosen: {} (no grid of {} ranks fits)", usual.text(), world)
                      : reason_of(choice, *chosen);
  choice.ranked.resize(seen);
  return choice;
}

std::string ranking_text(const GridChoice& choice) {
  std::string text = fmt::format("{:<48} {:>12} {:>10}\n", "grid", "decode ms", "prefill s");
  for (size_t i = 0; i < std::min(choice.ranked.size(), kShown); ++i) {
    const GridEstimate& grid = choice.ranked[i];
    text += fmt::format("{:<48} {:>12.2f} {:>10.3f}{}{}\n",
                        grid.shape.text(),
                        grid.decode_seconds * 1e3,
                        grid.prefill_seconds,
                        grid.fits ? "" : "  does not fit",
                        grid.shape == choice.shape ? "  chosen" : "");
  }
  return text;
}

}  // namespace glm
