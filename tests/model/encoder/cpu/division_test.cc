// Counts the parallel loops of a layer on machines with many cores, and simulates their times by list scheduling. The
// loops are those that the encoder runs. The costs are those of a core of 2023 in float32.
#include "model/encoder/cpu/division.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <queue>
#include <set>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "model/encoder/cpu/kernels.h"
#include "tests/model/encoder/cpu/programs.h"

namespace longembed::cpu {
namespace {

// Costs in microseconds.
constexpr double kProducts = 1 / 80'000.0;  // Per multiply-add.
constexpr double kElements = 1 / 4'000.0;   // Per element of a norm or of a conversion.
constexpr double kPairs = 64 / 40'000.0;    // Per query, key, and head of 32 components.
constexpr double kTaking = 0.3;             // Per iteration, to take it from the shared counter.
constexpr double kMeeting = 3;              // Per loop, to synchronize at its end.

struct Simulation {
  int loops = 0;
  double work = 0;
  double time = 0;

  // Runs iterations with these costs. Each thread takes the next one as soon as it is free.
  void Loop(const std::vector<double>& costs, int threads) {
    std::priority_queue<double, std::vector<double>, std::greater<>> free;
    for (int i = 0; i < threads; ++i) free.push(0);
    double end = 0;
    for (const double cost : costs) {
      const double finished = free.top() + kTaking + cost;
      free.pop();
      free.push(finished);
      end = std::max(end, finished);
      work += cost;
    }
    ++loops;
    time += end + (costs.size() > 1 ? kMeeting : 0);
  }
  double BusyShare(int threads) const { return work / (threads * time); }
};

Schedule MakeLayer(int width, int inner, int heads) {
  Program program = Encoder(width, heads, width / heads, inner, 1);
  return MakeSchedule(std::move(program.layers), program.widths, program.input, program.output, Precision::kFloat32,
                      *AvailableKernels().front());
}

double CostOf(const RowStep& step, int rows) {
  if (const auto* linear = std::get_if<LinearStep>(&step)) return rows * ProductsOfRow(*linear) * kProducts;
  return rows * std::visit([](const auto& each) { return each.out.width; }, step) * kElements;
}
double CostOf(const Segment& segment, Range steps, int rows) {
  double cost = 0;
  for (int i = steps.start; i < steps.end; ++i) cost += CostOf(segment.steps[i], rows);
  return cost;
}

void RunSteps(const Segment& segment, int rows, int threads, Simulation& run) {
  std::vector<double> costs;
  for (const Range chunk : ChunksThroughSteps(segment, rows, threads)) {
    costs.push_back(CostOf(segment, {0, static_cast<int>(segment.steps.size())}, chunk.size()));
  }
  if (!costs.empty()) return run.Loop(costs, threads);
  for (const Range chunk : Chunks({0, rows}, SharedChunkRows(threads))) {
    for (const StepLoop& loop : LoopsOfSteps(segment, chunk, threads)) {
      costs.clear();
      if (const auto* products = std::get_if<ProductLoop>(&loop)) {
        const double panel = ProductsOfRow(*products->step) / products->step->weights.panel_count();
        for (int i = 0; i < products->count(); ++i) {
          costs.push_back(products->rows(i).size() * products->panels(i).size() * panel * kProducts);
        }
      } else {
        const auto& rows_loop = std::get<RowLoop>(loop);
        for (const Range piece : rows_loop.pieces) costs.push_back(CostOf(segment, rows_loop.steps, piece.size()));
      }
      run.Loop(costs, threads);
    }
  }
}

// Runs one layer over a text.
Simulation RunLayer(const Schedule& schedule, int tokens, int threads) {
  Simulation run;
  for (const Segment& segment : schedule.segments) {
    RunSteps(segment, tokens, threads, run);
    if (!segment.has_attention) continue;
    std::vector<double> costs;
    const QueryRange all{.tokens = tokens, .queries = {0, tokens}};
    for (const AttentionTile& tile : AttentionTiles(segment.attention, {all}, threads)) {
      costs.push_back(static_cast<double>(tile.queries.size()) * tokens * tile.heads.size() * kPairs);
    }
    run.Loop(costs, threads);
  }
  return run;
}

struct ManyCores {
  int threads, tokens, most_loops;
  double least_busy;
};

class DivisionTest : public ::testing::TestWithParam<ManyCores> {};

TEST_P(DivisionTest, ThreadsAreBusyAndMeetSeldom) {
  if (AvailableKernels().empty()) GTEST_SKIP() << "this processor has neither AVX2 nor NEON";
  const auto& [threads, tokens, most_loops, least_busy] = GetParam();
  const Simulation run = RunLayer(MakeLayer(384, 1536, 12), tokens, threads);
  std::printf("%3d threads, %4d tokens: %2d loops, %6.0f us, busy %.2f\n", threads, tokens, run.loops, run.time,
              run.BusyShare(threads));
  EXPECT_LE(run.loops, most_loops);
  EXPECT_GE(run.BusyShare(threads), least_busy);
}

// A text of 16 tokens can use about ten threads and no more. With many rows, a layer consists of an attention between
// two loops.
INSTANTIATE_TEST_SUITE_P(
    All, DivisionTest,
    ::testing::Values(ManyCores{8, 16, 7, 0.5}, ManyCores{8, 128, 7, 0.8}, ManyCores{8, 512, 3, 0.95},
                      ManyCores{8, 2048, 3, 0.98}, ManyCores{8, 4096, 3, 0.98}, ManyCores{64, 16, 7, 0.08},
                      ManyCores{64, 128, 7, 0.35}, ManyCores{64, 512, 7, 0.7}, ManyCores{64, 2048, 3, 0.95},
                      ManyCores{64, 4096, 3, 0.98}, ManyCores{128, 16, 7, 0.04}, ManyCores{128, 128, 7, 0.2},
                      ManyCores{128, 512, 7, 0.6}, ManyCores{128, 2048, 7, 0.85}, ManyCores{128, 4096, 3, 0.95}),
    [](const auto& info) { return absl::StrCat(info.param.threads, "Threads", info.param.tokens, "Tokens"); });

// Every row of every step, and every pair of a row and a panel, must be in exactly one iteration.
TEST(LoopsOfStepsTest, CoverEveryRowAndPanelOnce) {
  if (AvailableKernels().empty()) GTEST_SKIP() << "this processor has neither AVX2 nor NEON";
  const Schedule schedule = MakeLayer(384, 1536, 12);
  for (const int threads : {1, 2, 7, 64, 128}) {
    for (const Range chunk : {Range{0, 1}, Range{0, 9}, Range{100, 163}, Range{0, 777}}) {
      for (const Segment& segment : schedule.segments) {
        std::vector<int> steps(segment.steps.size(), 0);
        for (const StepLoop& loop : LoopsOfSteps(segment, chunk, threads)) {
          if (const auto* products = std::get_if<ProductLoop>(&loop)) {
            std::set<std::pair<int, int>> pairs;
            for (int i = 0; i < products->count(); ++i) {
              for (int row = products->rows(i).start; row < products->rows(i).end; ++row) {
                for (int panel = products->panels(i).start; panel < products->panels(i).end; ++panel) {
                  EXPECT_TRUE(pairs.emplace(row, panel).second) << "row " << row << ", panel " << panel;
                }
              }
            }
            EXPECT_EQ(pairs.size(), static_cast<size_t>(chunk.size()) * products->step->weights.panel_count());
            EXPECT_EQ(pairs.begin()->first, chunk.start);
            for (size_t i = 0; i < steps.size(); ++i)
              steps[i] += std::get_if<LinearStep>(&segment.steps[i]) == products->step;
            continue;
          }
          const auto& row_loop = std::get<RowLoop>(loop);
          int row = chunk.start;
          for (const Range piece : row_loop.pieces) EXPECT_EQ(std::exchange(row, piece.end), piece.start);
          EXPECT_EQ(row, chunk.end);
          for (int i = row_loop.steps.start; i < row_loop.steps.end; ++i) ++steps[i];
        }
        EXPECT_THAT(steps, ::testing::Each(1));
      }
    }
  }
}

TEST(AttentionTilesTest, CoverEveryQueryOfEveryHeadOnce) {
  const std::vector<QueryRange> ranges{{.sequence = 0, .tokens = 700, .queries = {0, 700}},
                                       {.sequence = 2, .tokens = 5, .queries = {0, 1}, .calibrated = true},
                                       {.sequence = 2, .tokens = 5, .queries = {1, 5}}};
  for (const bool causal : {false, true}) {
    for (const int threads : {1, 8, 200}) {
      const AttentionShape shape{.heads = 12, .key_value_heads = 12, .head_dim = 32, .causal = causal};
      std::set<std::tuple<int, int, int>> seen;
      for (const AttentionTile& tile : AttentionTiles(shape, ranges, threads)) {
        EXPECT_LE(tile.queries.size(), kMaxQueries);
        EXPECT_EQ(tile.calibrated, tile.sequence == 2 && tile.queries.start == 0);
        for (int head = tile.heads.start; head < tile.heads.end; ++head) {
          for (int query = tile.queries.start; query < tile.queries.end; ++query) {
            EXPECT_TRUE(seen.emplace(tile.sequence, head, query).second);
          }
        }
      }
      EXPECT_EQ(seen.size(), 12u * 705u);
    }
  }
}

}  // namespace
}  // namespace longembed::cpu
