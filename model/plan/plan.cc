#include "model/plan/plan.h"

namespace longembed {

int64_t Plan::run_tokens() const {
  int64_t sum = 0;
  for (const PlannedSequence& planned : sequences) sum += planned.tokens;
  return sum;
}

int64_t Plan::span_tokens() const {
  int64_t sum = 0;
  for (const Range span : spans) sum += span.size();
  return sum;
}

}  // namespace longembed
