// Attention of one sequence (attention.h). For kernels_*.cc, which include it after the vectors of their instruction
// set.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_BODY_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_BODY_H_

#include <type_traits>

#include "model/encoder/cpu/attention.h"
#include "model/encoder/cpu/attention_regions.h"
#include "model/encoder/cpu/simd_math.h"

namespace longembed::cpu {
namespace {

// Number of queries of a tile. Their sums for kPanel keys or components fit into registers.
constexpr int kTileQueries = kRegisters * 3 / 8;
constexpr int kPanel = 2 * kLanes;
constexpr int kPanelStep = kPanel * kStepBytes;  // Bytes of one step of a panel.
// Number of keys of a block. Their scores for a tile of queries take 12 KiB and stay in the first-level cache; the
// packed keys and values of a head stay in the second-level cache.
constexpr int kKeyBlock = 256;
// Ensures that every query of a call sees a key in the call's first block, in which each softmax begins, even with a
// short reach.
static_assert(kMaxQueries <= kKeyBlock);

// Buffers for the scores of a tile, and for the scores of one region before they are merged into the tile's.
enum ScoreBuffer { kTile, kOneRegion };
constexpr int kScoreBuffers = 2;

// The two contexts of a calibrated row: kPlainContext is that of the plain softmax, with baskets multiplied by 1 -
// strength, and kEqualShareContext is the sum of the contexts of the baskets' own softmaxes.
enum Mixed { kPlainContext, kEqualShareContext };
// Totals of a calibrated row: its largest score; relative to that score, the sum of all weights and the sum of the
// weights in baskets; and the number of baskets that the row sees.
enum Total { kLargest, kSum, kBasketSum, kBaskets };
constexpr int kTotals = 4;
constexpr float kBelowAllScores = -1e30f;

// A run of keys of one block that share a softmax. Indexes count from the block's first key.
struct Piece {
  Span keys;
  bool first = false;  // Whether a softmax begins with this piece.
};

template <typename T>
struct Products;
template <>
struct Products<float> {
  using Dot = Float32Dot;
  static constexpr int kStepInputs = 1;
  static LONGEMBED_INLINE Floats Exp2(Floats x) { return cpu::Exp2(x); }
};
template <>
struct Products<Bfloat16> {
  using Dot = Bfloat16Dot;
  static constexpr int kStepInputs = 2;
  static LONGEMBED_INLINE Floats Exp2(Floats x) { return RoughExp2(x); }
};

LONGEMBED_INLINE constexpr size_t Padded(size_t bytes) { return (bytes + 63) / 64 * 64; }

// The layout of the scratch memory, as byte offsets. Sizes are for float32, the widest element.
struct Layout {
  explicit constexpr Layout(int head_dim)
      : row_bytes(static_cast<ptrdiff_t>(Padded(static_cast<size_t>(head_dim) * sizeof(float)))),
        value_columns(RoundUp(head_dim, kPanel)) {
    const auto take = [this](size_t bytes) {
      const size_t at = size;
      size += Padded(bytes);
      return at;
    };
    for (size_t& version : queries) version = take(static_cast<size_t>(kMaxQueries) * row_bytes);
    for (size_t& version : keys) version = take(static_cast<size_t>(kKeyBlock) * row_bytes);
    values = take(static_cast<size_t>(kKeyBlock) * value_columns * sizeof(float));
    context = take(static_cast<size_t>(kMaxQueries) * value_columns * sizeof(float));
    largest = take(kMaxQueries * sizeof(float));
    sums = take(kMaxQueries * sizeof(float));
    for (size_t& kept : mixed) kept = take(static_cast<size_t>(kMaxQueries) * value_columns * sizeof(float));
    for (size_t& kept : totals) kept = take(kMaxQueries * sizeof(float));
    for (size_t& buffer : scores) buffer = take(static_cast<size_t>(kTileQueries) * kKeyBlock * sizeof(float));
    weights = take(static_cast<size_t>(kTileQueries) * kKeyBlock * sizeof(float));
    staging = take(static_cast<size_t>(kLanes) * row_bytes);
    bias = take((2 * kMaxBiasDistance + 1 + 2 * kLanes) * sizeof(float));
  }

