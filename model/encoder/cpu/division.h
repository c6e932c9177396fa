// Divides a segment's rows and weights among threads. These are pure functions of sizes, so a test can check the loops
// for 128 threads on a machine with two cores.
//
// There are two ways. With many rows per thread, each core takes a chunk of rows through all steps of the segment
// (ChunksThroughSteps). With few rows per thread, all threads work on one step at a time (LoopsOfSteps): products are
// divided by a grid of row blocks and panels, and other steps by rows.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_DIVISION_H_
#define LONGEMBED_MODEL_ENCODER_CPU_DIVISION_H_

#include <variant>
#include <vector>

#include "model/encoder/cpu/schedule.h"
#include "model/plan/sequence.h"

namespace longembed::cpu {

// Maximum rows of a chunk that goes through all steps on one core. With more rows, each weight that was fetched is
// reused more often; with fewer rows, all intermediate values stay in a core's second-level cache.
inline constexpr int kChunkRows = 96;

// A parallel loop over rows. Each iteration takes its piece through the steps, and then converts it to the operand of
// the following linear step if that needs one.
struct RowLoop {
  std::vector<Range> pieces;
  Range steps;                          // Indexes of the segment's steps.
  const LinearStep* operand = nullptr;  // The following linear step; null if no operand is needed.
};

// A parallel loop over the products of one linear step. Iteration i multiplies one block of rows by one tile of panels.
struct ProductLoop {
  const LinearStep* step = nullptr;
  std::vector<Range> row_blocks;
  std::vector<Range> panel_tiles;

  int count() const { return static_cast<int>(row_blocks.size() * panel_tiles.size()); }
  // Consecutive iterations share a tile of panels, so weights that one core has fetched are in a shared cache for the
  // next.
  Range rows(int i) const { return row_blocks[i % row_blocks.size()]; }
  Range panels(int i) const { return panel_tiles[i / row_blocks.size()]; }
};

using StepLoop = std::variant<RowLoop, ProductLoop>;

// Divides a range into pieces of at most `max_size`, as equal as possible.
std::vector<Range> Chunks(Range range, int max_size);

// Return the multiply-adds of one row in all linear steps of the segment, or in one step.
double ProductsOfRow(const Segment& segment);
double ProductsOfRow(const LinearStep& step);

// Divides `rows` rows into chunks that each go through all steps on one core, the same number of chunks per thread.
// Returns no chunks if the threads should share the steps instead: if there are few rows per thread, or if a chunk
// would take so long that a helper could not leave within about 40 ms.
std::vector<Range> ChunksThroughSteps(const Segment& segment, int rows, int threads);

// Returns the number of rows whose intermediate values exist at the same time while `threads` threads share steps.
int SharedChunkRows(int threads);

// Returns the loops in which `threads` threads take `chunk` through a segment. The chunk has at most
// SharedChunkRows(threads) rows.
std::vector<StepLoop> LoopsOfSteps(const Segment& segment, Range chunk, int threads);

// One iteration of an attention loop: some heads of some queries of one sequence.
struct AttentionTile {
  int sequence = 0;
  Range heads;
  Range queries;  // Range of the sequence's tokens.
  bool calibrated = false;
};

// Queries of one sequence that an attention processes.
struct QueryRange {
  int sequence = 0;
  int tokens = 0;  // Length of the sequence.
  Range queries;
  bool calibrated = false;
};

// Divides queries into tiles of about equal work. There are at least two tiles per thread, unless a tile would then
// take less than some microseconds.
std::vector<AttentionTile> AttentionTiles(const AttentionShape& shape, const std::vector<QueryRange>& ranges,
                                          int threads);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_DIVISION_H_
