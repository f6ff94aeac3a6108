// glm_inspect show: what a model file or a folder holds. SPDX-License-Identifier: MIT
#pragma once

#include <string>

#include "core/model/model_source.h"

namespace glm {

// For people: configuration, bytes by kind, texts, tensors.
std::string show_text(const ModelSource& source);
// The same for machines, one object.
OrderedJson show_json(const ModelSource& source);

}  // namespace glm
