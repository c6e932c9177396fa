// Every positions method, in the order of the table in model/plan/README.md.
#ifndef LONGEMBED_MODEL_PLAN_METHODS_ALL_H_
#define LONGEMBED_MODEL_PLAN_METHODS_ALL_H_

#include <cstddef>
#include <utility>
#include <variant>

#include "model/plan/methods/dual_chunk.h"
#include "model/plan/methods/grouped.h"
#include "model/plan/methods/interpolation.h"
#include "model/plan/methods/ntk.h"
#include "model/plan/methods/ntk_by_parts.h"
#include "model/plan/methods/ntk_dynamic.h"
#include "model/plan/methods/plain.h"
#include "model/plan/methods/recurrent.h"
#include "model/plan/methods/self_extend.h"
#include "model/plan/methods/shifted_rotary.h"
#include "model/plan/methods/yarn.h"

namespace longembed {

using PositionsMethod = std::variant<PlainPositions,  // No method.
                                     Grouped,         //
                                     Recurrent,       //
                                     Interpolation,   //
                                     Ntk,             //
                                     NtkDynamic,      //
                                     NtkByParts,      //
                                     Yarn,            //
                                     SelfExtend,      //
                                     ShiftedRotary,   //
                                     DualChunk>;

// Calls visit(method) with a default instance of each method except PlainPositions.
template <typename Visitor>
void ForEachMethod(Visitor visit) {
  const auto all = [&visit]<size_t... kIndex>(std::index_sequence<kIndex...>) {
    (visit(std::variant_alternative_t<kIndex + 1, PositionsMethod>()), ...);
  };
  all(std::make_index_sequence<std::variant_size_v<PositionsMethod> - 1>());
}

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_METHODS_ALL_H_
