// An EmbeddingService that answers Embed and EmbedStream with statuses from a script, and then with vectors that show
// the length of the text.
#ifndef LONGEMBED_TESTS_TESTING_SCRIPTED_SERVICE_H_
#define LONGEMBED_TESTS_TESTING_SCRIPTED_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "google/rpc/error_details.pb.h"
#include "longembed/v1/embedding.grpc.pb.h"
#include "system/mutex.h"

namespace longembed {

// Serves on a free loopback port from construction to destruction.
class ScriptedService final : public v1::EmbeddingService::Service {
 public:
  struct Failure {
    grpc::Status status;
    std::string pushback_ms;  // Sent as trailing metadata unless empty.
  };

  ScriptedService() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~ScriptedService() override { server_->Shutdown(); }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }

  void FailNext(Failure failure) {
    const MutexLock lock(mutex_);
    failures_.push_back(std::move(failure));
  }
  int calls() const {
    const MutexLock lock(mutex_);
    return calls_;
  }
  std::string authorization() const {
    const MutexLock lock(mutex_);
    return authorization_;
  }

  // Returns the options of the latest stream.
  v1::EmbedOptions options() const {
    const MutexLock lock(mutex_);
    return options_;
  }

  grpc::Status Embed(grpc::ServerContext* context, const v1::EmbedRequest* request,
                     v1::EmbedResponse* response) override {
    if (grpc::Status status = NextStatus(*context); !status.ok()) return status;
    if (!reads_) return WaitForCancellation(*context);
    for (const v1::Input& input : request->inputs()) *response->add_results() = Result(input.text());
    return grpc::Status::OK;
  }

  // Sets the answer of ListModels. REQUIRES: called before any call.
  void set_models(v1::ListModelsResponse models) { models_ = std::move(models); }
  grpc::Status ListModels(grpc::ServerContext*, const v1::ListModelsRequest*,
                          v1::ListModelsResponse* response) override {
    *response = models_;
    return grpc::Status::OK;
  }

  // Makes the next stream break with UNAVAILABLE after `answers` answers. Inputs sent after those are lost. If
  // this function is used n times, the next n streams break.
  void BreakNextStreamAfter(int answers) {
    const MutexLock lock(mutex_);
    breaks_.push_back(answers);
  }
  // Makes every stream end with `status` after `answers` answers, ignoring inputs sent since. The server ends a stream
  // that is too old in the same way.
  void EndStreamsAfter(int answers, grpc::Status status) {
    const MutexLock lock(mutex_);
    end_after_ = answers;
    end_status_ = std::move(status);
  }
  // Makes answers come in pairs, with the second one first.
  void AnswerInDisorder() { disorder_ = true; }
  // Delays the answer to the first input of each stream until `inputs` inputs or all of them are read. All other inputs
  // are answered at once.
  void HoldFirstUntil(int inputs) { hold_first_until_ = inputs; }
  // Makes longer texts on streams fail, as soon as their length exceeds `bytes`.
  void set_max_text_bytes(size_t bytes) { max_text_bytes_ = bytes; }
  // Makes the next `inputs` answers on streams refusals: RESOURCE_EXHAUSTED, with a retry delay of `delay_ms`.
  void RefuseInputs(int inputs, int delay_ms) {
    refusals_ = inputs;
    delay_ms_ = delay_ms;
  }
  // Makes the next streams answer with these recipes, one each; the last one stays.
  void AnswerWithRecipes(std::deque<std::string> recipes) {
    const MutexLock lock(mutex_);
    recipes_ = std::move(recipes);
  }
  // Stops reading streams and answering Embed, until the client cancels.
  void StopReading() { reads_ = false; }
  // Returns the number of inputs read from streams.
  int inputs() const { return inputs_; }
  size_t largest_message() const { return largest_message_; }

