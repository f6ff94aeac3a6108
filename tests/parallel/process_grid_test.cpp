// The grid: every shape up to 8 ranks, what is chosen when nothing is said, and what is refused.
// SPDX-License-Identifier: MIT
#include "parallel/process_grid.h"

#include <algorithm>
#include <map>
#include <set>

#include <gtest/gtest.h>

namespace glm {
namespace {

// The legal folds, stated again: 1, the divisors of tensor, k * tensor with k dividing data.
bool legal_fold(int data, int tensor, int expert) {
  return tensor % expert == 0 ||
         (expert % tensor == 0 && expert / tensor <= data && data % (expert / tensor) == 0);
}

std::vector<GridShape> all_shapes(int most_ranks) {
  std::vector<GridShape> shapes;
  for (int world = 1; world <= most_ranks; ++world)
    for (int data = 1; data <= world; ++data)
      for (int tensor = 1; data * tensor <= world; ++tensor)
        for (int expert = 1; expert <= data * tensor; ++expert)
          if (world % (data * tensor) == 0 && legal_fold(data, tensor, expert))
            shapes.push_back({data, world / (data * tensor), tensor, expert});
  return shapes;
}

std::string refusal(const GridRequest& request, int world, bool is_moe = true) {
  try {
    const GridShape shape = complete_grid(request, world, is_moe);
    ADD_FAILURE() << "accepted as " << shape.text();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    return error.what();
  }
  return {};
}

TEST(Grid, EveryRankHasItsOwnCoordinates) {
  for (const GridShape& shape : all_shapes(8)) {
    std::set<std::tuple<int, int, int>> seen;
    for (int rank = 0; rank < shape.world(); ++rank) {
      const GridCoord coord = grid_coord(shape, rank);
      EXPECT_TRUE(coord.data >= 0 && coord.data < shape.data) << shape.text();
      EXPECT_TRUE(coord.pipeline >= 0 && coord.pipeline < shape.pipeline) << shape.text();
      EXPECT_TRUE(coord.tensor >= 0 && coord.tensor < shape.tensor) << shape.text();
      EXPECT_EQ(grid_rank(shape, coord.data, coord.pipeline, coord.tensor), rank) << shape.text();
      seen.insert({coord.data, coord.pipeline, coord.tensor});
    }
    EXPECT_EQ(seen.size(), static_cast<size_t>(shape.world())) << shape.text();
  }
}

TEST(Grid, TensorRanksAreNeighboursThenDataThenPipeline) {
  const GridShape shape{2, 2, 2, 1};
  EXPECT_EQ(grid_coord(shape, 1).tensor, 1);
  EXPECT_EQ(grid_coord(shape, 2).data, 1);
  EXPECT_EQ(grid_coord(shape, 4).pipeline, 1);
}

TEST(Grid, EveryExpertIsHeldOnceInEachExchangeGroup) {
  for (const GridShape& shape : all_shapes(8)) {
    const int slices = expert_slices(shape);
    const int group = std::max(shape.tensor, shape.expert);
    ASSERT_EQ(slices * shape.expert, group) << shape.text();
    // Group -> (share, slice) of its ranks, in rank order.
    std::map<int, std::vector<std::pair<int, int>>> groups;
    for (int rank = 0; rank < shape.world(); ++rank) {
      const GridCoord coord = grid_coord(shape, rank);
      groups[rank / group].push_back({coord.expert, coord.expert_slice});
      // A group does not reach beyond its stage.
      EXPECT_EQ(coord.pipeline, grid_coord(shape, rank / group * group).pipeline);
    }
    for (const auto& [number, members] : groups) {
      ASSERT_EQ(members.size(), static_cast<size_t>(group)) << shape.text();
      for (int place = 0; place < group; ++place)
        EXPECT_EQ(members[static_cast<size_t>(place)], std::pair(place / slices, place % slices))
            << shape.text() << ", group " << number;
    }
  }
}

TEST(Grid, SharesThatShareTokensLieInOneTensorGroup) {
  for (const GridShape& shape : all_shapes(8)) {
    if (shape.expert > shape.tensor) continue;
    for (int rank = 0; rank < shape.world(); ++rank)
      EXPECT_EQ(grid_coord(shape, rank).expert,
                grid_coord(shape, rank).tensor / expert_slices(shape));
  }
}

TEST(GridRequest, CompleteRequestsAreTakenIfAndOnlyIfTheyFit) {
  for (int world = 1; world <= 8; ++world)
    for (int data = 1; data <= 9; ++data)
      for (int pipeline = 1; pipeline <= 9; ++pipeline)
        for (int tensor = 1; tensor <= 9; ++tensor)
          for (int expert = 1; expert <= 9; ++expert) {
            const GridRequest request{data, pipeline, tensor, expert};
            const bool fits = data * pipeline * tensor == world && legal_fold(data, tensor, expert);
            if (fits)
              EXPECT_EQ(complete_grid(request, world, true),
                        (GridShape{data, pipeline, tensor, expert}));
            else
              EXPECT_THROW(complete_grid(request, world, true), Error);
          }
}

TEST(GridRequest, PipelineTakesTheRest) {
  for (int world = 1; world <= 8; ++world)
    for (int tensor = 1; tensor <= world; ++tensor) {
      GridRequest request;
      request.tensor = tensor;
      if (world % tensor == 0)
        EXPECT_EQ(complete_grid(request, world, true),
                  (GridShape{1, world / tensor, tensor, tensor}));
      else
        refusal(request, world);
    }
}

TEST(GridRequest, NothingGiven) {
  const auto chosen = [](int world) { return complete_grid({}, world, true); };
  EXPECT_EQ(chosen(1), (GridShape{1, 1, 1, 1}));
  EXPECT_EQ(chosen(2), (GridShape{1, 1, 2, 2}));
  EXPECT_EQ(chosen(3), (GridShape{1, 3, 1, 1}));
  EXPECT_EQ(chosen(4), (GridShape{1, 2, 2, 2}));
  EXPECT_EQ(chosen(5), (GridShape{1, 5, 1, 1}));
  EXPECT_EQ(chosen(6), (GridShape{1, 3, 2, 2}));
  EXPECT_EQ(chosen(8), (GridShape{1, 4, 2, 2}));
  EXPECT_EQ(complete_grid({}, 4, false), (GridShape{1, 2, 2, 1}));
}

TEST(GridRequest, OnlyTheFoldGivenKeepsTheChosenGrid) {
  GridRequest request;
  request.expert = 1;
  EXPECT_EQ(complete_grid(request, 4, true), (GridShape{1, 2, 2, 1}));
}

TEST(GridRequest, DataRanksTakeWholeExpertsByDefault) {
  GridRequest request;
  request.data = 4;
  EXPECT_EQ(complete_grid(request, 4, true), (GridShape{4, 1, 1, 4}));
  EXPECT_EQ(complete_grid(request, 4, false), (GridShape{4, 1, 1, 1}));
}

TEST(GridRequest, RefusalsNameWhatWouldFit) {
  GridRequest request;
  request.tensor = 3;
  EXPECT_EQ(refusal(request, 4),
            "data 1 x tensor 3 does not divide the job's 4 ranks: their product must be one of "
            "1, 2, 4");
  request = {};
  request.pipeline = 2;
  EXPECT_EQ(refusal(request, 4),
            "data 1 x pipeline 2 x tensor 1 is not the job's 4 ranks: with this data and tensor "
            "--pipeline must be 4");
  request = {4, {}, 2, 3};
  EXPECT_EQ(refusal(request, 8),
            "--expert 3 does not fold data 4 x tensor 2: legal values are 1, 2, 4, 8");
  request = {};
  request.expert = 2;
  EXPECT_NE(refusal(request, 4, false).find("the model has no experts"), std::string::npos);
}

TEST(GridRequest, NumbersOutOfRangeAreRefused) {
  for (const int value : {0, -1, -2147483647 - 1}) {
    EXPECT_NE(refusal({value, {}, {}, {}}, 4).find("--data"), std::string::npos);
    EXPECT_NE(refusal({{}, value, {}, {}}, 4).find("--pipeline"), std::string::npos);
    EXPECT_NE(refusal({{}, {}, value, {}}, 4).find("--tensor"), std::string::npos);
    EXPECT_NE(refusal({{}, {}, {}, value}, 4).find("--expert"), std::string::npos);
  }
  refusal({2147483647, {}, 2147483647, {}}, 4);
  refusal({2147483647, 2147483647, 2147483647, 2147483647}, 4);
}

TEST(Grid, TextNamesAllAxes) {
  EXPECT_EQ((GridShape{1, 2, 2, 2}).text(), "data 1 x pipeline 2 x tensor 2, expert 2");
}

// The communicators of a grid are the groups that the coordinates say.
TEST(ProcessGrid, GroupsHoldTheRanksOfTheirCoordinates) {
  for (const GridShape& shape : all_shapes(8)) {
    run_thread_ranks(shape.world(), {}, [&](Communicator& world) {
      ProcessGrid grid(world, shape);
      EXPECT_EQ(grid.tensor().size(), shape.tensor);
      EXPECT_EQ(grid.tensor().rank(), grid.coord().tensor);
      EXPECT_EQ(grid.exchange().size(), std::max(shape.tensor, shape.expert));
      EXPECT_EQ(grid.exchange().rank(),
                grid.coord().expert * expert_slices(shape) + grid.coord().expert_slice);
      EXPECT_EQ(grid.rank_of_stage(grid.coord().pipeline), world.rank());
      EXPECT_EQ(grid.first_stage(), grid.coord().pipeline == 0);
      EXPECT_EQ(grid.last_stage(), grid.coord().pipeline == shape.pipeline - 1);
      // Each tensor group has one (data, pipeline).
      const std::string place =
          std::to_string(grid.coord().data) + "/" + std::to_string(grid.coord().pipeline);
      for (const std::string& other : all_gather_strings(grid.tensor(), place))
        EXPECT_EQ(other, place);
    });
  }
}

TEST(ProcessGrid, AShapeOfAnotherSizeIsRefused) {
  const auto self = make_self_communicator({});
  EXPECT_THROW(ProcessGrid(*self, GridShape{1, 1, 2, 1}), Error);
}

}  // namespace
}  // namespace glm
