// Reads the forward() of a layer of an exported graph: calls of the layer's modules, and sums. Includes torch; internal
// to model/encoder.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_GRAPH_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_GRAPH_H_

#include <torch/script.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace longembed {

struct AttentionHeads {
  int64_t heads = 0;
  int64_t key_value_heads = 0;
  bool causal = false;
  bool biased = false;  // By distance: the part's `bias` [heads, 2 farthest + 1].
  bool packed = true;   // AttendPacked (torch_attention.h) computes it.
};

// value[out] = part(value[in]...), or without a part the sum of two values.
struct PartCall {
  std::optional<torch::jit::Module> part;
  std::string kind;                         // ClassOf(part) if CheckKnownPart knows it; else empty.
  std::optional<AttentionHeads> attention;  // Set if the module's class is attention to all tokens.
  std::vector<size_t> in;
  size_t out = 0;
  bool only_reader = false;  // No other call reads in[0], nor does the layer return it: it may be overwritten.
};

// Values are numbered: first forward()'s arguments, then the results of calls, each written once.
struct LayerCalls {
  std::vector<PartCall> calls;
  size_t values = 0;
  size_t result = 0;
};

// Errors: UNIMPLEMENTED when the layer does anything else, naming it. Throws what torch throws.
absl::StatusOr<LayerCalls> ReadLayerCalls(const torch::jit::Module& layer);

// "Linear", as the exporter names the class.
std::string ClassOf(const torch::jit::Module& module);

// Whether a kernel computes what the part does: its class is known by name, and it has no weight, setting or part
// beyond those that the class is known with. Errors: UNIMPLEMENTED, naming what it has.
absl::Status CheckKnownPart(const torch::jit::Module& part);

// UNIMPLEMENTED: "the graph holds WHAT, for which there is no kernel".
absl::Status NoKernelFor(const std::string& what);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_GRAPH_H_