  ptrdiff_t row_bytes;
  int value_columns;
  size_t queries[kVersions]{}, keys[kVersions]{}, values = 0, context = 0, largest = 0, sums = 0, mixed[2]{},
                                                  totals[kTotals]{}, scores[kScoreBuffers]{}, weights = 0, staging = 0,
                                                  bias = 0, size = 0;
};

// Calls body(column, first, last) for every vector that overlaps [columns.start, columns.end). `column` is a multiple
// of kLanes, and lanes [first, last) of the vector are within the range. If all lanes are, they are passed as [0,
// Constant<kLanes>).
template <typename Body>
LONGEMBED_INLINE void ForColumns(Span columns, const Body& body) {
  int j = columns.start / kLanes * kLanes;
  if (j < columns.start) {
    body(j, columns.start - j, columns.end - j);
    j += kLanes;
  }
  for (; j + kLanes <= columns.end; j += kLanes) body(j, Constant<0>(), Constant<kLanes>());
  if (j < columns.end) body(j, Constant<0>(), columns.end - j);
}

// Returns `values` in lanes [first, last) and `others` in the other lanes.
template <typename First, typename Last>
LONGEMBED_INLINE Floats InLanes(First first, Last last, Floats values, Floats others) {
  if constexpr (std::is_same_v<Last, Constant<kLanes>>) return values;
  return Select(LanesBetween(first, last), values, others);
}

// Computes one head of one call. If `Tiles` is not void, it computes the products (attention_amx.h).
template <typename T, typename Tiles>
class HeadAttention {
  using Dot = typename Products<T>::Dot;
  static constexpr int kStepInputs = Products<T>::kStepInputs;
  static constexpr bool kTiled = !std::is_void_v<Tiles>;
  // Alignment of the columns of a tile's weights: the first column is a multiple of it, and with AMX tiles the end is,
  // too.
  static constexpr int kKeyGroup = kTiled ? kPanel : kLanes;

 public:
  HeadAttention(const AttentionShape& shape, const AttentionInput& input, int head, Span queries, const Layout& layout,
                std::byte* scratch)
      : input_(input),
        dim_(shape.head_dim),
        steps_((shape.head_dim + kStepInputs - 1) / kStepInputs),
        regions_{input.tokens, shape.reach, input.window, input.chunk, shape.causal},
        queries_(queries),
        layout_(layout),
        scratch_(scratch) {
    const int group = shape.heads / shape.key_value_heads;
    query_column_ = head * dim_;
    key_column_ = (shape.heads + head / group) * dim_;
    value_column_ = (shape.heads + shape.key_value_heads + head / group) * dim_;
    logit_scale_ = input.scale * 1.44269504088896f;  // The softmax uses powers of two.
    if (shape.relative_bias != nullptr) LoadBias(shape, head);
  }

  void Run() {
    LoadQueries();
    if (calibrated()) ClearTotals();
    const Span visible = regions_.Visible(queries_);
    for (int first = visible.start; first < visible.end; first += kKeyBlock) {
      const Span keys{first, Min(first + kKeyBlock, visible.end)};
      PackBlock(keys);
      for (int row = queries_.start; row < queries_.end;) {
        const int tile = NextTile(queries_.end - row, kTileQueries);
        // Prefetches keys of the next block during this one. Rows of tokens are kilobytes apart, which the hardware
        // prefetcher does not follow.
        const int ahead = keys.end + (row - queries_.start);
        if constexpr (kTiled) Configure(tile);
        PrefetchKeys({ahead, Min(ahead + tile, visible.end)});
        if (calibrated()) {
          AttendBaskets({row, row + tile}, keys);
        } else {
          AttendTile({row, row + tile}, keys);
        }
        row += tile;
      }
    }
    if constexpr (kTiled) Tiles::Release();
    if (calibrated()) MixContexts();
    StoreContext();
  }

 private:
  void Configure(int queries) {
    if (queries != configured_) Tiles::Configure(configured_ = queries);
  }

