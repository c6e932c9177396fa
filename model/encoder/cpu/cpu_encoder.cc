#include "model/encoder/cpu/cpu_encoder.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "model/encoder/cpu/aligned_buffer.h"
#include "model/encoder/cpu/attention.h"
#include "model/encoder/cpu/attention_check.h"
#include "model/encoder/cpu/division.h"
#include "model/encoder/cpu/flush_denormals.h"
#include "model/encoder/cpu/kernels.h"
#include "model/encoder/cpu/packed_weights.h"
#include "model/encoder/cpu/packing.h"
#include "model/encoder/cpu/per_thread.h"
#include "model/encoder/cpu/schedule.h"
#include "model/errors/errors.h"
#include "model/plan/rotary.h"
#include "system/mutex.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using namespace cpu;

// Bytes beyond the last row, for vector accesses that begin within it.
constexpr size_t kSlack = 64;

// A thread's workspace for one chunk of rows or one tile of attention.
struct Workspace {
  int first_row = 0;  // First row of the current chunk, in the batch.
  std::vector<AlignedBuffer> slots;
  AlignedBuffer operand;
  std::vector<float> scales;     // Scales of the operand's rows.
  std::vector<float> positions;  // Interpolated rows of the position table.
  AlignedBuffer attention;
};

// Memory for the values of one batch.
struct BatchMemory {
  std::vector<AlignedBuffer> slots;
};

// A pool of objects that are costly to make. Each is leased to one user at a time. Multiple threads can use one Pool.
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
      const MutexLock lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<T> object = std::move(free_.back());
        free_.pop_back();
        return Lease(*this, std::move(object));
      }
      // Reserved now, so that Return never allocates: it must work when memory has run out.
      free_.reserve(++made_);
    }
    return Lease(*this, make());
  }

 private:
  void Return(std::unique_ptr<T> object) {
    const MutexLock lock(mutex_);
    free_.push_back(std::move(object));
  }

  Mutex mutex_;
  std::vector<std::unique_ptr<T>> free_ ABSL_GUARDED_BY(mutex_);
  size_t made_ ABSL_GUARDED_BY(mutex_) = 0;
};

// Tracks whether a batch is cancelled. The leader's thread calls `is_cancelled` every few milliseconds; helpers read
// the last answer.
class Cancellation {
 public:
  explicit Cancellation(absl::FunctionRef<bool()> is_cancelled) : is_cancelled_(is_cancelled) {}

  // Calls `is_cancelled` now. Only for the leader's thread.
  bool Ask() {
    asked_ = Clock::now();
    if (!answer() && is_cancelled_()) answer_.store(true, std::memory_order_relaxed);
    return answer();
  }
  // Returns the current or last answer. For any thread.
  bool IsCancelled() {
    constexpr auto kInterval = std::chrono::milliseconds(5);
    if (std::this_thread::get_id() == leader_ && Clock::now() - asked_ >= kInterval) return Ask();
    return answer();
  }

 private:
  using Clock = std::chrono::steady_clock;

  bool answer() const { return answer_.load(std::memory_order_relaxed); }

  const absl::FunctionRef<bool()> is_cancelled_;
  const std::thread::id leader_ = std::this_thread::get_id();
  Clock::time_point asked_ = Clock::now();
  std::atomic<bool> answer_ = false;
};

// Returns the union of the ranges, merged and in order.
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

// Divides a range where `inside` begins and ends.
std::vector<Range> CutAround(Range range, Range inside) {
  std::vector<Range> parts;
  for (const auto& [start, end] :
       {std::pair{range.start, inside.start}, std::pair{inside.start, inside.end}, std::pair{inside.end, range.end}}) {
    const Range part{std::max(range.start, start), std::min(range.end, end)};
    if (part.size() > 0) parts.push_back(part);
  }
  return parts;
}

class CpuEncoder final : public Encoder {
 public:
  CpuEncoder(Program program, Precision precision, const Kernels& kernels, const PackingOptions& packing)
      : precision_(precision),
        kernels_(kernels),
        streamed_(packing.streamed),
        on_progress_(packing.on_progress),
        width_(static_cast<int>(program.word.columns)),
        local_frequencies_(LocalFrequencies(program)) {
    for (const DenseLayer& layer : program.dense) dense_.push_back(ToStep(kernels, layer));
    program.dense.clear();
    schedule_ =
        MakeSchedule(std::move(program.layers), program.widths, program.input, program.output, precision, kernels);
    program_ = std::move(program);
    for (const Segment& segment : schedule_.segments) {
      if (segment.has_attention) smallest_head_ = std::min(smallest_head_, segment.attention.head_dim);
    }
  }

