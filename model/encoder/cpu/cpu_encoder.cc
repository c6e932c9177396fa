#include "model/encoder/cpu/cpu_encoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "model/encoder/cpu/aligned_buffer.h"
#include "model/encoder/cpu/attention.h"
#include "model/encoder/cpu/cpu_features.h"
#include "model/encoder/cpu/matmul.h"
#include "model/encoder/cpu/rowwise.h"
#include "model/encoder/cpu/schedule.h"
#include "model/errors/errors.h"
#include "model/plan/rotary.h"

namespace longembed {
namespace {

using namespace cpu;

// Rows that go through a segment together. More reuse each weight that was fetched more often; fewer keep all their
// intermediate values in a core's second-level cache.
constexpr int kChunkRows = 96;

// Fewer rows than this for each core, and they share the columns of each step instead.
constexpr int kFewRows = 32;

// Beyond the last row, for vectors that begin within it.
constexpr size_t kSlack = 64;

// A thread's memory for one chunk of rows or one tile of attention.
struct Workspace {
  std::vector<AlignedBuffer> slots;
  AlignedBuffer operand;
  std::vector<float> scales;     // Of the operand's rows.
  std::vector<float> positions;  // Rows of the position table.
  AlignedBuffer attention;
};

// Memory of one batch.
struct BatchMemory {
  std::vector<AlignedBuffer> slots;
};

// Objects that are costly to make, for one user at a time. Multiple threads can use one Pool.
template <typename T>
class Pool {
 public:
  class Lease {
   public:
    Lease(Pool& pool, std::unique_ptr<T> object) : pool_(pool), object_(std::move(object)) {}
    ~Lease() { pool_.Return(std::move(object_)); }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    T& operator*() const { return *object_; }
    T* operator->() const { return object_.get(); }

   private:
    Pool& pool_;
    std::unique_ptr<T> object_;
  };

  template <typename Make>
  Lease Take(const Make& make) {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<T> object = std::move(free_.back());
        free_.pop_back();
        return Lease(*this, std::move(object));
      }
      free_.reserve(++made_);  // Giving back never allocates: it happens while memory has run out, too.
    }
    return Lease(*this, make());
  }

 private:
  void Return(std::unique_ptr<T> object) {
    const std::lock_guard lock(mutex_);
    free_.push_back(std::move(object));
  }

  std::mutex mutex_;
  std::vector<std::unique_ptr<T>> free_ ABSL_GUARDED_BY(mutex_);
  size_t made_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Some heads of some queries of one sequence.
struct AttentionTile {
  int sequence = 0;
  Range heads;
  Range queries;  // In tokens of the sequence.
};

// Ranges of rows of the batch, merged and in order.
std::vector<Range> Union(std::vector<Range> ranges) {
  std::ranges::sort(ranges, {}, &Range::start);
  std::vector<Range> merged;
  for (const Range range : ranges) {
    if (!merged.empty() && range.start <= merged.back().end) {
      merged.back().end = std::max(merged.back().end, range.end);
    } else {
      merged.push_back(range);
    }
  }
  return merged;
}

// Cuts a range into pieces of at most `most`, as equal as they can be.
std::vector<Range> Chunks(Range range, int most) {
  std::vector<Range> chunks;
  const int pieces = (range.size() + most - 1) / most;
  for (int i = 0; i < pieces; ++i) {
    const auto bound = [&](int piece) {
      return range.start + static_cast<int32_t>(static_cast<int64_t>(range.size()) * piece / pieces);
    };
    chunks.push_back({bound(i), bound(i + 1)});
  }
  return chunks;
}

class CpuEncoder final : public Encoder {
 public:
  CpuEncoder(Program program, Precision precision, Element attention_element)
      : precision_(precision),
        width_(static_cast<int>(program.word.columns)),
        local_frequencies_(LocalFrequencies(program)) {
    for (const DenseLayer& layer : program.dense) dense_.push_back(ToStep(layer));
    program.dense.clear();
    schedule_ = MakeSchedule(std::move(program.layers), program.widths, program.input, program.output, precision,
                             attention_element);
    program_ = std::move(program);
    for (const Segment& segment : schedule_.segments) {
      if (segment.has_attention) smallest_head_ = std::min(smallest_head_, segment.attention.head_dim);
    }
  }

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                     absl::FunctionRef<bool()> nobody_waits) override {
    try {
      return Run(batch, leader, nobody_waits);
    } catch (const std::bad_alloc&) {
      return EncoderOutOfMemory("the activations of this batch do not fit");
    }
  }