  LONGEMBED_INLINE bool calibrated() const { return input_.baskets.size > 0; }
  template <typename U>
  LONGEMBED_INLINE U* At(size_t offset) const {
    return reinterpret_cast<U*>(scratch_ + offset);
  }
  LONGEMBED_INLINE const T* TokenRow(int token, int column) const { return RowOf<T>(input_.qkv, token) + column; }
  LONGEMBED_INLINE const Rotation& RotationOf(int version) const {
    return version == kPlain ? input_.plain : version == kGrouped ? input_.grouped : input_.shifted;
  }
  // Returns the columns of a tile's weights for a piece. They begin at a key group's first key and, with AMX tiles, end
  // at a group's last key.
  LONGEMBED_INLINE Span Columns(Span rows, Span keys, Piece piece) const {
    const Span seen = regions_.Seen(rows, keys);
    const int end = Min(seen.end, piece.keys.end);
    return {Max(seen.start, piece.keys.start) / kKeyGroup * kKeyGroup, kTiled ? RoundUp(end, kKeyGroup) : end};
  }
  LONGEMBED_INLINE bool IsFirst(Span keys) const { return keys.start == regions_.Visible(queries_).start; }

  // Loads a head's biases in the unit of the unscaled scores, with kLanes copies of the outermost bias on each side.
  void LoadBias(const AttentionShape& shape, int head) {
    max_distance_ = shape.max_distance;
    float* const to = At<float>(layout_.bias);
    const float* const from = shape.relative_bias + static_cast<ptrdiff_t>(head) * (2 * max_distance_ + 1);
    for (int i = 0; i < 2 * max_distance_ + 1 + 2 * kLanes; ++i) {
      to[i] = from[Min(Max(i - kLanes, 0), 2 * max_distance_)] / input_.scale;
    }
    bias_ = to + kLanes + max_distance_;
  }

  // Writes one head of a token as a rotated row of an operand, padded with zeros to whole vectors.
  void LoadRow(const T* from, int token, int version, std::byte* to) const {
    T* const out = reinterpret_cast<T*>(to);
    const int columns = static_cast<int>(layout_.row_bytes / static_cast<ptrdiff_t>(sizeof(float)));
    for (int j = 0; j < columns; j += kLanes) Store(out + j, LoadFirst(from + j, dim_ - j));
    const int width = input_.rotary_width;
    const float* const cos = RotationOf(version).cos + static_cast<ptrdiff_t>(token) * width;
    const float* const sin = RotationOf(version).sin + static_cast<ptrdiff_t>(token) * width;
    ForVectors(width, [&](int j, auto lanes) {
      const Floats c = LoadFirst(cos + j, lanes), s = LoadFirst(sin + j, lanes);
      const Floats x = LoadFirst(from + j, lanes), y = LoadFirst(from + width + j, lanes);
      StoreFirst(out + j, lanes, Fma(x, c, -(y * s)));
      StoreFirst(out + width + j, lanes, Fma(y, c, x * s));
    });
  }

  void LoadQueries() {
    for (int version = 0; version < regions_.versions(); ++version) {
      for (int i = queries_.start; i < queries_.end; ++i) {
        LoadRow(TokenRow(i, query_column_), i, version, QueryRow(version, i));
      }
    }
  }
  LONGEMBED_INLINE std::byte* QueryRow(int version, int token) const {
    return scratch_ + layout_.queries[version] + (token - queries_.start) * layout_.row_bytes;
  }

  LONGEMBED_INLINE void PrefetchKeys(Span keys) const {
    for (int i = keys.start; i < keys.end; ++i) {
      for (const int column : {key_column_, value_column_}) {
        const auto* const row = reinterpret_cast<const char*>(TokenRow(i, column));
        for (int byte = 0; byte < dim_ * static_cast<int>(sizeof(T)); byte += 64)
          __builtin_prefetch(row + byte, /*rw=*/0, /*locality=*/2);
      }
    }
  }

  void PackBlock(Span keys) {
    bool packed[kVersions]{};
    for (const Region region : kRegions) {
      const Version version = regions_.VersionsOf(region).key;
      if (packed[version] || regions_.Seen(region, queries_, keys).empty()) continue;
      PackKeys(version, keys);
      packed[version] = true;
    }
    PackValues(keys);
  }

