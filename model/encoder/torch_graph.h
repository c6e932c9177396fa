// Reads forward() of a layer of an exported graph as a list of calls of the layer's modules and additions. Includes
// torch, so for use within model/encoder only.
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
  bool biased = false;  // Biased by distance: the part has `bias` [heads, 2 max_distance + 1].
  bool packed = true;   // Whether AttendPacked (torch_attention.h) supports it.
};

// A call value[out] = part(value[in]...), or without a part, the sum of two values.
struct PartCall {
  std::optional<torch::jit::Module> part;
  std::string kind;                         // ClassOf(part) if CheckKnownPart accepts it; else empty.
  std::optional<AttentionHeads> attention;  // Set if the module's class is attention to all tokens.
  std::vector<size_t> in;
  size_t out = 0;
  // Whether in[0] may be overwritten: no other call reads it, and it is neither an argument nor the result of
  // forward().
  bool only_reader = false;
};

// The calls of a layer. Values are numbered: first the arguments of forward(), then the results of calls. Each is
// written once.
struct LayerCalls {
  std::vector<PartCall> calls;
  size_t values = 0;
  size_t result = 0;
};

// Reads the calls of a layer's forward(). Errors: UNIMPLEMENTED with the operation if the layer does anything besides
// calls and additions. Throws torch's exceptions.
absl::StatusOr<LayerCalls> ReadLayerCalls(const torch::jit::Module& layer);

// Returns the exporter's name for the module's class, such as "Linear".
std::string ClassOf(const torch::jit::Module& module);

// Checks that a kernel can replace the part: its class has a known name, and it has no weight, setting or part that the
// known class does not have. Errors: UNIMPLEMENTED with what is unknown.
absl::Status CheckKnownPart(const torch::jit::Module& part);

// Returns UNIMPLEMENTED: "the graph holds WHAT, for which there is no kernel".
absl::Status NoKernelFor(const std::string& what);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_GRAPH_H_