  int hidden_size() const override { return dense_.empty() ? width_ : dense_.back().weights.outputs; }
  std::string device() const override { return "cpu"; }
  std::string engine() const override { return "native"; }
  bool uses_helpers() const override { return true; }
  Precision precision() const override { return precision_; }

 private:
  // What the steps of one Encode call share.
  struct Call {
    const PackedBatch& batch;
    Team::Leader& leader;
    BatchMemory& memory;
    const RotaryTable* local_rotations;  // Of plain positions, for the longest sequence; null without local attention.
  };

  // A layer over pooled vectors, in float32 whatever the precision.
  struct DenseStep {
    PackedWeights weights;
    Activation activation;
  };

  absl::StatusOr<VectorBlock> Run(const PackedBatch& batch, Team::Leader& leader,
                                  absl::FunctionRef<bool()> nobody_waits) {
    const auto tokens = static_cast<int32_t>(batch.tokens.size());
    if (batch.spans.empty()) return VectorBlock{.rows = 0, .width = hidden_size()};
    if (2 * batch.rotary_width > smallest_head_) {
      return EncoderFailed(absl::StrCat(2 * batch.rotary_width, " rotated components of heads of ", smallest_head_));
    }
    for (const int32_t id : batch.tokens) {
      if (id < 0 || id >= program_.word.rows) {
        return EncoderFailed(absl::StrCat("token ", id, " is beyond the word table's ", program_.word.rows, " rows"));
      }
    }
    auto memory = memories_.Take([] { return std::make_unique<BatchMemory>(); });
    // A giant's memory goes back to the system at once, however the call ends; what common batches take stays.
    const absl::Cleanup trim = [&memory] { Trim(*memory); };
    memory->slots.resize(schedule_.batch_slots.size());
    for (size_t i = 0; i < memory->slots.size(); ++i) {
      memory->slots[i].Reserve(static_cast<size_t>(schedule_.batch_slots[i]) * tokens + kSlack);
    }
    const std::shared_ptr<const RotaryTable> local_rotations = LocalRotations(batch);
    const Call call{batch, leader, *memory, local_rotations.get()};
    const std::vector<Range> pooled = Union(batch.spans);
    int32_t pooled_rows = 0;
    for (const Range rows : pooled) pooled_rows += rows.size();

    EmbedTokens(call, tokens);
    for (size_t i = 0; i < schedule_.segments.size(); ++i) {
      if (nobody_waits()) return EncoderCancelled();
      const Segment& segment = schedule_.segments[i];
      const bool last = i + 1 == schedule_.segments.size();
      RunSteps(call, segment, last ? pooled_rows : tokens);
      if (!segment.has_attention) continue;
      // What comes after the last layer's keys and values matters only in the rows that are pooled.
      const bool last_attention = i + 2 == schedule_.segments.size();
      RunAttention(call, segment, last_attention ? pooled : std::vector<Range>{{0, tokens}});
      if (last_attention && pooled_rows < tokens) Compact(call, pooled);
    }
    VectorBlock block = PoolSpans(call, CompactedSpans(batch.spans, pooled), pooled_rows);
    for (const DenseStep& step : dense_) block = RunDense(call, step, block);
    return block;
  }

