// The only place that sees OpenSSL. SPDX-License-Identifier: MIT
#include "io/sha256.h"

#include <array>

#include <openssl/evp.h>

#include "core/base/check.h"

namespace glm {

struct Sha256::State {
  State() : context(EVP_MD_CTX_new()) {}
  ~State() { EVP_MD_CTX_free(context); }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  EVP_MD_CTX* context;
};

Sha256::Sha256() : state_(std::make_unique<State>()) {
  if (state_->context == nullptr || EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr) != 1)
    fail(ExitCode::kRuntime, "OpenSSL offers no SHA-256 here");
}

Sha256::~Sha256() = default;

void Sha256::update(const void* data, size_t bytes) {
  GLM_CHECK(EVP_DigestUpdate(state_->context, data, bytes) == 1, "SHA-256 of {} bytes", bytes);
}

std::string Sha256::hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest = {};
  unsigned int size = 0;
  GLM_CHECK(EVP_DigestFinal_ex(state_->context, digest.data(), &size) == 1 && size == 32,
            "SHA-256 of {} bytes",
            size);
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::filesystem::path manifest_path(const std::filesystem::path& file) {
  return file.string() + ".sha256";
}

std::string manifest_line(const std::string& digest, std::string_view name) {
  std::string shown;
  for (const char c : name) {
    if (c == '\\')
      shown += "\\\\";
    else if (c == '\n')
      shown += "\\n";
    else if (c == '\r')
      shown += "\\r";
    else
      shown += c;
  }
  return fmt::format("{}{}  {}\n", shown == name ? "" : "\\", digest, shown);
}

}  // namespace glm
