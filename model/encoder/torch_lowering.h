// From a model directory's TorchScript graph to a Program. Includes torch; for model/encoder's own use.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_LOWERING_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_LOWERING_H_

#include <torch/script.h>

#include <memory>

#include "absl/status/statusor.h"
#include "model/encoder/mapped_file.h"
#include "model/encoder/program.h"

namespace longembed {

// The exporter keeps each part of a network a module of a known class (model/export/graph.py, rotary_graph.py); a
// layer's forward() calls parts and adds (torch_graph.h). The program shares the matrices of the linear layers, which
// are pages of `file` if there is one, and copies the rest. Errors: UNIMPLEMENTED when the graph holds anything else,
// naming it; such a graph runs as it is. Throws what torch throws.
absl::StatusOr<Program> LowerToProgram(const torch::jit::Module& module,
                                       const std::shared_ptr<const MappedFile>& file = nullptr);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_LOWERING_H_