  // Packs keys into panels of kPanel keys. A panel holds, for each step of components, four bytes of each key.
  void PackKeys(int version, Span keys) {
    for (int first = keys.start; first < keys.end; first += kLanes) {
      const int count = Min(kLanes, keys.end - first);
      const int place = first - keys.start;
      std::byte* const panel = KeyPanel(version, place / kPanel) + (place % kPanel) * kStepBytes;
      // Unrotated heads that consist of whole vectors are read in place.
      if (input_.rotary_width == 0 && steps_ % kLanes == 0) {
        const auto* const rows = reinterpret_cast<const std::byte*>(TokenRow(first, key_column_));
        TransposeInto(rows, input_.qkv.stride, count, panel);
      } else {
        std::byte* const rows = scratch_ + layout_.staging;
        for (int i = 0; i < count; ++i) {
          LoadRow(TokenRow(first + i, key_column_), first + i, version, rows + i * layout_.row_bytes);
        }
        TransposeInto(rows, layout_.row_bytes, count, panel);
      }
    }
  }

  void TransposeInto(const std::byte* from, ptrdiff_t stride, int count, std::byte* panel) const {
    for (int step = 0; step < steps_; step += kLanes) {
      Words rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        rows[i] = i < count ? LoadWords(from + i * stride + step * kStepBytes) : RepeatWord(0);
      }
      Transpose(rows);
      for (int i = 0; i < Min(kLanes, steps_ - step); ++i) StoreWords(panel + (step + i) * kPanelStep, rows[i]);
    }
  }

  LONGEMBED_INLINE std::byte* KeyPanel(int version, int panel) const {
    return scratch_ + layout_.keys[version] + static_cast<ptrdiff_t>(panel) * steps_ * kPanelStep;
  }

  // Packs values into panels of kPanel components. A panel holds, for each step of keys, four bytes of each component.
  // Keys beyond the last one, up to a whole step or with tiles a whole group, and components beyond the last one are
  // zeros.
  void PackValues(Span keys) {
    const int steps = ValueSteps(keys);
    for (int column = 0; column < dim_; column += kPanel) {
      std::byte* to = ValuePanel(column / kPanel, steps);
      for (int step = 0; step < steps; ++step, to += kPanelStep) PackValueStep(keys, step, column, to);
    }
  }
  LONGEMBED_INLINE int ValueSteps(Span keys) const {
    const int count = keys.end - keys.start;
    return ((kTiled ? RoundUp(count, kKeyGroup) : count) + kStepInputs - 1) / kStepInputs;
  }
  LONGEMBED_INLINE std::byte* ValuePanel(int panel, int steps) const {
    return scratch_ + layout_.values + static_cast<ptrdiff_t>(panel) * steps * kPanelStep;
  }

  LONGEMBED_INLINE void PackValueStep(Span keys, int step, int column, std::byte* to) const {
    const int token = keys.start + step * kStepInputs;
    if (kTiled && token >= keys.end) {
      StoreWords(to, RepeatWord(0));
      StoreWords(to + sizeof(Words), RepeatWord(0));
      return;
    }
    const T* const row = TokenRow(token, value_column_ + column);
    if constexpr (kStepInputs == 1) {
      auto* const values = reinterpret_cast<float*>(to);
      Store(values, LoadFirst(row, dim_ - column));
      Store(values + kLanes, LoadFirst(row + kLanes, dim_ - column - kLanes));
    } else {
      const T* const odd = token + 1 < keys.end ? TokenRow(token + 1, value_column_ + column) : nullptr;
      InterleaveHalfWords(row, odd, dim_ - column, to);
    }
  }

  void AttendTile(Span rows, Span keys) {
    if (regions_.Seen(rows, keys).empty()) return;
    ScoreTile(rows, keys);
    AttendPiece(rows, keys, {.keys = {0, keys.end - keys.start}, .first = IsFirst(keys)});
  }

  void AttendPiece(Span rows, Span keys, Piece piece) {
    SoftmaxTile(rows, keys, piece);
    AccumulateTile(rows, keys, piece);
  }

  // Computes attention with baskets. Every basket has its own softmax, which is merged into the rows' mixed contexts at
  // the end of the basket.
  void AttendBaskets(Span rows, Span keys) {
    const Span seen = regions_.Seen(rows, keys);
    if (seen.empty()) return;
    ScoreTile(rows, keys);
    const int last = regions_.Visible(rows).end;
    for (int key = keys.start + seen.start; key < keys.start + seen.end;) {
      const Span basket = BasketOf(key);
      const int end = Min(basket.end, keys.start + seen.end);
      AttendPiece(rows, keys, {.keys = {key - keys.start, end - keys.start}, .first = key == basket.start});
      if (end == Min(basket.end, last)) MergeBasket(rows, basket.start == input_.baskets.apart);
      key = end;
    }
  }