  static DenseStep ToStep(const DenseLayer& layer) {
    return {PackWeights(Precision::kFloat32, layer.weight.data, layer.bias.data, static_cast<int>(layer.weight.rows),
                        static_cast<int>(layer.weight.columns)),
            layer.activation};
  }

  // theta_j of the local layers, the same for all (AttentionCheck); empty without any.
  static std::vector<double> LocalFrequencies(const Program& program) {
    std::vector<double> frequencies;
    for (const std::vector<Op>& layer : program.layers) {
      for (const Op& op : layer) {
        const auto* attention = std::get_if<AttentionOp>(&op);
        if (attention == nullptr || !attention->local.has_value() || !frequencies.empty()) continue;
        const int head_dim = program.widths[attention->out] / attention->heads;
        for (int j = 0; j < head_dim / 2; ++j) {
          frequencies.push_back(std::pow(attention->local->rotary_base, -2.0 * j / head_dim));
        }
      }
    }
    return frequencies;
  }

  std::shared_ptr<const RotaryTable> LocalRotations(const PackedBatch& batch) {
    if (local_frequencies_.empty()) return nullptr;
    int32_t longest = 0;
    for (size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
      longest = std::max(longest, batch.sequence_offsets[s + 1] - batch.sequence_offsets[s]);
    }
    return local_tables_.Get(local_frequencies_, /*amplitude=*/1, longest);
  }

  // Moves the pooled rows of every batch slot to the beginning, so that few of them still make full chunks.
  void Compact(const Call& call, const std::vector<Range>& pooled) const {
    for (size_t slot = 0; slot < call.memory.slots.size(); ++slot) {
      const ptrdiff_t stride = schedule_.batch_slots[slot];
      std::byte* const data = call.memory.slots[slot].data();
      ptrdiff_t to = 0;
      for (const Range rows : pooled) {
        std::memmove(data + to * stride, data + rows.start * stride, static_cast<size_t>(rows.size() * stride));
        to += rows.size();
      }
    }
  }

  static std::vector<Range> CompactedSpans(std::vector<Range> spans, const std::vector<Range>& pooled) {
    for (Range& span : spans) {
      int32_t before = 0;  // Rows that were moved before those of this range.
      auto rows = pooled.begin();
      for (; rows->end < span.end; ++rows) before += rows->size();
      const int32_t start = before + span.start - rows->start;
      span = {start, start + span.size()};
    }
    return spans;
  }

  Rows BatchRows(const Call& call, const Place& place, int row) const {
    const ptrdiff_t stride = schedule_.batch_slots[place.slot];
    return Rows{call.memory.slots[place.slot].data(), stride, place.element}.from(row);
  }

  // Rows of a value from row `row` of the batch on, which is the first of its chunk.
  Rows RowsOf(const Call& call, Workspace& workspace, const Place& place, int row) const {
    if (place.whole_batch) return BatchRows(call, place, row);
    return {workspace.slots[place.slot].data(), schedule_.chunk_slots[place.slot], place.element};
  }

  Pool<Workspace>::Lease TakeWorkspace() {
    return workspaces_.Take([this] {
      auto workspace = std::make_unique<Workspace>();
      for (const ptrdiff_t bytes : schedule_.chunk_slots) {
        workspace->slots.emplace_back(static_cast<size_t>(bytes) * kChunkRows + kSlack);
      }
      workspace->operand = AlignedBuffer(static_cast<size_t>(schedule_.operand_bytes) * kChunkRows + kSlack);
      workspace->scales.resize(kChunkRows);
      size_t attention = 0;
      for (const Segment& segment : schedule_.segments) {
        if (segment.has_attention) attention = std::max(attention, AttentionScratch(segment.attention.head_dim));
      }
      workspace->attention = AlignedBuffer(attention);
      return workspace;
    });
  }

