// Sequences in, vectors out. The interface hides what runs the network; load_encoder.h makes one.
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

// Row-major float32 [rows, width], and sparse vectors.
struct VectorBlock {
  int rows = 0;
  int width = 0;
  std::vector<float> values;
  std::vector<SparseVector> sparse;

  std::span<const float> row(int i) const {
    return std::span(values).subspan(static_cast<size_t>(i) * width, static_cast<size_t>(width));
  }
};

// Multiple threads can call the methods of one Encoder without external synchronization.
class Encoder {
 public:
  virtual ~Encoder() = default;

  // One un-normalized vector a span of the batch, in the batch's order of spans. An encoder with a sparse head
  // (sparse_encoder.h) gives sparse vectors of the batch's `sparse`, in their order, in place of the spans of their
  // tokens. `leader` is the calling thread's, for work that helpers may share. `is_cancelled` is asked between layers,
  // and by our kernels every few milliseconds within one, on the calling thread; once it returns true the
  // batch ends with CANCELLED. Other errors: RESOURCE_EXHAUSTED (out of memory; a smaller batch may work),
  // INTERNAL.
  virtual absl::StatusOr<VectorBlock> Encode(const PackedBatch& batch, Team::Leader& leader,
                                             absl::FunctionRef<bool()> is_cancelled) = 0;

  // Whether Encode gives a leader's helpers anything to do.
  virtual bool uses_helpers() const { return false; }

  virtual int hidden_size() const = 0;  // Components of a vector.

  // The device's name: "cpu", "cuda:0".
  virtual std::string device() const = 0;

  virtual Precision precision() const { return Precision::kFloat32; }

  // The engine's name: "native" for our own kernels, "torchscript" for LibTorch.
  virtual std::string engine() const = 0;

  // Of our own kernels: the instruction set ("avx2-vnni", cpu/kernels.h), or "nvrtc" where a GPU runs those of
  // cuda/fused_kernels.cu between LibTorch's products; empty without any.
  virtual std::string kernels() const { return ""; }
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_ENCODER_H_
