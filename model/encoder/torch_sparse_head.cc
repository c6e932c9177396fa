#include <c10/core/InferenceMode.h>
#include <torch/script.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/encoder/sparse_head.h"
#include "model/encoder/torch_encoder.h"
#include "model/errors/errors.h"

namespace longembed {
namespace {

// Returns a tensor that refers to `values`, which must outlive it.
template <typename T>
at::Tensor View(std::span<const T> values, at::IntArrayRef sizes, at::ScalarType type) {
  return torch::from_blob(const_cast<T*>(values.data()), sizes, type);
}

class TorchSparseHead final : public SparseHead {
 public:
  TorchSparseHead(torch::jit::Module module, c10::Device device, SparseSum sum)
      : module_(std::move(module)), device_(device), sum_(sum) {}

  absl::StatusOr<std::vector<SparseVector>> Run(std::span<const float> hidden, std::span<const int32_t> tokens,
                                                std::span<const int32_t> offsets) override {
    try {
      const c10::InferenceMode inference;
      const auto n = static_cast<int64_t>(tokens.size());
      const at::Tensor rows = View(hidden, {n, static_cast<int64_t>(hidden.size()) / n}, at::kFloat);
      const at::Tensor found = View(offsets, {static_cast<int64_t>(offsets.size())}, at::kInt);
      return ToVectors(module_.forward({rows.to(device_), View(tokens, {n}, at::kInt).to(device_), found}).toTuple());
    } catch (const std::exception& error) {
      return StatusOfException(error);
    }
  }

  SparseSum sum() const override { return sum_; }

 private:
  // Converts the head's result to vectors. The result is counts, int64 [parts], and the concatenated indices (int32)
  // and values (float32) of all parts.
  static std::vector<SparseVector> ToVectors(const c10::intrusive_ptr<c10::ivalue::Tuple>& result) {
    const auto tensor = [&result](size_t i, at::ScalarType type) {
      return result->elements()[i].toTensor().to(at::kCPU, type).contiguous();
    };
    const at::Tensor counts = tensor(0, at::kLong), indices = tensor(1, at::kInt), values = tensor(2, at::kFloat);
    const int32_t* index = indices.data_ptr<int32_t>();
    const float* value = values.data_ptr<float>();
    std::vector<SparseVector> vectors;
    for (int64_t i = 0; i < counts.numel(); ++i) {
      const int64_t count = counts.data_ptr<int64_t>()[i];
      vectors.push_back({.indices = {index, index + count}, .values = {value, value + count}});
      index += count;
      value += count;
    }
    return vectors;
  }

  torch::jit::Module module_;
  const c10::Device device_;
  const SparseSum sum_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SparseHead>> LoadSparseHead(const std::string& directory, const ModelManifest& manifest,
                                                           const std::string& device) {
  const std::string path = absl::StrCat(directory, "/", kSparseHeadFile);
  if (!manifest.file_sha256.contains(kSparseHeadFile)) {
    return ModelDirectoryError(path, "is not among the manifest's files; export the model again");
  }
  try {
    torch::jit::Module module = torch::jit::load(path, c10::Device(device));
    module.eval();
    const SparseSum sum = manifest.sparse_head == SparseHeadKind::kSpladeSum ? SparseSum::kAdd : SparseSum::kMax;
    return std::make_unique<TorchSparseHead>(std::move(module), c10::Device(device), sum);
  } catch (const std::exception& error) {
    return ModelDirectoryError(path, std::string(StatusOfException(error).message()));
  }
}

}  // namespace longembed