  // Returns the keys of the basket that contains `key`, or only `key` if it is the token apart.
  LONGEMBED_INLINE Span BasketOf(int key) const {
    const KeyBaskets& baskets = input_.baskets;
    if (key == baskets.apart) return {key, key + 1};
    Span basket{key / baskets.size * baskets.size, 0};
    basket.end = Min(basket.start + baskets.size, input_.tokens);
    if (baskets.apart >= basket.start && baskets.apart < key) basket.start = baskets.apart + 1;
    if (baskets.apart > key && baskets.apart < basket.end) basket.end = baskets.apart;
    return basket;
  }

  LONGEMBED_INLINE float* Totals(Total total, int row) const {
    return At<float>(layout_.totals[total]) + (row - queries_.start);
  }
  LONGEMBED_INLINE float* MixedRow(Mixed mixed, int row) const {
    return At<float>(layout_.mixed[mixed]) + static_cast<ptrdiff_t>(row - queries_.start) * layout_.value_columns;
  }

  void ClearTotals() const {
    for (int i = queries_.start; i < queries_.end; ++i) {
      for (const Total total : {kSum, kBasketSum, kBaskets}) *Totals(total, i) = 0.0f;
      *Totals(kLargest, i) = kBelowAllScores;
      for (const Mixed mixed : {kPlainContext, kEqualShareContext}) {
        for (int j = 0; j < layout_.value_columns; j += kLanes) {
          Store(MixedRow(mixed, i) + j, Repeat(0));
        }
      }
    }
  }

  // Merges the finished softmax of a basket, or of the token apart, into the rows that see any of its keys.
  void MergeBasket(Span rows, bool apart) const {
    const int tile = rows.end - rows.start, first = rows.start - queries_.start;
    const Floats none = Repeat(0), one = Repeat(1), scale = Repeat(logit_scale_);
    const Floats plain = Repeat(apart ? 1.0f : 1.0f - input_.baskets.strength);
    constexpr int kPadded = RoundUp(kTileQueries, kLanes);
    float old_share[kPadded], whole_share[kPadded], even_share[kPadded];
    for (int row = 0; row < tile; row += kLanes) {
      const int lanes = tile - row;
      const Floats sums = LoadFirst(At<float>(layout_.sums) + first + row, lanes);
      const Mask seen = Less(none, sums);
      const Floats before = LoadFirst(Totals(kLargest, rows.start + row), lanes);
      const Floats own = Select(seen, LoadFirst(At<float>(layout_.largest) + first + row, lanes), before);
      const Floats largest = Max(before, own);
      const Floats kept = cpu::Exp2((before - largest) * scale);
      const Floats share = Select(seen, cpu::Exp2((own - largest) * scale), none);
      const auto add = [&](Total total, Floats share_of_old, Floats more) {
        float* const to = Totals(total, rows.start + row);
        StoreFirst(to, lanes, Fma(LoadFirst(to, lanes), share_of_old, more));
      };
      const Floats sum = sums * share;
      add(kSum, kept, sum);
      add(kBasketSum, kept, apart ? none : sum);
      add(kBaskets, one, apart ? none : Select(seen, one, none));
      StoreFirst(Totals(kLargest, rows.start + row), lanes, largest);
      StoreFirst(old_share + row, lanes, kept);
      StoreFirst(whole_share + row, lanes, share * plain);
      StoreFirst(even_share + row, lanes, apart ? none : Select(seen, one / sums, none));
    }
    for (int i = rows.start; i < rows.end; ++i) {
      const int lane = i - rows.start;
      MergeRow(i, old_share[lane], whole_share[lane], even_share[lane]);
    }
  }

  LONGEMBED_INLINE void MergeRow(int i, float old_share, float whole_share, float even_share) const {
    const Floats old = Repeat(old_share), whole = Repeat(whole_share);
    const Floats even = Repeat(even_share);
    const float* const own = ContextRow(i);
    float *const whole_row = MixedRow(kPlainContext, i), *const even_row = MixedRow(kEqualShareContext, i);
    for (int j = 0; j < layout_.value_columns; j += kLanes) {
      const Floats values = Load(own + j);
      Store(whole_row + j, Fma(values, whole, Load(whole_row + j) * old));
      Store(even_row + j, Fma(values, even, Load(even_row + j)));
    }
  }

