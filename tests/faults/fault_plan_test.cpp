// What GLM_FAULT may say, and that a typing error is not taken for "no fault".
// SPDX-License-Identifier: MIT
#include "tests/faults/fault_plan.h"

#include <gtest/gtest.h>

namespace glm::testing_support {
namespace {

TEST(FaultPlan, ReadsEveryField) {
  const FaultPlan plan = parse_fault_plan("rank=3,point=dispatch,step=2,layer=1,action=sleep:20");
  EXPECT_EQ(plan.rank, 3);
  EXPECT_EQ(plan.point, "dispatch");
  EXPECT_EQ(plan.step, 2);
  EXPECT_EQ(plan.layer, 1);
  EXPECT_EQ(plan.action, FaultAction::kSleep);
  EXPECT_EQ(plan.seconds, 20);
}

TEST(FaultPlan, MeetsOnePlace) {
  const FaultPlan plan = parse_fault_plan("action=kill,rank=1,point=combine,step=4");
  EXPECT_TRUE(plan.meets({"combine", 1, 4, 0}));
  EXPECT_TRUE(plan.meets({"combine", 1, 4, 7})) << "every layer where none is named";
  EXPECT_FALSE(plan.meets({"combine", 0, 4, 0}));
  EXPECT_FALSE(plan.meets({"combine", 1, 5, 0}));
  EXPECT_FALSE(plan.meets({"dispatch", 1, 4, 0}));
  const FaultPlan layer = parse_fault_plan("action=kill,rank=1,point=combine,layer=2");
  EXPECT_TRUE(layer.meets({"combine", 1, 1, 2}));
  EXPECT_FALSE(layer.meets({"combine", 1, 1, 3}));
}

TEST(FaultPlan, RefusesWhatItDoesNotUnderstand) {
  for (const char* text : {"",
                           "rank=1",
                           "rank=1,point=dispatch",
                           "rank=1,action=kill",
                           "point=load,action=kill",
                           "rank=1,point=nowhere,action=kill",
                           "rank=1,point=load,action=explode",
                           "rank=1,point=load,action=kill:3",
                           "rank=1,point=load,action=sleep",
                           "rank=1,point=load,action=sleep:",
                           "rank=1,point=load,action=sleep:x",
                           "rank=-1,point=load,action=kill",
                           "rank=1x,point=load,action=kill",
                           "rank=99999999999,point=load,action=kill",
                           "rank=1,rank=2,point=load,action=kill",
                           "rank=1,point=load,action=kill,colour=red",
                           "rank=1,point=load,action=kill,step"})
    EXPECT_THROW(static_cast<void>(parse_fault_plan(text)), Error) << text;
}

}  // namespace
}  // namespace glm::testing_support