  void EmbedTokens(const Call& call, int rows) {
    const std::vector<Range> chunks = Chunks({0, rows}, kChunkRows);
    call.leader.ParallelFor(static_cast<int>(chunks.size()), [&](int i) {
      const Range chunk = chunks[i];
      const Rows out = BatchRows(call, schedule_.input, chunk.start);
      cpu::GatherRows(program_.word.data, call.batch.tokens.data() + chunk.start, out, chunk.size(), width_);
      if (program_.position) {
        auto workspace = TakeWorkspace();
        std::vector<float>& places = workspace->positions;
        places.resize(static_cast<size_t>(chunk.size()) * width_);
        const Rows positions{reinterpret_cast<std::byte*>(places.data()), width_ * SizeOf(Element::kFloat32)};
        InterpolateRows(program_.position.data, static_cast<int>(program_.position.rows),
                        call.batch.positions.data() + chunk.start, positions, chunk.size(), width_);
        Normalize(out, positions, chunk.size());
      } else if (program_.embedding_norm_weight) {
        Normalize(out, {}, chunk.size());
      }
    });
  }

  void Normalize(Rows rows, Rows other, int count) const {
    LayerNormRows(rows, other, rows, count, width_, program_.embedding_norm_weight.data,
                  program_.embedding_norm_bias.data, program_.embedding_norm_epsilon);
  }

  // With enough rows each chunk goes through all steps on one core. With few, the cores share the columns of one step
  // after the other: each then reads a part of the weights, which is what few rows wait for.
  void RunSteps(const Call& call, const Segment& segment, int rows) {
    const int threads = call.leader.threads();
    if (rows >= threads * kFewRows) {
      // As many chunks as give every core the same number of them.
      const int pieces = RoundUp((rows + kChunkRows - 1) / kChunkRows, threads);
      const std::vector<Range> chunks = Chunks({0, rows}, (rows + pieces - 1) / pieces);
      call.leader.ParallelFor(static_cast<int>(chunks.size()), [&](int i) {
        auto workspace = TakeWorkspace();
        for (const RowStep& step : segment.steps) {
          std::visit([&](const auto& each) { RunStep(call, *workspace, each, chunks[i]); }, step);
        }
      });
      return;
    }
    auto workspace = TakeWorkspace();
    for (const Range chunk : Chunks({0, rows}, kChunkRows)) {
      for (const RowStep& step : segment.steps) RunStepTogether(call, *workspace, step, chunk);
    }
  }

  void RunStepTogether(const Call& call, Workspace& workspace, const RowStep& step, Range chunk) {
    const auto* linear = std::get_if<LinearStep>(&step);
    if (linear == nullptr) {
      std::visit([&](const auto& each) { RunStep(call, workspace, each, chunk); }, step);
      return;
    }
    const Operand operand = OperandOf(call, workspace, *linear, chunk);
    const int panels = linear->weights.panel_count();
    const int tiles = std::min(panels, 2 * call.leader.threads());
    const Rows out = RowsOf(call, workspace, linear->out, chunk.start);
    call.leader.ParallelFor(tiles, [&](int i) {
      MultiplyPanels(*linear, operand, chunk.size(), panels * i / tiles, panels * (i + 1) / tiles, out);
    });
  }

  static void MultiplyPanels(const LinearStep& step, const Operand& operand, int rows, int first, int last, Rows out) {
    if (step.gate.has_value()) {
      MultiplyGatedRows(step.weights, *step.gate, operand, rows, first, last, step.activation, out);
    } else {
      MultiplyRows(step.weights, operand, rows, first, last, step.activation, out);
    }
  }

  Operand OperandOf(const Call& call, Workspace& workspace, const LinearStep& step, Range chunk) const {
    const Rows in = RowsOf(call, workspace, step.in, chunk.start);
    if (step.in_is_operand) return {.data = in.data, .stride = in.stride};
    const ptrdiff_t stride = RoundUp(step.weights.steps * kStepBytes, 64);
    ToOperand(in, chunk.size(), step.weights.inputs, step.weights.precision, workspace.operand.data(), stride,
              workspace.scales.data());
    return {.data = workspace.operand.data(),
            .stride = stride,
            .scales = precision_ == Precision::kInt8 ? workspace.scales.data() : nullptr};
  }