  // Computes contexts and sums of calibrated rows, in the same form as for plain attention.
  void MixContexts() const {
    for (int i = queries_.start; i < queries_.end; ++i) {
      // A row without a basket sees only the token apart.
      const float baskets = __builtin_fmaxf(*Totals(kBaskets, i), 1.0f);
      const Floats share = Repeat(input_.baskets.strength * *Totals(kBasketSum, i) / baskets);
      for (int j = 0; j < layout_.value_columns; j += kLanes) {
        const Floats whole = Load(MixedRow(kPlainContext, i) + j), even = Load(MixedRow(kEqualShareContext, i) + j);
        Store(ContextRow(i) + j, Fma(even, share, whole));
      }
      At<float>(layout_.sums)[i - queries_.start] = *Totals(kSum, i);
    }
  }

  LONGEMBED_INLINE float* Scores(ScoreBuffer buffer) const { return At<float>(layout_.scores[buffer]); }

  // Computes the unscaled scores of a tile, float32 [rows, kKeyBlock].
  void ScoreTile(Span rows, Span keys) {
    bool first = true;
    for (const Region region : kRegions) {
      const Span seen = regions_.Seen(region, rows, keys);
      if (seen.empty()) continue;
      float* const to = Scores(first ? kTile : kOneRegion);
      WithConstant<kTileQueries>(rows.end - rows.start,
                                 [&](auto tile) { ScoreRegion<decltype(tile)::value>(region, rows.start, seen, to); });
      if (!first) Merge(region, rows, keys);
      first = false;
    }
    if (bias_ == nullptr) return;
    for (int i = rows.start; i < rows.end; ++i) AddBias(i, rows, keys);
  }

  template <int kRows>
  void ScoreRegion(Region region, int first_row, Span seen, float* to) const {
    const std::byte* const query = QueryRow(regions_.VersionsOf(region).query, first_row);
    if constexpr (kTiled) {
      if (steps_ % Tiles::kSteps == 0) return ScoreByTiles(regions_.VersionsOf(region).key, query, seen, to);
    }
    for (int key = seen.start / kPanel * kPanel; key < seen.end; key += kPanel) {
      const auto zero = [](int, int) { return typename Dot::Sum{}; };
      const auto finish = [&](int r, int v, Floats sum) { Store(to + r * kKeyBlock + key + v * kLanes, sum); };
      const std::byte* const panel = KeyPanel(regions_.VersionsOf(region).key, key / kPanel);
      if (seen.end - key > kLanes) {
        MultiplyTile<Dot, kRows, 2, 2>(steps_, query, layout_.row_bytes, panel, zero, finish);
      } else {
        MultiplyTile<Dot, kRows, 1, 2>(steps_, query, layout_.row_bytes, panel, zero, finish);
      }
    }
  }

  LONGEMBED_INLINE void ScoreByTiles(Version key_version, const std::byte* query, Span seen, float* to) const {
    for (int key = seen.start / kPanel * kPanel; key < seen.end; key += kPanel) {
      Tiles::Score(steps_, query, layout_.row_bytes, KeyPanel(key_version, key / kPanel), seen.end - key > kLanes,
                   to + key, kKeyBlock * static_cast<ptrdiff_t>(sizeof(float)));
    }
  }

  // Copies the scores of a region into the tile's scores, which the first region has initialized.
  void Merge(Region region, Span rows, Span keys) const {
    for (int i = rows.start; i < rows.end; ++i) {
      const Span own = regions_.Seen(region, {i, i + 1}, keys);
      if (own.empty()) continue;
      const ptrdiff_t row = static_cast<ptrdiff_t>(i - rows.start) * kKeyBlock + own.start;
      __builtin_memcpy(Scores(kTile) + row, Scores(kOneRegion) + row,
                       static_cast<size_t>(own.end - own.start) * sizeof(float));
    }
  }

