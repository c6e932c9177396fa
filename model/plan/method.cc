#include "model/plan/method.h"

#include <algorithm>
#include <cmath>

namespace longembed {
namespace {

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// b' = b * s^(d / (d - 2)): "NTK-aware" scaled RoPE.
double NtkBase(const ModelManifest& model, double factor) {
  const double d = model.rotary_dim;
  return model.rotary_base * std::pow(factor, d / (d - 2));
}

// LongEmbed's settings in closed form: what is left out follows from the length.
Method SelfExtendFor(const ModelManifest& model, const SelfExtend& asked, int64_t n) {
  const int64_t window = model.trained_window;
  const bool adaptive = !asked.group.has_value() || !asked.neighbour_window.has_value();
  if (adaptive && n <= window) return PlainMethod();
  Method method{.kind = MethodKind::kSelfExtend};
  if (!adaptive) {
    method.group = *asked.group;
    method.neighbour_window = *asked.neighbour_window;
  } else if (asked.group.has_value()) {
    method.group = *asked.group;
    method.neighbour_window = (method.group * window - n) / (method.group - 1);
  } else if (asked.neighbour_window.has_value()) {
    method.neighbour_window = *asked.neighbour_window;
    method.group = CeilDivide(n - method.neighbour_window, window - method.neighbour_window);
  } else {
    const int64_t s = CeilDivide(n, window);
    method.group = s + 1;
    method.neighbour_window = window / s;
  }
  // Every token is every other's neighbour.
  return n <= method.neighbour_window ? PlainMethod() : method;
}

struct Resolver {
  const ModelManifest& model;
  int64_t n;

  double Adaptive(const std::optional<double>& factor) const {
    return factor.value_or(std::max(1.0, static_cast<double>(n) / model.trained_window));
  }
  // A factor of 1 is the identity, whatever the method.
  Method Scaling(MethodKind kind, double factor) const {
    return factor == 1 ? PlainMethod() : Method{.kind = kind, .factor = factor};
  }

  Method operator()(const PlainPositions&) const { return PlainMethod(); }
  Method operator()(const Grouped& m) const {
    return Scaling(MethodKind::kGrouped, static_cast<double>(m.factor.value_or(CeilDivide(n, model.trained_window))));
  }
  Method operator()(const Recurrent&) const {
    return n <= model.trained_window ? PlainMethod() : Method{.kind = MethodKind::kRecurrent};
  }
  Method operator()(const Interpolation& m) const { return Scaling(MethodKind::kInterpolation, Adaptive(m.factor)); }
  Method operator()(const Ntk& m) const {
    if (m.base.has_value()) {
      return *m.base == model.rotary_base ? PlainMethod() : Method{.kind = MethodKind::kNtk, .base = *m.base};
    }
    Method method = Scaling(MethodKind::kNtk, *m.factor);
    method.base = NtkBase(model, *m.factor);
    return method;
  }
  Method operator()(const NtkDynamic& m) const {
    if (n <= model.trained_window) return PlainMethod();
    const double s = m.factor * static_cast<double>(n) / model.trained_window - (m.factor - 1);
    return {.kind = MethodKind::kNtkDynamic, .factor = s, .base = NtkBase(model, s)};
  }
  Method operator()(const NtkByParts& m) const {
    Method method = Scaling(MethodKind::kNtkByParts, Adaptive(m.factor));
    method.beta_fast = m.beta_fast;
    method.beta_slow = m.beta_slow;
    return method;
  }
  Method operator()(const Yarn& m) const {
    Method method = Scaling(MethodKind::kYarn, Adaptive(m.factor));
    method.beta_fast = m.beta_fast;
    method.beta_slow = m.beta_slow;
    return method;
  }
  Method operator()(const SelfExtend& m) const { return SelfExtendFor(model, m, n); }
};

}  // namespace

Method PlainMethod() { return {}; }

Method MethodFor(const ModelManifest& model, const Extension& extension, int64_t n) {
  Method method = std::visit(Resolver{model, n}, extension.positions);
  method.resonance = extension.resonance;
  if (extension.attention_log_scaling && n > model.trained_window) {
    method.query_scale = std::log(static_cast<double>(n)) / std::log(static_cast<double>(model.trained_window));
  }
  return method;
}

std::vector<float> TablePositions(const ModelManifest& model, const Method& method, int64_t n) {
  // A tuned table has `stride` rows a trained position. Plain sequences beyond Lo use every row of it, which is what it
  // was tuned for; within Lo every stride-th, which is what it was made from.
  const bool every_row = method.kind == MethodKind::kPlain && n > model.trained_window;
  const int64_t stride = every_row ? 1 : model.position_stride;
  std::vector<float> positions(static_cast<size_t>(n));
  for (int64_t p = 0; p < n; ++p) {
    double position = static_cast<double>(p);
    if (method.kind == MethodKind::kGrouped) position = std::floor(position / method.factor);
    if (method.kind == MethodKind::kRecurrent) position = static_cast<double>(p % model.trained_window);
    if (method.kind == MethodKind::kInterpolation) position /= method.factor;
    positions[static_cast<size_t>(p)] = static_cast<float>(position * static_cast<double>(stride));
  }
  return positions;
}

}  // namespace longembed
