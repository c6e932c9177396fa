// Code that NTK-by-parts and YaRN share (arXiv 2309.00071).
#ifndef LONGEMBED_MODEL_PLAN_METHODS_BY_PARTS_H_
#define LONGEMBED_MODEL_PLAN_METHODS_BY_PARTS_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "model/manifest/manifest.h"
#include "model/plan/methods/positions.h"

namespace longembed {

struct ByParts {
  const char* method;
  std::optional<double> factor;
  double beta_fast;
  double beta_slow;
};

absl::Status CheckByParts(const ModelManifest& model, const ByParts& parts);
Positions ResolveByParts(const ModelManifest& model, const ByParts& parts, int64_t n);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_BY_PARTS_H_
