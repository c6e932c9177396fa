// The positions method that one sequence gets, with every number that an extension left to the sequence's length. Pure
// functions: any thread.
#ifndef LONGEMBED_MODEL_PLAN_METHOD_H_
#define LONGEMBED_MODEL_PLAN_METHOD_H_

#include <cstdint>
#include <vector>

#include "model/manifest/manifest.h"
#include "model/plan/extension.h"

namespace longembed {

enum class MethodKind {
  kPlain,
  kGrouped,
  kRecurrent,
  kInterpolation,
  kNtk,
  kNtkDynamic,
  kNtkByParts,
  kYarn,
  kSelfExtend,
};

// A plain value. What a kind has no use for keeps its default.
struct Method {
  MethodKind kind = MethodKind::kPlain;
  double factor = 1;             // s.
  double base = 0;               // The rotary base in effect (NTK kinds).
  double beta_fast = 32;         // By-parts kinds.
  double beta_slow = 1;          // By-parts kinds.
  int64_t group = 1;             // SelfExtend: g.
  int64_t neighbour_window = 0;  // SelfExtend: w.
  bool resonance = false;
  double query_scale = 1;  // Attention log-scaling.
};

// For a sequence of `n` tokens, n <= SequenceCapacity, under a checked extension. An adaptive factor is max(1, n / Lo),
// rounded up for grouped positions, so that a sequence within Lo stays plain; SelfExtend's are those of LongEmbed.
Method MethodFor(const ModelManifest& model, const Extension& extension, int64_t n);

// For the plain path: nothing was asked for, or the input is short.
Method PlainMethod();

// Rows of the position table for each token of a sequence (APE): real-valued, the table's stride included.
std::vector<float> TablePositions(const ModelManifest& model, const Method& method, int64_t n);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHOD_H_
