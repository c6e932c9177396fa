// Lowers a model directory's TorchScript graph to a Program. Includes torch, so for use within model/encoder only.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_LOWERING_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_LOWERING_H_

#include <torch/script.h>

#include <memory>

#include "absl/status/statusor.h"
#include "model/encoder/mapped_file.h"
#include "model/encoder/program.h"

namespace longembed {

// Lowers a graph to a Program. In exported graphs, each part of a network is a module of a known class
// (model/export/graph.py, rotary_graph.py), and a layer's forward() only calls parts and adds their results
// (torch_graph.h). The program shares the matrices of the linear layers, which are pages of `file` if there is one, and
// copies the other weights. Errors: UNIMPLEMENTED with the first part or operation that is not supported; LibTorch can
// still run such a graph. Throws torch's exceptions.
absl::StatusOr<Program> LowerToProgram(const torch::jit::Module& module,
                                       const std::shared_ptr<const MappedFile>& file = nullptr);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_LOWERING_H_
