// Divides a segment's rows and weights among threads: pure functions of sizes, so that a test counts the loops of 128
// threads on a machine with two.
//
// There are two ways. With many rows for each thread, a chunk of rows goes through all steps of the segment on one core
// (ChunksThroughSteps). With few, the threads share one step after the other (LoopsOfSteps): products by a grid of row
// blocks and panels, everything else by rows.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_DIVISION_H_
#define LONGEMBED_MODEL_ENCODER_CPU_DIVISION_H_

#include <variant>
#include <vector>

#include "model/encoder/cpu/schedule.h"
#include "model/plan/sequence.h"

namespace longembed::cpu {

// The largest chunk that goes through all steps on one core. More rows reuse each weight that was fetched more often;
// fewer keep all their intermediate values in a core's second-level cache.
inline constexpr int kChunkRows = 96;

// A parallel loop over rows: each iteration takes its piece through the steps and then converts it to the operand of
// the linear step that follows, if it needs one.
struct RowLoop {
  std::vector<Range> pieces;
  Range steps;                          // Of the segment.
  const LinearStep* operand = nullptr;  // Null: none.
};

// A parallel loop over the products of one linear step: iteration i multiplies one block of rows by one tile of panels.
struct ProductLoop {
  const LinearStep* step = nullptr;
  std::vector<Range> row_blocks;
  std::vector<Range> panel_tiles;

  int count() const { return static_cast<int>(row_blocks.size() * panel_tiles.size()); }
  // Iterations next to each other share a tile of panels: the weights that one core fetches, another finds nearby.
  Range rows(int i) const { return row_blocks[i % row_blocks.size()]; }
  Range panels(int i) const { return panel_tiles[i / row_blocks.size()]; }
};

using StepLoop = std::variant<RowLoop, ProductLoop>;

// Cuts a range into pieces of at most `most`, as equal as possible.
std::vector<Range> Chunks(Range range, int most);

// Multiply-adds of one row in all linear steps of the segment, or in one step.
double ProductsOfRow(const Segment& segment);
double ProductsOfRow(const LinearStep& step);

// The chunks of `rows` rows that go through all steps on one core each, the same number for each thread; empty where
// the threads share the steps instead: with few rows a thread, and where a chunk would take so long that a helper could
// not leave within some 40 ms.
std::vector<Range> ChunksThroughSteps(const Segment& segment, int rows, int threads);

// Rows whose intermediate values exist at once while `threads` threads share steps.
int SharedChunkRows(int threads);

// The loops in which `threads` threads take `chunk`, at most SharedChunkRows(threads) rows, through a segment.
std::vector<StepLoop> LoopsOfSteps(const Segment& segment, Range chunk, int threads);

// Some heads of some queries of one sequence: an iteration of an attention's loop.
struct AttentionTile {
  int sequence = 0;
  Range heads;
  Range queries;  // In tokens of the sequence.
  bool calibrated = false;
};

// Queries of one sequence that an attention computes.
struct QueryRange {
  int sequence = 0;
  int tokens = 0;  // Of the sequence.
  Range queries;
  bool calibrated = false;
};

// Tiles of about equal work, two or more for each thread where that leaves each some microseconds.
std::vector<AttentionTile> AttentionTiles(const AttentionShape& shape, const std::vector<QueryRange>& ranges,
                                          int threads);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_DIVISION_H_
