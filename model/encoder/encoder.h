// The interface of encoders, which compute the vectors of a batch of sequences. It hides the engine that runs the
// network. load_encoder.h creates an encoder.
//
//   Team team;
//   Team::Leader leader(team);
//   std::vector<const Sequence*> batch = {&first, &second};
//   absl::StatusOr<VectorBlock> vectors = encoder.Encode(Pack(batch), leader, [] { return false; });
#ifndef LONGEMBED_MODEL_ENCODER_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_ENCODER_H_

#include <span>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "model/encoder/packed_batch.h"
#include "model/encoder/precision.h"
#include "model/encoder/team.h"
#include "model/vector/sparse.h"

namespace longembed {

// Vectors as row-major [rows, width], and sparse vectors.
struct VectorBlock {
  int rows = 0;
  int width = 0;
  std::vector<float> values;
  std::vector<SparseVector> sparse;

  std::span<const float> row(int i) const {
    return std::span(values).subspan(static_cast<size_t>(i) * width, static_cast<size_t>(width));
  }
};

// An encoder. Multiple threads can call the methods of one Encoder without external synchronization.
class Encoder {
 public:
  virtual ~Encoder() = default;

  // Returns one vector per span of the batch, not normalized, in the order of the spans. An encoder with a sparse head
  // (sparse_encoder.h) returns the sparse vectors of the sequences in `batch.sparse` instead of vectors for the spans
  // of their tokens. `leader` must belong to the calling thread; helpers may share the work.
  //
  // `is_cancelled` is called on the calling thread: between layers, and by the native kernels every few milliseconds
  // within a layer. Once it returns true, the batch ends with CANCELLED. Other errors: RESOURCE_EXHAUSTED (out of
  // memory; a smaller batch may work), INTERNAL.
  virtual absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                             absl::FunctionRef<bool()> is_cancelled) = 0;

  // Returns whether Encode shares work with the leader's helpers.
  virtual bool uses_helpers() const { return false; }

  virtual int hidden_size() const = 0;  // Number of components of a vector.

  // Returns the name of the device: "cpu", "cuda:0".
  virtual std::string device() const = 0;

  virtual Precision precision() const { return Precision::kFloat32; }

  // Returns the name of the engine: "native" for this project's kernels, "torchscript" for LibTorch.
  virtual std::string engine() const = 0;

  // Returns which of this project's kernels are used: the instruction set on a CPU ("avx2-vnni", cpu/kernels.h),
  // "nvrtc" if a GPU runs cuda/fused_kernels.cu between LibTorch's matrix products, or "" if none.
  virtual std::string kernels() const { return ""; }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_ENCODER_H_
