// Fuzz target: descriptions of machines. One that is accepted comes back from what is written of
// it. SPDX-License-Identifier: MIT
#include "core/model/machine.h"

#include <cmath>

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace glm;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  fuzz::accepts({ExitCode::kModelFile}, [&] {
    const MachineSpec spec = parse_machine(text, "m");
    fuzz::require(spec.n_ranks() > 0 && spec.read_rate > 0 && spec.operations > 0, "peaks above 0");
    fuzz::require(spec.ranks.empty() || static_cast<int>(spec.ranks.size()) == spec.n_ranks(),
                  "a line for each rank");
    const std::vector<int> one(1, 0);
    const Machine machine = machine_for(spec, DType::kQ40, one, 1, 1);
    fuzz::require(std::isfinite(machine.read_rate) && machine.product_rate > 0, "rates above 0");
    machine_json(spec).dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
  });
  return 0;
}