  void RunStep(const Call& call, Workspace& workspace, const LinearStep& step, Range chunk) const {
    MultiplyPanels(step, OperandOf(call, workspace, step, chunk), chunk.size(), 0, step.weights.panel_count(),
                   RowsOf(call, workspace, step.out, chunk.start));
  }
  void RunStep(const Call& call, Workspace& workspace, const LayerNormStep& step, Range chunk) const {
    const Rows residual = step.residual.has_value() ? RowsOf(call, workspace, *step.residual, chunk.start) : Rows{};
    LayerNormRows(RowsOf(call, workspace, step.in, chunk.start), residual,
                  RowsOf(call, workspace, step.out, chunk.start), chunk.size(), step.out.width, step.weight.data(),
                  step.bias.data(), step.epsilon);
  }
  void RunStep(const Call& call, Workspace& workspace, const RmsNormStep& step, Range chunk) const {
    RmsNormRows(RowsOf(call, workspace, step.in, chunk.start), RowsOf(call, workspace, step.out, chunk.start),
                chunk.size(), step.out.width, step.weight.data(), step.epsilon);
  }
  void RunStep(const Call& call, Workspace& workspace, const AddStep& step, Range chunk) const {
    AddRows(RowsOf(call, workspace, step.a, chunk.start), RowsOf(call, workspace, step.b, chunk.start),
            RowsOf(call, workspace, step.out, chunk.start), chunk.size(), step.out.width);
  }
  void RunStep(const Call& call, Workspace& workspace, const HeadNormStep& step, Range chunk) const {
    HeadNormRows(RowsOf(call, workspace, step.in, chunk.start), RowsOf(call, workspace, step.out, chunk.start),
                 chunk.size(), step.heads, step.key_value_heads, static_cast<int>(step.query.size()), step.query.data(),
                 step.key.data(), step.epsilon);
  }

  void RunAttention(const Call& call, const Segment& segment, const std::vector<Range>& queries) {
    const std::vector<AttentionTile> tiles = AttentionTiles(call, segment.attention, queries);
    call.leader.ParallelFor(static_cast<int>(tiles.size()), [&](int i) {
      const AttentionTile& tile = tiles[i];
      auto workspace = TakeWorkspace();
      Attend(segment.attention, InputOf(call, segment, tile.sequence), tile.heads.start, tile.heads.end,
             tile.queries.start, tile.queries.end, workspace->attention.data());
    });
  }

  // Tiles of about equal work, so that cores end together, and large enough that taking one costs nothing.
  static std::vector<AttentionTile> AttentionTiles(const Call& call, const AttentionShape& shape,
                                                   const std::vector<Range>& queries) {
    constexpr int64_t kPairs = 1 << 15;  // Of a query and a key, of one tile: some tens of microseconds.
    std::vector<AttentionTile> tiles;
    size_t next = 0;
    for (int s = 0; s + 1 < static_cast<int>(call.batch.sequence_offsets.size()); ++s) {
      const Range sequence{call.batch.sequence_offsets[s], call.batch.sequence_offsets[s + 1]};
      while (next < queries.size() && queries[next].end <= sequence.start) ++next;
      for (size_t q = next; q < queries.size() && queries[q].start < sequence.end; ++q) {
        const Range own{std::max(queries[q].start, sequence.start) - sequence.start,
                        std::min(queries[q].end, sequence.end) - sequence.start};
        for (const Range piece : Chunks(own, kMaxQueries)) {
          const int32_t last = shape.causal ? piece.end : std::min(sequence.size(), piece.end + shape.reach);
          const int64_t keys = last - std::max(0, piece.start - shape.reach);
          const int64_t pairs = piece.size() * keys;
          const int heads = static_cast<int>(std::clamp<int64_t>(kPairs / pairs, 1, shape.heads));
          for (const Range some : Chunks({0, shape.heads}, heads)) tiles.push_back({s, some, piece});
        }
      }
    }
    // The last queries of a causal giant see most keys: begun first, so that cores end together.
    if (shape.causal) std::ranges::reverse(tiles);
    return tiles;
  }

