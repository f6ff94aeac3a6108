// Counters of powercap: what grew since the start counts, wrapped around or not; parts of a
// processor do not count twice; what cannot be read is said. SPDX-License-Identifier: MIT
#include "apps/host_energy.h"

#include <fstream>

#include <gtest/gtest.h>

#include "tests/io/temp_folder.h"

namespace glm::testing_support {
namespace {

void set_zone(const std::filesystem::path& folder,
              const std::string& zone,
              const std::string& name,
              int64_t microjoules) {
  std::filesystem::create_directories(folder / zone);
  std::ofstream(folder / zone / "name") << name << "\n";
  std::ofstream(folder / zone / "max_energy_range_uj") << 10'000'000 << "\n";
  std::ofstream(folder / zone / "energy_uj") << microjoules << "\n";
}

TEST(HostEnergy, CountsProcessorsAndMemoryOnce) {
  const TempFolder folder("host_energy");
  set_zone(folder.path(), "intel-rapl:0", "package-0", 1'000'000);
  set_zone(folder.path(), "intel-rapl:0:0", "core", 5'000'000);
  set_zone(folder.path(), "intel-rapl:0:1", "dram", 9'500'000);
  HostEnergy energy(folder.path());
  set_zone(folder.path(), "intel-rapl:0", "package-0", 3'000'000);
  set_zone(folder.path(), "intel-rapl:0:0", "core", 9'000'000);
  set_zone(folder.path(), "intel-rapl:0:1", "dram", 500'000);  // around
  const Json report = energy.report();
  EXPECT_DOUBLE_EQ(report["counters"]["package-0 (intel-rapl:0)"].get<double>(), 2);
  EXPECT_DOUBLE_EQ(report["counters"]["dram (intel-rapl:0:1)"].get<double>(), 1);
  EXPECT_FALSE(report["counters"].contains("core (intel-rapl:0:0)"));
}

TEST(HostEnergy, FollowsCountersThatWrapMoreThanOnce) {
  const TempFolder folder("host_energy");
  set_zone(folder.path(), "intel-rapl:0", "package-0", 0);
  HostEnergy energy(folder.path(), std::chrono::milliseconds(1));
  double sum = 0;
  for (int i = 1; i <= 3; ++i) {
    set_zone(folder.path(), "intel-rapl:0", "package-0", 9'000'000);
    sum = energy.report()["counters"]["package-0 (intel-rapl:0)"].get<double>();
    set_zone(folder.path(), "intel-rapl:0", "package-0", 1'000'000);
    sum = energy.report()["counters"]["package-0 (intel-rapl:0)"].get<double>();
  }
  EXPECT_NEAR(sum, 31, 1e-6);  // 9, then 2 + 8 + 2 + 8 + 2
}

TEST(HostEnergy, SaysWhatIsMissing) {
  const TempFolder folder("host_energy");
  const std::string reason = HostEnergy(folder.path()).report().value("absent", "");
  EXPECT_NE(reason.find("no RAPL counters"), std::string::npos) << reason;
  set_zone(folder.path(), "intel-rapl:0", "package-0", 0);
  std::filesystem::remove(folder.path() / "intel-rapl:0" / "energy_uj");
  const std::string unreadable = HostEnergy(folder.path()).report().value("absent", "");
  EXPECT_NE(unreadable.find("package-0 (intel-rapl:0) is not readable"), std::string::npos)
      << unreadable;
}

}  // namespace
}  // namespace glm::testing_support