  // Packs all weights. Called once, unless streamed.
  absl::Status PackWeights(const PackingOptions& packing) { return PackAll(schedule_, packing); }

  absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                     absl::FunctionRef<bool()> is_cancelled) override {
    const auto alone = streamed_ ? std::unique_lock(streaming_) : std::unique_lock<std::mutex>();
    try {
      return Run(batch, leader, is_cancelled);
    } catch (const std::bad_alloc&) {
      return EncoderOutOfMemory("the activations of this batch do not fit");
    }
  }

  int hidden_size() const override { return dense_.empty() ? width_ : dense_.back().weights.outputs; }
  std::string device() const override { return "cpu"; }
  std::string engine() const override { return "native"; }
  std::string kernels() const override { return kernels_.name; }
  bool uses_helpers() const override { return true; }
  Precision precision() const override { return precision_; }

 private:
  // State that the steps of one Encode call share.
  struct Call {
    const PackedBatch& batch;
    Team::Leader& leader;
    BatchMemory& memory;
    Cancellation& cancellation;
    // Rotations of local attention for the longest sequence; null without local attention.
    const RotaryTable* local_rotations;

    // Runs a parallel loop. Skips the remaining iterations once the batch is cancelled.
    void ParallelFor(int count, absl::FunctionRef<void(int)> body) const {
      leader.ParallelFor(count, [this, body](int i) {
        const FlushDenormals flush;
        if (!cancellation.IsCancelled()) body(i);
      });
    }
  };

  // A layer over pooled vectors, always in float32.
  struct DenseStep {
    PackedWeights weights;
    Activation activation;
  };

  absl::StatusOr<VectorBlock> Run(const PackedBatch& batch, Team::Leader& leader,
                                  absl::FunctionRef<bool()> is_cancelled) {
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
    // On every exit, returns memory beyond that of common batches to the system.
    const absl::Cleanup trim = [&memory] { Trim(*memory); };
    memory->slots.resize(schedule_.batch_slots.size());
    for (size_t i = 0; i < memory->slots.size(); ++i) {
      memory->slots[i].Reserve(static_cast<size_t>(schedule_.batch_slots[i]) * tokens + kSlack);
    }
    Cancellation cancellation(is_cancelled);
    const std::shared_ptr<const RotaryTable> local_rotations = LocalRotations(batch);
    const Call call{batch, leader, *memory, cancellation, local_rotations.get()};
    // Rows that are not pooled are dropped after the last attention, so a program without attention keeps all rows.
    const bool leaves_out = schedule_.segments.size() > 1;
    const std::vector<Range> pooled = leaves_out ? Union(batch.spans) : std::vector<Range>{{0, tokens}};
    int32_t pooled_rows = 0;
    for (const Range rows : pooled) pooled_rows += rows.size();

    EmbedTokens(call, tokens);
    int layer = 0;
    for (size_t i = 0; i < schedule_.segments.size(); ++i) {
      if (cancellation.Ask()) return EncoderCancelled();
      Segment& segment = schedule_.segments[i];
      const bool last = i + 1 == schedule_.segments.size();
      if (streamed_) {
        RETURN_IF_ERROR(PackSegment(segment, i, leader));
      }
      RunSteps(call, segment, last ? pooled_rows : tokens);
      if (streamed_) FreeSegment(segment);
      if (!segment.has_attention) continue;
      // After the last attention's keys and values, only rows that are pooled are needed.
      const bool last_attention = i + 2 == schedule_.segments.size();
      RunAttention(call, segment, layer++, last_attention ? pooled : std::vector<Range>{{0, tokens}});
      if (last_attention && pooled_rows < tokens) Compact(call, pooled);
    }
    if (cancellation.IsCancelled()) return EncoderCancelled();  // The last segment may be incomplete.
    VectorBlock block = PoolSpans(call, CompactedSpans(batch.spans, pooled), pooled_rows);
    if (cancellation.IsCancelled()) return EncoderCancelled();
    for (const DenseStep& step : dense_) block = RunDense(call, step, block);
    return block;
  }

  static DenseStep ToStep(const Kernels& kernels, const DenseLayer& layer) {
    return {cpu::PackWeights(kernels, Precision::kFloat32, layer.weight.data, layer.bias.data,
                             static_cast<int>(layer.weight.rows), static_cast<int>(layer.weight.columns)),
            layer.activation};
  }

  // Returns theta_j of the local layers, which is the same for all of them (AttentionCheck). Empty if there are none.
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

  absl::Status PackSegment(Segment& segment, size_t number, Team::Leader& leader) {
    if (on_progress_) on_progress_(static_cast<double>(number) / static_cast<double>(schedule_.segments.size()));
    ForWeights(segment, [this](PackedWeights& weights) {
      const auto spare = std::ranges::find(spare_, PanelBytes(weights), &AlignedBuffer::size);
      if (spare == spare_.end()) return;
      weights.panels = std::move(*spare);
      spare_.erase(spare);
    });
    return cpu::PackSegment(segment, leader);
  }

  // Keeps the panels' memory for the next segment, which probably has the same sizes. Fresh pages would cost more than
  // the packing.
  void FreeSegment(Segment& segment) {
    ForWeights(segment,
               [this](PackedWeights& weights) { spare_.push_back(std::exchange(weights.panels, AlignedBuffer())); });
  }

  // Moves the pooled rows of every batch slot to its beginning, so that scattered rows form full chunks.
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
    std::vector<int32_t> before;  // For each range, the number of compacted rows before it.
    for (int32_t rows = 0; const Range range : pooled) before.push_back(std::exchange(rows, rows + range.size()));
    for (Range& span : spans) {
      const auto range = std::ranges::lower_bound(pooled, span.end, {}, &Range::end);
      const int32_t start = before[static_cast<size_t>(range - pooled.begin())] + span.start - range->start;
      span = {start, start + span.size()};
    }
    return spans;
  }

  Rows BatchRows(const Call& call, const BufferRef& place, int row) const {
    const ptrdiff_t stride = schedule_.batch_slots[place.slot];
    return Rows{call.memory.slots[place.slot].data(), stride, place.element}.from(row);
  }

  // Returns the rows of a value from row `row` of the batch on. If the value is in the workspace, the row must belong
  // to its chunk.
  Rows RowsOf(const Call& call, Workspace& workspace, const BufferRef& place, int row) const {
    if (place.whole_batch) return BatchRows(call, place, row);
    const Rows chunk{workspace.slots[place.slot].data(), schedule_.chunk_slots[place.slot], place.element};
    return chunk.from(row - workspace.first_row);
  }

  PerThread<Workspace>::Lease TakeWorkspace() {
    return workspaces_.Take([] { return std::make_unique<Workspace>(); });
  }

  // Allocates a workspace's memory for `chunk`.
  void Hold(Range chunk, Workspace& workspace) const {
    const auto rows = static_cast<size_t>(std::max(chunk.size(), kChunkRows));
    const auto reserve = [rows](AlignedBuffer& buffer, ptrdiff_t row_bytes) {
      buffer.Reserve(static_cast<size_t>(row_bytes) * rows + kSlack);
    };
    workspace.first_row = chunk.start;
    workspace.slots.resize(schedule_.chunk_slots.size());
    for (size_t i = 0; i < workspace.slots.size(); ++i) reserve(workspace.slots[i], schedule_.chunk_slots[i]);
    reserve(workspace.operand, schedule_.operand_bytes);
    if (workspace.scales.size() < rows) workspace.scales.resize(rows);
  }

  void EmbedTokens(const Call& call, int rows) {
    const std::vector<Range> chunks = Chunks({0, rows}, kChunkRows);
    call.ParallelFor(static_cast<int>(chunks.size()), [&](int i) {
      const Range chunk = chunks[i];
      const Rows out = BatchRows(call, schedule_.input, chunk.start);
      kernels_.gather(program_.word.data, call.batch.tokens.data() + chunk.start, out, chunk.size(), width_);
      if (program_.position) {
        auto workspace = TakeWorkspace();
        std::vector<float>& places = workspace->positions;
        places.resize(static_cast<size_t>(chunk.size()) * width_);
        const Rows positions{reinterpret_cast<std::byte*>(places.data()), width_ * SizeOf(Element::kFloat32)};
        kernels_.interpolate(program_.position.data, static_cast<int>(program_.position.rows),
                             call.batch.positions.data() + chunk.start, positions, chunk.size(), width_);
        Normalize(out, positions, chunk.size());
      } else if (program_.embedding_norm_weight) {
        Normalize(out, {}, chunk.size());
      }
    });
  }

  void Normalize(Rows rows, Rows other, int count) const {
    kernels_.layer_norm(rows, other, rows, count, width_, program_.embedding_norm_weight.data,
                        program_.embedding_norm_bias.data, program_.embedding_norm_epsilon);
  }

  void RunSteps(const Call& call, const Segment& segment, int rows) {
    const int threads = call.leader.threads();
    const std::vector<Range> chunks = ChunksThroughSteps(segment, rows, threads);
    call.ParallelFor(static_cast<int>(chunks.size()), [&](int i) {
      auto workspace = TakeWorkspace();
      Hold(chunks[i], *workspace);
      RunSteps(call, *workspace, segment, {0, static_cast<int32_t>(segment.steps.size())}, chunks[i]);
    });
    if (!chunks.empty()) return;
    for (const Range chunk : Chunks({0, rows}, SharedChunkRows(threads))) {
      auto workspace = TakeWorkspace();
      Hold(chunk, *workspace);
      for (const StepLoop& loop : LoopsOfSteps(segment, chunk, threads)) {
        std::visit([&](const auto& each) { RunLoop(call, *workspace, segment, each); }, loop);
      }
    }
  }

  void RunSteps(const Call& call, Workspace& workspace, const Segment& segment, Range steps, Range rows) const {
    for (int32_t i = steps.start; i < steps.end; ++i) {
      std::visit([&](const auto& step) { RunStep(call, workspace, step, rows); }, segment.steps[i]);
    }
  }

  void RunLoop(const Call& call, Workspace& workspace, const Segment& segment, const RowLoop& loop) const {
    call.ParallelFor(static_cast<int>(loop.pieces.size()), [&](int i) {
      RunSteps(call, workspace, segment, loop.steps, loop.pieces[i]);
      if (loop.operand != nullptr) OperandOf(call, workspace, *loop.operand, loop.pieces[i]);
    });
  }
  void RunLoop(const Call& call, Workspace& workspace, const Segment&, const ProductLoop& loop) const {
    call.ParallelFor(loop.count(), [&](int i) {
      const Range rows = loop.rows(i), panels = loop.panels(i);
      MultiplyPanels(*loop.step, PlaceOfOperand(call, workspace, *loop.step, rows), rows.size(), panels.start,
                     panels.end, RowsOf(call, workspace, loop.step->out, rows.start));
    });
  }

  void MultiplyPanels(const LinearStep& step, const Operand& operand, int rows, int first, int last, Rows out) const {
    const PackedWeights* const gate = step.gate.has_value() ? &*step.gate : nullptr;
    kernels_.multiply(precision_)(step.weights, gate, operand, rows, first, last, step.activation, out);
  }

  // Returns the place of an operand's rows, which may not have been written yet.
  Operand PlaceOfOperand(const Call& call, Workspace& workspace, const LinearStep& step, Range rows) const {
    if (step.in_is_operand) {
      const Rows in = RowsOf(call, workspace, step.in, rows.start);
      return {.data = in.data, .stride = in.stride};
    }
    const int skipped = rows.start - workspace.first_row;
    const ptrdiff_t stride = RoundUp(step.weights.steps * kStepBytes, 64);
    return {.data = workspace.operand.data() + skipped * stride,
            .stride = stride,
            .scales = precision_ == Precision::kInt8 ? workspace.scales.data() + skipped : nullptr};
  }

  Operand OperandOf(const Call& call, Workspace& workspace, const LinearStep& step, Range rows) const {
    const Operand operand = PlaceOfOperand(call, workspace, step, rows);
    if (step.in_is_operand) return operand;
    kernels_.to_operand(RowsOf(call, workspace, step.in, rows.start), rows.size(), step.weights.inputs,
                        step.weights.operand, const_cast<std::byte*>(operand.data), operand.stride,
                        const_cast<float*>(operand.scales));
    return operand;
  }

  void RunStep(const Call& call, Workspace& workspace, const LinearStep& step, Range chunk) const {
    MultiplyPanels(step, OperandOf(call, workspace, step, chunk), chunk.size(), 0, step.weights.panel_count(),
                   RowsOf(call, workspace, step.out, chunk.start));
  }
  void RunStep(const Call& call, Workspace& workspace, const LayerNormStep& step, Range chunk) const {
    const Rows residual = step.residual.has_value() ? RowsOf(call, workspace, *step.residual, chunk.start) : Rows{};
    kernels_.layer_norm(RowsOf(call, workspace, step.in, chunk.start), residual,
                        RowsOf(call, workspace, step.out, chunk.start), chunk.size(), step.out.width,
                        step.weight.data(), step.bias.data(), step.epsilon);
  }
  void RunStep(const Call& call, Workspace& workspace, const RmsNormStep& step, Range chunk) const {
    kernels_.rms_norm(RowsOf(call, workspace, step.in, chunk.start), RowsOf(call, workspace, step.out, chunk.start),
                      chunk.size(), step.out.width, step.weight.data(), step.epsilon);
  }
  void RunStep(const Call& call, Workspace& workspace, const AddStep& step, Range chunk) const {
    kernels_.add(RowsOf(call, workspace, step.a, chunk.start), RowsOf(call, workspace, step.b, chunk.start),
                 RowsOf(call, workspace, step.out, chunk.start), chunk.size(), step.out.width);
  }
  void RunStep(const Call& call, Workspace& workspace, const HeadNormStep& step, Range chunk) const {
    kernels_.head_norm(RowsOf(call, workspace, step.in, chunk.start), RowsOf(call, workspace, step.out, chunk.start),
                       chunk.size(), step.heads, step.key_value_heads, static_cast<int>(step.query.size()),
                       step.query.data(), step.key.data(), step.epsilon);
  }

  void RunAttention(const Call& call, const Segment& segment, int layer, const std::vector<Range>& queries) {
    const std::vector<AttentionTile> tiles =
        AttentionTiles(segment.attention, QueryRanges(call, segment, layer, queries), call.leader.threads());
    call.ParallelFor(static_cast<int>(tiles.size()), [&](int i) {
      const AttentionTile& tile = tiles[i];
      auto workspace = TakeWorkspace();
      workspace->attention.Reserve(kernels_.attention_scratch(segment.attention.head_dim));
      kernels_.attend(segment.attention, InputOf(call, segment, tile), tile.heads.start, tile.heads.end,
                      tile.queries.start, tile.queries.end, workspace->attention.data());
    });
  }

  // Divides ranges of rows of the batch at the bounds of sequences and of their calibrated rows.
  static std::vector<QueryRange> QueryRanges(const Call& call, const Segment& segment, int layer,
                                             const std::vector<Range>& queries) {
    std::vector<QueryRange> ranges;
    size_t next = 0;
    for (int s = 0; s + 1 < static_cast<int>(call.batch.sequence_offsets.size()); ++s) {
      const Range sequence{call.batch.sequence_offsets[s], call.batch.sequence_offsets[s + 1]};
      const Range calibrated = CalibratedRows(call, segment, layer, s);
      while (next < queries.size() && queries[next].end <= sequence.start) ++next;
      for (size_t q = next; q < queries.size() && queries[q].start < sequence.end; ++q) {
        const Range own{std::max(queries[q].start, sequence.start) - sequence.start,
                        std::min(queries[q].end, sequence.end) - sequence.start};
        for (const Range part : CutAround(own, calibrated)) {
          const bool inside = calibrated.start <= part.start && part.end <= calibrated.end;
          ranges.push_back({s, sequence.size(), part, inside});
        }
      }
    }
    return ranges;
  }

  // Returns the calibrated rows of a sequence in a layer; empty if there are none.
  static Range CalibratedRows(const Call& call, const Segment& segment, int layer, int sequence) {
    if (call.batch.calibration.empty()) return {};
    const SequenceCalibration& calibration = call.batch.calibration[sequence];
    const bool applies = calibration.basket > 0 && layer >= calibration.first_layer && !segment.local;
    return applies ? calibration.rows : Range{};
  }

  AttentionInput InputOf(const Call& call, const Segment& segment, const AttentionTile& tile) const {
    const PackedBatch& batch = call.batch;
    const int sequence = tile.sequence;
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
    input.window = batch.neighbor_window[sequence];
    if (!batch.chunk.empty()) input.chunk = batch.chunk[sequence];
    if (tile.calibrated) {
      const SequenceCalibration& calibration = batch.calibration[sequence];
      input.baskets = {.size = calibration.basket, .strength = calibration.strength, .apart = calibration.apart};
    }
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

  // Divides spans into ranges of about equal numbers of rows, each of which takes a millisecond or so.
  static std::vector<Range> SpanChunks(const std::vector<Range>& spans) {
    constexpr int64_t kRows = 4096;
    std::vector<Range> chunks;
    int64_t rows = kRows;
    for (int32_t i = 0; i < std::ssize(spans); ++i) {
      if (rows >= kRows) {
        chunks.push_back({i, i});
        rows = 0;
      }
      rows += spans[static_cast<size_t>(i)].size();
      chunks.back().end = i + 1;
    }
    return chunks;
  }

  // Returns the mean over each span. `spans` cover the first `rows` rows.
  VectorBlock PoolSpans(const Call& call, const std::vector<Range>& spans, int rows) const {
    VectorBlock block{.rows = static_cast<int>(spans.size()), .width = width_};
    block.values.resize(spans.size() * static_cast<size_t>(width_));
    const Rows out = BatchRows(call, schedule_.output, 0);
    if (program_.final_norm_bias) {
      kernels_.layer_norm(out, {}, out, rows, width_, program_.final_norm.data, program_.final_norm_bias.data,
                          program_.final_norm_epsilon);
    } else if (program_.final_norm) {
      kernels_.rms_norm(out, out, rows, width_, program_.final_norm.data, program_.final_norm_epsilon);
    }
    // Spans may overlap, so that their means take longer than the layers.
    const std::vector<Range> chunks = SpanChunks(spans);
    call.ParallelFor(static_cast<int>(chunks.size()), [&](int chunk) {
      for (auto i = static_cast<size_t>(chunks[chunk].start); i < static_cast<size_t>(chunks[chunk].end); ++i) {
        kernels_.mean(out.from(spans[i].start), spans[i].size(), width_, block.values.data() + i * width_);
      }
    });
    return block;
  }

  VectorBlock RunDense(const Call& call, const DenseStep& step, VectorBlock& in) const {
    const int width = step.weights.outputs;
    VectorBlock out{.rows = in.rows, .width = width};
    out.values.resize(static_cast<size_t>(in.rows) * width);
    const auto view = [](VectorBlock& block) {
      return Rows{reinterpret_cast<std::byte*>(block.values.data()), block.width * SizeOf(Element::kFloat32)};
    };
    const std::vector<Range> chunks = Chunks({0, in.rows}, kChunkRows);
    call.leader.ParallelFor(static_cast<int>(chunks.size()), [&](int i) {
      const Rows rows = view(in).from(chunks[i].start);
      kernels_.multiply_float32(step.weights, nullptr, {.data = rows.data, .stride = rows.stride}, chunks[i].size(), 0,
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
  const Kernels& kernels_;
  const bool streamed_;
  const std::function<void(double)> on_progress_;  // Only if streamed.
  const int width_;                                // Width of hidden states.
  const std::vector<double> local_frequencies_;
  int smallest_head_ = kMaxHeadDim;
  // Immutable, except for the panels if streamed, which only the holder of `streaming_` accesses.
  Schedule schedule_;
  Program program_;  // The program without its layers.
  std::vector<DenseStep> dense_;
  RotaryTableCache local_tables_;
  std::mutex streaming_;
  std::vector<AlignedBuffer> spare_;  // Only if streamed, for the holder of `streaming_`.
  PerThread<Workspace> workspaces_;
  Pool<BatchMemory> memories_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Encoder>> MakeCpuEncoder(Program program, Precision precision, const Kernels& kernels,
                                                        const PackingOptions& packing) {
  if (precision == Precision::kFloat16) {
    return PrecisionUnavailable(PrecisionName(precision), "fp16 is for CUDA; use bf16 or fp32");
  }
  RETURN_IF_ERROR(CheckAttention(program));
  if (program.widths[program.output] != program.word.columns) {
    return absl::UnimplementedError(
        absl::StrCat("layers that turn ", program.word.columns, " columns into ", program.widths[program.output]));
  }
  auto encoder = std::make_unique<CpuEncoder>(std::move(program), precision, kernels, packing);
  if (!packing.streamed) {
    RETURN_IF_ERROR(encoder->PackWeights(packing));
  }
  return encoder;
}

}  // namespace longembed
