// Loads a TorchScript archive whose tensors are mapped pages of the file. torch::jit::load would read all of them into
// memory. Includes torch, so for use within model/encoder only.
#ifndef LONGEMBED_MODEL_ENCODER_TORCH_ARCHIVE_H_
#define LONGEMBED_MODEL_ENCODER_TORCH_ARCHIVE_H_

#include <torch/script.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "model/encoder/mapped_file.h"

namespace longembed {

struct MappedModule {
  torch::jit::Module module;  // Its tensors are read-only. They keep the file mapped.
  std::shared_ptr<const MappedFile> file;
  std::string contract;  // The exporter's description of the graph; may be empty.
};

// Loads a module that torch.jit.save or the exporter wrote. Errors: those of MappedFile::Open. Throws torch's
// exceptions if the file is not such an archive.
absl::StatusOr<MappedModule> LoadMapped(const std::string& path);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_TORCH_ARCHIVE_H_
