#include "server/rpc/exchange.h"

#include <algorithm>
#include <new>
#include <utility>

#include "server/errors/errors.h"
#include "server/errors/within_memory.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

double GrowthOf(const Codec& codec) {
  constexpr int64_t kWireBytes = 1 << 20;
  return static_cast<double>(codec.MostSerializedBytes(kWireBytes)) / kWireBytes;
}

}  // namespace

Exchange::Exchange(const ApiMethod& method, const CallRecord& record, const HostContext& host,
                   std::unique_ptr<Charge> memory, bool may_wait, Codec& codec)
    : host_(host),
      codec_(codec),
      memory_(std::move(memory)),
      trace_(record.TraceRequest()),
      call_(record.ContextFor(*memory_, may_wait, GrowthOf(codec), trace_.get())),
      arena_(std::make_unique<google::protobuf::Arena>()),
      request_(method.request->New(arena_.get())),
      response_(method.response->New(arena_.get())),
      operation_(method.make(call_, *request_, *response_)) {}

void Exchange::Start(grpc::ByteBuffer bytes, Done done) {
  done_ = std::move(done);
  const auto finish = [this](const absl::Status& status) { Finish(status); };
  try {
    const absl::Status parsed = WithinMemory([&] { return Parse(bytes); });
    bytes.Clear();
    if (parsed.ok()) {
      operation_->Start(finish);
      expected_bytes_ = operation_->expected_answer_bytes();
    } else {
      operation_->Reject(parsed, finish);
    }
  } catch (const std::bad_alloc&) {  // Thrown while the request was checked; nothing runs yet.
    Finish(ServerOutOfMemory());
  }
  Release();
}

absl::Status Exchange::Parse(grpc::ByteBuffer& bytes) {
  const auto size = static_cast<int64_t>(bytes.Length());
  if (const int64_t parsing = codec_.ParsingBytes(bytes); parsing > 0) {
    RETURN_IF_ERROR(memory_->Hold(Memory::kRequests, size + parsing));
  }
  const absl::Status status = WithinMemory([&] { return codec_.Parse(bytes, host_.max_request_bytes, *request_); });
  if (!status.ok()) ReadScalars(bytes);
  // The arena holds everything except strings, which are at most as long as the bytes.
  request_space_ = static_cast<int64_t>(arena_->SpaceAllocated());
  const absl::Status held = memory_->Hold(Memory::kRequests, size + request_space_);
  return status.ok() ? held : status;
}

void Exchange::ReadScalars(const grpc::ByteBuffer& bytes) {
  try {
    codec_.ReadScalars(bytes, *request_);
  } catch (const std::bad_alloc&) {  // A partly read message would be misleading: an id without its more_parts.
    request_->Clear();
  }
}

void Exchange::Finish(absl::Status status) {
  has_answer_ = status.ok() && operation_->has_response();
  if (has_answer_) status = WithinMemory([this] { return Serialize(); });
  if (!status.ok()) {
    has_answer_ = false;
    answer_.Clear();
    answer_bytes_ = 0;
  }
  status_ = std::move(status);
  model_ = operation_->model();
  Done done = std::move(done_);
  Release();
  std::move(done)();  // `done` may hold the last reference to this exchange.
}

absl::Status Exchange::Serialize() {
  const auto size = static_cast<int64_t>(response_->ByteSizeLong());
  if (size > host_.max_response_bytes) return AnswerTooLarge("", size, host_.max_response_bytes);
  memory_->Correct(Memory::kPlans, 0);
  // The message takes what the arena has grown by, and its strings, which take no more than their serialized bytes.
  const int64_t message = static_cast<int64_t>(arena_->SpaceAllocated()) - request_space_ + size;
  const int64_t text = std::min(codec_.MostSerializedBytes(size), host_.max_response_bytes + Codec::kMaxOvershoot);
  if (text > size) {
    RETURN_IF_ERROR(memory_->Hold(Memory::kAnswers, message + text));
  } else {  // The operation has found room for the message and its wire format.
    memory_->Correct(Memory::kAnswers, message + size);
  }
  RETURN_IF_ERROR(codec_.Serialize(*request_, *response_, host_.max_response_bytes, answer_));
  answer_bytes_ = static_cast<int64_t>(answer_.Length());
  headers_ = operation_->headers();
  return absl::OkStatus();
}

void Exchange::Release() {
  if (--users_ > 0) return;
  arena_ = nullptr;
  memory_->Correct(Memory::kRequests, 0);
  memory_->Correct(Memory::kPlans, 0);
  memory_->Correct(Memory::kAnswers, answer_bytes_);
}

}  // namespace longembed
