#include "model/encoder/cpu/division.h"

#include <algorithm>
#include <cstdint>

#include "model/encoder/cpu/packed_weights.h"

namespace longembed::cpu {
namespace {

// With fewer rows per thread than this, the threads share steps.
constexpr int kFewRows = 32;

// Bounds of the multiply-adds of one iteration. The maximum, 5 to 10 ms on one core, exists because a helper can leave
// and a cancelled batch can end only between iterations. The minimum, some microseconds, exists because starting an
// iteration takes part of a microsecond.
constexpr double kMostProducts = 5e8;
constexpr double kLeastProducts = 5e5;

// Elements of one iteration of a row loop, which take some microseconds.
constexpr int kPieceElements = 1 << 15;

// Row blocks are multiples of this. The matrix kernels multiply tiles of rows, and other block sizes would leave tiles
// partly empty.
constexpr int kKernelRows = 8;

// Iterations per thread, if there is enough work, because the threads of a loop do not begin at the same time.
constexpr int kIterationsPerThread = 2;

int WidthOf(const RowStep& step) {
  return std::visit([](const auto& each) { return each.out.width; }, step);
}

// Adds a loop for steps without products, if there are any or an operand has to be converted.
void AddRowLoop(const Segment& segment, Range chunk, Range steps, const LinearStep* operand,
                std::vector<StepLoop>& loops) {
  if (steps.size() == 0 && operand == nullptr) return;
  int columns = operand == nullptr ? 0 : operand->weights.inputs;
  for (int32_t i = steps.start; i < steps.end; ++i) columns = std::max(columns, WidthOf(segment.steps[i]));
  const auto pieces = std::max(1, static_cast<int>(static_cast<int64_t>(chunk.size()) * columns / kPieceElements));
  loops.push_back(
      RowLoop{.pieces = Chunks(chunk, (chunk.size() + pieces - 1) / pieces), .steps = steps, .operand = operand});
}

ProductLoop Grid(const LinearStep& step, Range chunk, int threads) {
  const double products = chunk.size() * ProductsOfRow(step);
  const int worthwhile = static_cast<int>(std::clamp(products / kLeastProducts, 1.0, 1e6));
  const int at_least = static_cast<int>(products / kMostProducts) + 1;
  const int wanted = std::max(at_least, std::min(worthwhile, kIterationsPerThread * threads));
  const int panels = step.weights.panel_count();
  const int tiles = std::min(panels, wanted);
  const int blocks = (wanted + tiles - 1) / tiles;
  const int block_rows = RoundUp((chunk.size() + blocks - 1) / blocks, kKernelRows);
  ProductLoop loop{.step = &step, .panel_tiles = Chunks({0, panels}, (panels + tiles - 1) / tiles)};
  for (int row = chunk.start; row < chunk.end; row += block_rows) {
    loop.row_blocks.push_back({row, std::min(row + block_rows, chunk.end)});
  }
  return loop;
}

// Divides each range into tiles of at most `queries` queries and about `pairs` pairs of a query and a key.
std::vector<AttentionTile> Tiles(const AttentionShape& shape, const std::vector<QueryRange>& ranges, int queries,
                                 int64_t pairs) {
  std::vector<AttentionTile> tiles;
  for (const QueryRange& range : ranges) {
    for (const Range piece : Chunks(range.queries, queries)) {
      const int32_t last = shape.causal ? piece.end : std::min(range.tokens, piece.end + shape.reach);
      const int64_t keys = last - std::max(0, piece.start - shape.reach);
      const auto heads = static_cast<int>(std::clamp<int64_t>(pairs / (piece.size() * keys), 1, shape.heads));
      for (const Range some : Chunks({0, shape.heads}, heads)) {
        tiles.push_back({range.sequence, some, piece, range.calibrated});
      }
    }
  }
  return tiles;
}

}  // namespace

std::vector<Range> Chunks(Range range, int max_size) {
  std::vector<Range> chunks;
  const int pieces = (range.size() + max_size - 1) / max_size;
  for (int i = 0; i < pieces; ++i) {
    const auto bound = [&](int piece) {
      return range.start + static_cast<int32_t>(static_cast<int64_t>(range.size()) * piece / pieces);
    };
    chunks.push_back({bound(i), bound(i + 1)});
  }
  return chunks;
}

double ProductsOfRow(const LinearStep& step) {
  const double matrix = static_cast<double>(step.weights.outputs) * static_cast<double>(step.weights.inputs);
  return step.gate.has_value() ? 2 * matrix : matrix;
}

double ProductsOfRow(const Segment& segment) {
  double products = 0;
  for (const RowStep& step : segment.steps) {
    if (const auto* linear = std::get_if<LinearStep>(&step)) products += ProductsOfRow(*linear);
  }
  return products;
}

std::vector<Range> ChunksThroughSteps(const Segment& segment, int rows, int threads) {
  if (rows < threads * kFewRows || kChunkRows * ProductsOfRow(segment) > 4 * kMostProducts) return {};
  const int chunks = RoundUp((rows + kChunkRows - 1) / kChunkRows, threads);
  return Chunks({0, rows}, (rows + chunks - 1) / chunks);
}

int SharedChunkRows(int threads) { return std::max(kChunkRows, 2 * kKernelRows * threads); }

std::vector<StepLoop> LoopsOfSteps(const Segment& segment, Range chunk, int threads) {
  std::vector<StepLoop> loops;
  const auto count = static_cast<int32_t>(segment.steps.size());
  int32_t first = 0;  // First of the row steps before the next linear step.
  for (int32_t i = 0; i < count; ++i) {
    const auto* const linear = std::get_if<LinearStep>(&segment.steps[i]);
    if (linear == nullptr) continue;
    AddRowLoop(segment, chunk, {first, i}, linear->in_is_operand ? nullptr : linear, loops);
    loops.push_back(Grid(*linear, chunk, threads));
    first = i + 1;
  }
  AddRowLoop(segment, chunk, {first, count}, nullptr, loops);
  return loops;
}

std::vector<AttentionTile> AttentionTiles(const AttentionShape& shape, const std::vector<QueryRange>& ranges,
                                          int threads) {
  constexpr int64_t kPairs = 1 << 15;  // Pairs of one head, which take some tens of microseconds.
  constexpr int kSmaller = 4;          // Even after halving twice, a tile takes longer than the packing of its keys.
  std::vector<AttentionTile> tiles;
  for (int divisor = 1; divisor <= kSmaller; divisor *= 2) {
    tiles = Tiles(shape, ranges, kMaxQueries / divisor, kPairs / divisor);
    if (static_cast<int>(tiles.size()) >= kIterationsPerThread * threads) break;
  }
  // The last queries of a causal sequence see the most keys. They run first, so that threads finish at about the same
  // time.
  if (shape.causal) std::ranges::reverse(tiles);
  return tiles;
}

}  // namespace longembed::cpu
