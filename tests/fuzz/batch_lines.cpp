// Fuzz target: the lines of a file of requests. SPDX-License-Identifier: MIT
#include "apps/batch_file.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace glm;
  static const fuzz::MemoryFile file;
  file.set({reinterpret_cast<const char*>(data), size});
  fuzz::accepts({ExitCode::kUsage}, [&] {
    for (const BatchItem& item : read_batch(file.path(), InferOptions())) {
      fuzz::require(!item.id.empty() && item.line > 0, "an id and a line");
      const int prompts =
          item.options.prompt.has_value() + !item.messages.empty() + !item.tokens.empty();
      fuzz::require(prompts == 1, "one prompt");
      for (const int32_t id : item.tokens) fuzz::require(id >= 0, "ids of at least 0");
    }
  });
  return 0;
}