  AttentionInput InputOf(const Call& call, const Segment& segment, int sequence) const {
    const PackedBatch& batch = call.batch;
    const int first = batch.sequence_offsets[sequence];
    const auto tokens = static_cast<int64_t>(batch.tokens.size());
    AttentionInput input{.qkv = BatchRows(call, segment.qkv, first),
                         .tokens = batch.sequence_offsets[sequence + 1] - first,
                         .scale = 1 / std::sqrt(static_cast<float>(segment.attention.head_dim))};
    if (segment.local) {
      input.rotary_width = call.local_rotations->width;
      input.plain = {.cos = call.local_rotations->cos.data(), .sin = call.local_rotations->sin.data()};
      return input;
    }
    input.scale *= batch.query_scale[sequence];
    input.rotary_width = batch.rotary_width;
    input.window = batch.neighbour_window[sequence];
    const auto rotation = [&](int table) {
      const float* const cos = batch.rotary.data() + (2 * table * tokens + first) * batch.rotary_width;
      return Rotation{.cos = cos, .sin = cos + tokens * batch.rotary_width};
    };
    if (batch.rotary_tables > 0) input.plain = rotation(0);
    if (batch.rotary_tables == 3) {
      input.grouped = rotation(1);
      input.shifted = rotation(2);
    }
    return input;
  }

  // `spans` cover the first `rows` rows.
  VectorBlock PoolSpans(const Call& call, const std::vector<Range>& spans, int rows) const {
    VectorBlock block{.rows = static_cast<int>(spans.size()), .width = width_};
    block.values.resize(spans.size() * static_cast<size_t>(width_));
    const Rows out = BatchRows(call, schedule_.output, 0);
    if (program_.final_norm_bias) {
      LayerNormRows(out, {}, out, rows, width_, program_.final_norm.data, program_.final_norm_bias.data,
                    program_.final_norm_epsilon);
    } else if (program_.final_norm) {
      RmsNormRows(out, out, rows, width_, program_.final_norm.data, program_.final_norm_epsilon);
    }
    for (size_t i = 0; i < spans.size(); ++i) {
      MeanOfRows(out.from(spans[i].start), spans[i].size(), width_, block.values.data() + i * width_);
    }
    return block;
  }

  static VectorBlock RunDense(const Call& call, const DenseStep& step, VectorBlock& in) {
    const int width = step.weights.outputs;
    VectorBlock out{.rows = in.rows, .width = width};
    out.values.resize(static_cast<size_t>(in.rows) * width);
    const auto view = [](VectorBlock& block) {
      return Rows{reinterpret_cast<std::byte*>(block.values.data()), block.width * SizeOf(Element::kFloat32)};
    };
    const std::vector<Range> chunks = Chunks({0, in.rows}, kChunkRows);
    call.leader.ParallelFor(static_cast<int>(chunks.size()), [&](int i) {
      const Rows rows = view(in).from(chunks[i].start);
      MultiplyRows(step.weights, {.data = rows.data, .stride = rows.stride}, chunks[i].size(), 0,
                   step.weights.panel_count(), step.activation, view(out).from(chunks[i].start));
    });
    return out;
  }

  static void Trim(BatchMemory& memory) {
    constexpr size_t kKept = 64 << 20;
    for (AlignedBuffer& slot : memory.slots) {
      if (slot.size() > kKept) slot = AlignedBuffer();
    }
  }