  // Converts a tile's scores to weights relative to each row's largest score so far, and rescales earlier sums to that
  // score. Computes all maxima before all weights, because the reduction at the end of each row would otherwise stall
  // the computation that follows.
  void SoftmaxTile(Span rows, Span keys, Piece piece) {
    float now[kTileQueries];
    for (int i = rows.start; i < rows.end; ++i) now[i - rows.start] = LargestScore(i, rows, keys, piece);
    for (int i = rows.start; i < rows.end; ++i) {
      float& largest = At<float>(layout_.largest)[i - queries_.start];
      float& sum = At<float>(layout_.sums)[i - queries_.start];
      if (piece.first) {
        largest = now[i - rows.start];
        sum = WeighRow(i, rows, keys, piece, largest);
      } else {
        const float before = largest;
        largest = __builtin_fmaxf(before, now[i - rows.start]);
        const float share = Rescale(i, before, largest);
        sum = sum * share + WeighRow(i, rows, keys, piece, largest);
      }
    }
  }

  // Returns the columns of a piece that row i sees. Empty if other rows of the tile see the piece but this one does
  // not.
  LONGEMBED_INLINE Span Own(int i, Span rows, Span keys, Piece piece) const {
    const Span visible = regions_.Visible({i, i + 1});
    const Span own{Max(Max(visible.start, keys.start) - keys.start, piece.keys.start),
                   Min(Min(visible.end, keys.end) - keys.start, piece.keys.end)};
    const int first = Columns(rows, keys, piece).start;
    return own.empty() ? Span{first, first} : own;
  }
  LONGEMBED_INLINE float* ScoreRow(int i, Span rows) const {
    return Scores(kTile) + static_cast<ptrdiff_t>(i - rows.start) * kKeyBlock;
  }

  LONGEMBED_INLINE void AddBias(int i, Span rows, Span keys) const {
    float* const scores = ScoreRow(i, rows);
    ForColumns(regions_.Seen({i, i + 1}, keys), [&](int j, int, int) {
      const int distance = Min(Max(keys.start + j - i, -max_distance_ - kLanes), max_distance_ + 1);
      Store(scores + j, Load(scores + j) + Load(bias_ + distance));
    });
  }

  LONGEMBED_INLINE float LargestScore(int i, Span rows, Span keys, Piece piece) const {
    const float* const scores = ScoreRow(i, rows);
    Floats max = Repeat(-__builtin_inff());
    ForColumns(Own(i, rows, keys, piece),
               [&](int j, auto first, auto last) { max = InLanes(first, last, Max(max, Load(scores + j)), max); });
    return LargestOf(max);
  }

  // Writes the weights of row i, with zeros for keys that only other rows of the tile see. Returns their sum.
  LONGEMBED_INLINE float WeighRow(int i, Span rows, Span keys, Piece piece, float largest) const {
    const float* const scores = ScoreRow(i, rows);
    T* const weights = At<T>(layout_.weights) + static_cast<ptrdiff_t>(i - rows.start) * kKeyBlock;
    const Span tile = Columns(rows, keys, piece), own = Own(i, rows, keys, piece);
    const Floats scale = Repeat(logit_scale_), max = Repeat(largest);
    Floats total = Repeat(0);
    for (int j = tile.start; j + kLanes <= own.start; j += kLanes) Store(weights + j, Repeat(0));
    ForColumns(own, [&](int j, auto first, auto last) {
      // Subtracts before scaling: if large scores and `max` were scaled and rounded separately, their difference would
      // be inexact.
      const Floats logit = (Load(scores + j) - max) * scale;
      const Floats weight = InLanes(first, last, Products<T>::Exp2(logit), Repeat(0));
      total = total + weight;
      Store(weights + j, weight);
    });
    for (int j = RoundUp(own.end, kLanes); j < tile.end; j += kLanes) Store(weights + j, Repeat(0));
    return SumOf(total);
  }

  float Rescale(int i, float before, float now) const {
    if (before == now) return 1.0f;
    const Floats share = cpu::Exp2(Repeat((before - now) * logit_scale_));
    float* const row = ContextRow(i);
    for (int j = 0; j < layout_.value_columns; j += kLanes) {
      Store(row + j, Load(row + j) * share);
    }
    return share[0];
  }

  LONGEMBED_INLINE float* ContextRow(int token) const {
    return At<float>(layout_.context) + static_cast<ptrdiff_t>(token - queries_.start) * layout_.value_columns;
  }

