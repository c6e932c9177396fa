#include "server/admission/admission.h"
#include "server/admission/ledger.h"
#include "server/batching/scheduler.h"
#include "server/core/embed_call.h"
#include "server/core/model_choice.h"
#include "server/telemetry/log.h"
#include "server/telemetry/request_trace.h"

namespace longembed {

absl::Status Admit(ModelBudget& model, const Clock& clock, int64_t tokens, absl::Duration work,
                   JobOptions& job_options) {
#include "examples/server/admission/admission.h"
  return status;
}

void HoldBytes(int64_t bytes) {
#include "examples/server/admission/ledger.h"
}

void Schedule(Encoder& encoder, const std::vector<Sequence>& sequences, const LaneOptions& lane_options,
              const JobOptions& job_options, SchedulerObserver* observer, const Clock& clock) {
#include "examples/server/batching/scheduler.h"
}

void Embed(ServedModel& model, WorkerPool& pool, const Clock& clock, const EmbedParams& params) {
#include "examples/server/core/embed_call.h"
}

void Choose(const ModelRegistry& models, const Profiles& profiles, PlanOptions& plan) {
#include "examples/server/core/model_choice.h"
}

void Trace(const CallContext& call, absl::Time now) {
#include "examples/server/telemetry/request_trace.h"
}

void LogEvent(const std::string& name) {
#include "examples/server/telemetry/log.h"
}

}  // namespace longembed