  const Precision precision_;
  const int width_;  // Of hidden states.
  const std::vector<double> local_frequencies_;
  int smallest_head_ = kMaxHeadDim;
  Schedule schedule_;
  Program program_;  // Without its layers.
  std::vector<DenseStep> dense_;
  RotaryTableCache local_tables_;
  Pool<Workspace> workspaces_;
  Pool<BatchMemory> memories_;
};

// What kernels and schedule take for granted of attention: sizes that they know; queries, keys and values from a linear
// layer, perhaps through norms of their heads, and read by nothing else, because the context takes the queries' place;
// the context read by linear layers only, because it may be bfloat16; and the same rotations for all local layers.
class AttentionCheck {
 public:
  explicit AttentionCheck(const Program& program)
      : program_(program),
        readers_(program.widths.size(), 0),
        from_linear_(program.widths.size(), false),
        context_(program.widths.size(), false) {}

  absl::Status Check() {
    for (const std::vector<Op>& layer : program_.layers) {
      for (const Op& op : layer) {
        if (absl::Status status = CheckOp(op); !status.ok()) return status;
      }
    }
    for (const AttentionOp* attention : attentions_) {
      if (readers_[attention->in] != 1) return Refuse("queries, keys and values read twice");
    }
    return absl::OkStatus();
  }

 private:
  static absl::Status Refuse(const std::string& what) { return absl::UnimplementedError(what); }

  absl::Status CheckOp(const Op& op) {
    bool reads_context = false;
    ForInputs(op, [&](Value value) {
      ++readers_[value];
      reads_context = reads_context || context_[value];
    });
    const auto* linear = std::get_if<LinearOp>(&op);
    if (reads_context && linear == nullptr) return Refuse("a context that something other than a linear layer reads");
    if (linear != nullptr) from_linear_[linear->out] = true;
    if (const auto* norm = std::get_if<HeadNormOp>(&op)) from_linear_[norm->out] = from_linear_[norm->in];
    const auto* attention = std::get_if<AttentionOp>(&op);
    return attention == nullptr ? absl::OkStatus() : CheckAttention(*attention);
  }

  absl::Status CheckAttention(const AttentionOp& attention) {
    const int head_dim = program_.widths[attention.out] / attention.heads;
    if (head_dim > kMaxHeadDim) {
      return Refuse(absl::StrCat("heads of ", head_dim, " components; at most ", kMaxHeadDim));
    }
    if (attention.relative_bias.columns / 2 > kMaxFarthest) {
      return Refuse(
          absl::StrCat("a bias of ", attention.relative_bias.columns, " distances; at most ", 2 * kMaxFarthest + 1));
    }
    if (!from_linear_[attention.in]) return Refuse("attention over something other than a linear layer's result");
    if (attention.local.has_value()) {
      const std::pair rotations(attention.local->rotary_base, head_dim);
      if (head_dim % 2 != 0 || local_rotations_.value_or(rotations) != rotations) {
        return Refuse("local layers that share no rotations");
      }
      local_rotations_ = rotations;
    }
    context_[attention.out] = true;
    attentions_.push_back(&attention);
    return absl::OkStatus();
  }

  const Program& program_;
  std::vector<int> readers_;
  std::vector<bool> from_linear_, context_;
  std::vector<const AttentionOp*> attentions_;
  std::optional<std::pair<double, int>> local_rotations_;  // Base and size of heads.
};

}  // namespace

absl::StatusOr<std::unique_ptr<Encoder>> MakeCpuEncoder(Program program, Precision precision) {
  if (const std::string missing = MissingFor(precision); !missing.empty()) {
    return PrecisionUnavailable(PrecisionName(precision), missing);
  }
  if (absl::Status status = AttentionCheck(program).Check(); !status.ok()) return status;
  const bool narrow = precision != Precision::kFloat32 && MissingFor(Precision::kBfloat16).empty();
  return std::make_unique<CpuEncoder>(std::move(program), precision, narrow ? Element::kBfloat16 : Element::kFloat32);
}

}  // namespace longembed