  void AccumulateTile(Span rows, Span keys, Piece piece) const {
    const Span columns = Columns(rows, keys, piece);
    if constexpr (kTiled) return AccumulateByTiles(rows.start, columns, ValueSteps(keys), piece.first);
    WithConstant<kTileQueries>(rows.end - rows.start, [&](auto tile) {
      if (piece.first) {
        AccumulateRows<decltype(tile)::value, true>(rows.start, columns, ValueSteps(keys));
      } else {
        AccumulateRows<decltype(tile)::value, false>(rows.start, columns, ValueSteps(keys));
      }
    });
  }

  LONGEMBED_INLINE void AccumulateByTiles(int first_row, Span columns, int steps, bool first) const {
    const std::byte* const weights = scratch_ + layout_.weights + columns.start * static_cast<int>(sizeof(T));
    for (int column = 0; column < dim_; column += kPanel) {
      const std::byte* const panel = ValuePanel(column / kPanel, steps) + columns.start / kStepInputs * kPanelStep;
      Tiles::Accumulate((columns.end - columns.start) / kKeyGroup, weights,
                        kKeyBlock * static_cast<ptrdiff_t>(sizeof(T)), panel, first, ContextRow(first_row) + column,
                        layout_.value_columns * static_cast<ptrdiff_t>(sizeof(float)));
    }
  }

  // Adds the products of a piece to the contexts, or sets them if a softmax begins with it. Each piece has a sum of its
  // own: one running sum over all keys of a long sequence would lose precision. `steps` is the number of steps in the
  // block's panels.
  template <int kRows, bool kFirst>
  void AccumulateRows(int first_row, Span seen, int steps) const {
    constexpr ptrdiff_t kWeightStride = kKeyBlock * static_cast<ptrdiff_t>(sizeof(T));
    const int first_step = seen.start / kStepInputs, columns = layout_.value_columns;
    const int count = (seen.end - seen.start + kStepInputs - 1) / kStepInputs;
    for (int column = 0; column < dim_; column += kPanel) {
      float* const to = ContextRow(first_row) + column;
      const auto zero = [](int, int) { return Repeat(0); };
      const auto finish = [&](int r, int v, Floats sum) {
        float* const own = to + r * columns + v * kLanes;
        Store(own, kFirst ? sum : Load(own) + sum);
      };
      MultiplyTile<Dot, kRows, 2, 2>(count, scratch_ + layout_.weights + first_step * kStepBytes, kWeightStride,
                                     ValuePanel(column / kPanel, steps) + first_step * kPanelStep, zero, finish);
    }
  }

  void StoreContext() const {
    for (int i = queries_.start; i < queries_.end; ++i) {
      const Floats share = Repeat(1.0f / At<float>(layout_.sums)[i - queries_.start]);
      T* const to = RowOf<T>(input_.qkv, i) + query_column_;
      for (int j = 0; j < dim_; j += kLanes) {
        StoreFirst(to + j, dim_ - j, Load(ContextRow(i) + j) * share);
      }
    }
  }

  const AttentionInput& input_;
  const int dim_;
  const int steps_;  // Steps of a dot product over components.
  const Regions regions_;
  const Span queries_;
  const Layout& layout_;
  std::byte* const scratch_;
  int query_column_ = 0, key_column_ = 0, value_column_ = 0;
  float logit_scale_ = 1.0f;
  const float* bias_ = nullptr;  // Points to the bias at distance 0.
  int max_distance_ = 0;
  int configured_ = 0;  // Number of queries that the AMX tiles are configured for.
};

size_t AttentionScratch(int head_dim) { return Layout(head_dim).size; }

// Implements Kernels::attend. `Tiles` is used if the rows are bfloat16.
template <typename Tiles>
void Attend(const AttentionShape& shape, const AttentionInput& input, int first_head, int last_head, int first_query,
            int last_query, std::byte* scratch) {
  const Layout layout(shape.head_dim);
  const Span queries{first_query, last_query};
  WithElement(input.qkv.element, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    using Used = std::conditional_t<std::is_same_v<T, Bfloat16>, Tiles, void>;
    for (int head = first_head; head < last_head; ++head) {
      HeadAttention<T, Used>(shape, input, head, queries, layout, scratch).Run();
    }
  });
}

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ATTENTION_BODY_H_
