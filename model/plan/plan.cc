#include "model/plan/plan.h"

namespace longembed {

int64_t Plan::run_tokens() const {
  int64_t sum = 0;
  for (const PlannedSequence& planned : sequences) sum += planned.tokens;
  return sum;
}

}  // namespace longembed