  grpc::Status EmbedStream(grpc::ServerContext* context,
                           grpc::ServerReaderWriter<v1::EmbedStreamResponse, v1::EmbedStreamRequest>* stream) override {
    if (grpc::Status status = NextStatus(*context); !status.ok()) return status;
    if (!reads_) return WaitForCancellation(*context);
    int left = NextBreak();
    const auto [end_after, end_status] = End();
    const std::string recipe = NextRecipe();
    int answers = 0, inputs = 0;
    std::vector<v1::EmbedStreamResponse> held;
    std::string text;
    for (v1::EmbedStreamRequest request; answers != end_after && stream->Read(&request);) {
      largest_message_ = std::max(largest_message_.load(), request.ByteSizeLong());
      if (request.has_options()) NoteOptions(request.options());
      const bool was_too_large = text.size() > max_text_bytes_;
      text += request.input().text();
      if (!was_too_large && text.size() > max_text_bytes_) stream->Write(TooLarge(request.id()));
      if (request.more_parts()) continue;
      if (text.size() > max_text_bytes_) {
        text.clear();
        continue;
      }
      held.emplace_back().set_id(request.id());
      held.back().set_recipe(recipe);
      *held.back().mutable_result() = refusals_-- > 0 ? Refusal() : Result(text);
      text.clear();
      ++inputs_;
      const size_t kept = ++inputs < hold_first_until_ ? 1 : 0;
      if (disorder_ && held.size() < 2) continue;
      for (; held.size() > kept && answers != end_after; held.pop_back(), ++answers) {
        if (left-- == 0) return {grpc::StatusCode::UNAVAILABLE, "the stream was to break"};
        stream->Write(held.back());
      }
    }
    if (answers == end_after) return end_status;
    for (; !held.empty(); held.pop_back()) stream->Write(held.back());
    return grpc::Status::OK;
  }

 private:
  grpc::Status NextStatus(grpc::ServerContext& context) {
    const MutexLock lock(mutex_);
    ++calls_;
    const auto found = context.client_metadata().find("authorization");
    if (found != context.client_metadata().end()) authorization_.assign(found->second.data(), found->second.size());
    if (failures_.empty()) return grpc::Status::OK;
    const Failure failure = failures_.front();
    failures_.pop_front();
    if (!failure.pushback_ms.empty()) context.AddTrailingMetadata("grpc-retry-pushback-ms", failure.pushback_ms);
    return failure.status;
  }

  void NoteOptions(const v1::EmbedOptions& options) {
    const MutexLock lock(mutex_);
    options_ = options;
  }

  std::string NextRecipe() {
    const MutexLock lock(mutex_);
    const std::string recipe = recipes_.front();
    if (recipes_.size() > 1) recipes_.pop_front();
    return recipe;
  }

  int NextBreak() {
    const MutexLock lock(mutex_);
    if (breaks_.empty()) return -1;
    const int answers = breaks_.front();
    breaks_.pop_front();
    return answers;
  }

  std::pair<int, grpc::Status> End() const {
    const MutexLock lock(mutex_);
    return {end_after_, end_status_};
  }

  static grpc::Status WaitForCancellation(const grpc::ServerContext& context) {
    while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return grpc::Status::CANCELLED;
  }

  static v1::EmbedStreamResponse TooLarge(const std::string& id) {
    v1::EmbedStreamResponse answer;
    answer.set_id(id);
    answer.mutable_result()->mutable_error()->set_code(grpc::INVALID_ARGUMENT);
    answer.mutable_result()->mutable_error()->set_message("too large");
    return answer;
  }

  v1::EmbedResult Refusal() const {
    v1::EmbedResult result;
    result.mutable_error()->set_code(grpc::RESOURCE_EXHAUSTED);
    result.mutable_error()->set_message("no room");
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_nanos(delay_ms_ * 1'000'000);
    result.mutable_error()->add_details()->PackFrom(retry);
    return result;
  }

  static v1::EmbedResult Result(const std::string& text) {
    v1::EmbedResult result;
    if (text == "bad") {
      result.mutable_error()->set_code(grpc::INVALID_ARGUMENT);
      result.mutable_error()->set_message("a \"bad\" text");
      return result;
    }
    result.add_embeddings()->add_values(static_cast<float>(text.size()));
    result.set_tokens(static_cast<uint32_t>(text.size()));
    result.add_sequences()->mutable_content()->set_end(static_cast<uint32_t>(text.size()));
    return result;
  }

  std::atomic<bool> disorder_ = false, reads_ = true;
  std::atomic<int> hold_first_until_ = 0, inputs_ = 0, refusals_ = 0, delay_ms_ = 0;
  std::atomic<size_t> largest_message_ = 0, max_text_bytes_ = std::numeric_limits<size_t>::max();

  v1::ListModelsResponse models_;
  mutable Mutex mutex_;
  std::deque<int> breaks_;
  std::deque<std::string> recipes_ = {""};
  std::deque<Failure> failures_;
  int end_after_ = -1;  // -1 means never.
  grpc::Status end_status_;
  int calls_ = 0;
  std::string authorization_;
  v1::EmbedOptions options_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_TESTING_SCRIPTED_SERVICE_H_
