// An operation that tokenizes but never runs a model. It runs on the worker pool and checks periodically whether it has
// been cancelled.
#ifndef LONGEMBED_SERVER_API_POOLED_OPERATION_H_
#define LONGEMBED_SERVER_API_POOLED_OPERATION_H_

#include <google/protobuf/arena.h>

#include <atomic>
#include <utility>

#include "server/api/api_context.h"
#include "server/core/operation.h"
#include "server/errors/errors.h"
#include "server/errors/within_memory.h"

namespace longembed {

template <typename RequestType, typename ResponseType>
class PooledOperation : public TypedOperation<RequestType, ResponseType> {
 public:
  PooledOperation(const ApiContext& api, const CallContext& call, const RequestType& request, ResponseType& response)
      : TypedOperation<RequestType, ResponseType>(call, request, response), api_(api) {}

  void Start(Operation::Done done) override {
    this->done_ = std::move(done);
    queued_ = api_.clock.Now();
    BeginPhase(this->call_.trace, phase::kTokenizeWait, queued_);
    const absl::Status accepted =
        api_.pool.TryRun([this] { this->End(Run()); }, {.client = this->call_.caller.name,
                                                        .bytes = TextBytes(),
                                                        .time_left = this->call_.deadline - api_.clock.Now()});
    if (!accepted.ok()) this->End(accepted);
  }
  void Cancel() override { cancelled_ = true; }

 protected:
  // Returns the bytes of text to process, which determine how long the operation takes.
  virtual int64_t TextBytes() const = 0;
  // Fills the response. Runs on a thread of the pool.
  virtual absl::Status Answer() = 0;

  absl::Status CheckNotCancelled() const {
    if (cancelled_) return CallCancelled();
    return this->call_.deadline <= api_.clock.Now() ? DeadlineExceeded() : absl::OkStatus();
  }

  // Reserves memory for the answer's present size and `more` bytes. Must be called before the answer grows by about
  // `more` bytes, and finally with 0. Errors: RESOURCE_EXHAUSTED.
  absl::Status HoldAnswer(int64_t more) const {
    const int64_t now = static_cast<int64_t>(this->response_.GetArena()->SpaceAllocated());
    return this->call_.memory.Hold(Memory::kAnswers, now + more);
  }

  const ApiContext& api_;

 private:
  absl::Status Run() {
    const absl::Time started = api_.clock.Now();
    const absl::Duration waited = started - queued_;
    BeginPhase(this->call_.trace, phase::kTokenize, started);
    absl::Status status = CheckNotCancelled();
    if (status.ok()) status = WithinMemory([this] { return Answer(); });
    const absl::StatusOr<ServedModel*> model = api_.models.Find(this->model(), "model");
    if (model.ok()) (*model)->metrics().ObserveTokenizationWait(waited);
    return status;
  }

  absl::Time queued_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_POOLED_OPERATION_H_
