// Loads a server with Embed calls, and prints the results as one JSON object.
//
//   operations_load_client --server HOST:PORT --texts FILE --concurrency 32 --seconds 10     closed loop: capacity
//   operations_load_client --server HOST:PORT --texts FILE --rate 1700 --seconds 60          open loop: overload
//   operations_load_client --server HOST:PORT --texts FILE --history FILE ...                records calls: history.py
//
// One thread sends and receives, and requests are serialized only once, so that the client uses little of the cores
// that it shares with the server. In an open loop, latency counts from the time at which a call was due. Otherwise a
// client that falls behind would make the server look better. SIGINT and SIGTERM stop the sending early; calls in
// progress are waited for. All times are of the monotonic clock.

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <deque>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "longembed/v1/embedding.pb.h"

namespace longembed::load {
namespace {

using nlohmann::json;

constexpr char kMethod[] = "/longembed.v1.EmbeddingService/Embed";
// A closed loop pauses after a failure. Otherwise it would flood a server that refuses at once.
constexpr absl::Duration kPauseAfterFailure = absl::Milliseconds(50);
// With --wait-for-hint, a retry delay makes a caller wait at most this long.
constexpr absl::Duration kMaxHintedPause = absl::Seconds(10);

struct Arguments {
  std::string server = "127.0.0.1:50051", texts_file, prompt_name, api_key_file, tls_root_file, client_certificate_file,
              client_key_file, service_config_file, history_file;
  double rate = 0, seconds = 10, warm_up_seconds = 0, timeout_seconds = 30;
  bool poisson = false, wait_for_hint = false;
  int concurrency = 1, connections = 1, calls_per_connection = 0, max_in_flight = 50000, texts_per_call = 1, calls = 0;
};

volatile std::sig_atomic_t stop_requested = 0;

// Returns the time of the monotonic clock, so that changes of the system clock affect no measurement.
absl::Time Now() { return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch()); }

// Returns the same time on the clock that gRPC's deadlines use.
std::chrono::system_clock::time_point ForGrpc(absl::Time time) {
  return absl::ToChronoTime(absl::Now() + (time - Now()));
}

double Seconds(absl::Time time) { return absl::ToDoubleSeconds(time - absl::UnixEpoch()); }

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(absl::StrCat("cannot read ", path));
  std::ostringstream content;
  content << file.rdbuf();
  return std::move(content).str();
}

std::string FirstLine(const std::string& path) {
  const std::string content = ReadFile(path);
  return content.substr(0, content.find_first_of("\r\n"));
}

std::string CodeName(grpc::StatusCode code) {
  static const char* const kNames[] = {
      "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
      "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
      "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
      "DATA_LOSS", "UNAUTHENTICATED"};
  return code >= 0 && code < static_cast<int>(std::size(kNames)) ? kNames[code] : absl::StrCat("CODE_", code);
}

// ---------------------------------------------------------------------------------------------------------- schedules

class Schedule {
 public:
  virtual ~Schedule() = default;
  // Returns when the next call is due. InfiniteFuture while calls in progress must end first.
  virtual absl::Time Next() const = 0;
  virtual void Sent() = 0;
  // Records that a call ended. The caller pauses this long before its next call.
  virtual void Answered(absl::Duration pause) = 0;
};

class OpenLoop : public Schedule {
 public:
  OpenLoop(double rate, bool poisson, absl::Time start) : rate_(rate), poisson_(poisson), next_(start) {}
  absl::Time Next() const override { return next_; }
  void Sent() override { next_ += absl::Seconds(poisson_ ? absl::Exponential(random_, rate_) : 1 / rate_); }
  void Answered(absl::Duration) override {}

 private:
  const double rate_;
  const bool poisson_;
  absl::Time next_;
  absl::BitGen random_;
};

class ClosedLoop : public Schedule {
 public:
  ClosedLoop(int concurrency, absl::Time start) {
    for (int i = 0; i < concurrency; ++i) due_.push(start);
  }
  absl::Time Next() const override { return due_.empty() ? absl::InfiniteFuture() : due_.top(); }
  void Sent() override { due_.pop(); }
  void Answered(absl::Duration pause) override { due_.push(Now() + pause); }

 private:
  std::priority_queue<absl::Time, std::vector<absl::Time>, std::greater<>> due_;
};

// ------------------------------------------------------------------------------------------------------------ results

// The details of a failed call.
struct Hints {
  std::string reason;                       // From google.rpc.ErrorInfo.
  std::optional<absl::Duration> retry;      // google.rpc.RetryInfo.
  std::optional<absl::Duration> push_back;  // grpc-retry-pushback-ms.
};

Hints ReadHints(const grpc::ClientContext& context, const grpc::Status& status) {
  Hints hints;
  const auto& trailers = context.GetServerTrailingMetadata();
  int64_t milliseconds = 0;
  if (const auto found = trailers.find("grpc-retry-pushback-ms");
      found != trailers.end() &&
      absl::SimpleAtoi(std::string(found->second.data(), found->second.size()), &milliseconds)) {
    hints.push_back = absl::Milliseconds(milliseconds);
  }
  google::rpc::Status details;
  if (!details.ParseFromString(status.error_details())) return hints;
  for (const auto& any : details.details()) {
    google::rpc::RetryInfo retry_info;
    google::rpc::ErrorInfo error_info;
    if (any.UnpackTo(&retry_info) && retry_info.has_retry_delay()) {
      hints.retry =
          absl::Seconds(retry_info.retry_delay().seconds()) + absl::Nanoseconds(retry_info.retry_delay().nanos());
    } else if (any.UnpackTo(&error_info)) {
      hints.reason = error_info.reason();
    }
  }
  return hints;
}

class Latencies {
 public:
  void Add(absl::Duration latency) { milliseconds_.push_back(absl::ToDoubleMilliseconds(latency)); }
  json Summary() {
    if (milliseconds_.empty()) return nullptr;
    std::sort(milliseconds_.begin(), milliseconds_.end());
    double sum = 0;
    for (const float value : milliseconds_) sum += value;
    return {{"count", milliseconds_.size()}, {"mean", sum / milliseconds_.size()},
            {"p50", Quantile(0.5)},          {"p90", Quantile(0.9)},
            {"p99", Quantile(0.99)},         {"p999", Quantile(0.999)},
            {"max", milliseconds_.back()}};
  }

 private:
  float Quantile(double q) const {
    return milliseconds_[std::min(milliseconds_.size() - 1, static_cast<size_t>(q * milliseconds_.size()))];
  }
  std::vector<float> milliseconds_;
};

class Record {
 public:
  // Calls that were due before `start` are warm-up and not counted.
  Record(absl::Time start, absl::Time end) : start_(start), end_(end) {}

  void Add(absl::Time due, absl::Time sent, absl::Time now, const Hints& hints, const grpc::Status& status) {
    if (due < start_) return;
    const std::string code = CodeName(status.error_code());
    ++codes_[code];
    latencies_[code].Add(now - due);
    lateness_.Add(sent - due);
    Second& second = timeline_[absl::ToInt64Seconds(now - start_)];
    if (status.ok()) {
      ++second.ok;
      if (now <= end_) ++ok_in_time_;
    } else if (status.error_code() == grpc::RESOURCE_EXHAUSTED) {
      ++second.rejected;
      AddHints(hints);
    } else {
      ++second.other;
    }
    if (!status.ok() && (errors_.size() < 10 || errors_.count(Words(status)) != 0)) ++errors_[Words(status)];
  }

  void AddUnsent() { ++unsent_; }

  json Summary(absl::Time ended) {
    const double seconds = absl::ToDoubleSeconds(std::min(end_, ended) - start_);
    json latencies = json::object(), timeline = json::array();
    for (auto& [code, values] : latencies_) latencies[code] = values.Summary();
    int64_t total = 0;
    for (const auto& [code, count] : codes_) total += count;
    for (const auto& [second, counts] : timeline_) {
      timeline.push_back(
          {{"second", second}, {"ok", counts.ok}, {"rejected", counts.rejected}, {"other", counts.other}});
    }
    return {{"seconds", seconds},
            {"calls", total},
            {"unsent", unsent_},
            {"codes", codes_},
            {"goodput_per_second", seconds > 0 ? ok_in_time_ / seconds : 0},
            {"latency_ms", latencies},
            {"send_lateness_ms", lateness_.Summary()},
            {"rejected",
             {{"with_pushback", with_pushback_}, {"with_retry_info", with_retry_info_}, {"with_both", with_both_}}},
            {"errors", errors_},
            {"timeline", timeline}};
  }

 private:
  struct Second {
    int64_t ok = 0, rejected = 0, other = 0;
  };

  static std::string Words(const grpc::Status& status) {
    return absl::StrCat(CodeName(status.error_code()), ": ", status.error_message().substr(0, 120));
  }

  void AddHints(const Hints& hints) {
    with_pushback_ += hints.push_back.has_value();
    with_retry_info_ += hints.retry.has_value();
    with_both_ += hints.push_back.has_value() && hints.retry.has_value();
  }

  const absl::Time start_, end_;
  std::map<std::string, int64_t> codes_, errors_;
  std::map<std::string, Latencies> latencies_;
  Latencies lateness_;
  std::map<int64_t, Second> timeline_;
  int64_t ok_in_time_ = 0, unsent_ = 0, with_pushback_ = 0, with_retry_info_ = 0, with_both_ = 0;
};

// -------------------------------------------------------------------------------------------------------- connections

// Distributes calls over the connections in turn. A connection that has had `calls_per_connection` calls is replaced by
// a new one. Its calls in flight keep it alive.
class Connections {
 public:
  explicit Connections(const Arguments& arguments) : arguments_(arguments), slots_(arguments.connections) {
    if (!arguments.tls_root_file.empty()) {
      grpc::SslCredentialsOptions options{.pem_root_certs = ReadFile(arguments.tls_root_file)};
      if (!arguments.client_certificate_file.empty()) {
        options.pem_cert_chain = ReadFile(arguments.client_certificate_file);
        options.pem_private_key = ReadFile(arguments.client_key_file);
      }
      credentials_ = grpc::SslCredentials(options);
    } else {
      credentials_ = grpc::InsecureChannelCredentials();
    }
    // Without a retry policy to test, the first answer of a call is final.
    channel_arguments_.SetInt(GRPC_ARG_ENABLE_RETRIES, arguments.service_config_file.empty() ? 0 : 1);
    if (!arguments.service_config_file.empty()) {
      channel_arguments_.SetServiceConfigJSON(ReadFile(arguments.service_config_file));
    }
    channel_arguments_.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_arguments_.SetMaxReceiveMessageSize(-1);
  }

  grpc::GenericStub& Next() {
    Slot& slot = slots_[next_++ % slots_.size()];
    if (slot.stub == nullptr ||
        (arguments_.calls_per_connection > 0 && slot.calls >= arguments_.calls_per_connection)) {
      slot.stub = std::make_unique<grpc::GenericStub>(
          grpc::CreateCustomChannel(arguments_.server, credentials_, channel_arguments_));
      slot.calls = 0;
    }
    ++slot.calls;
    return *slot.stub;
  }

 private:
  struct Slot {
    std::unique_ptr<grpc::GenericStub> stub;
    int calls = 0;
  };
  const Arguments& arguments_;
  std::vector<Slot> slots_;
  size_t next_ = 0;
  std::shared_ptr<grpc::ChannelCredentials> credentials_;
  grpc::ChannelArguments channel_arguments_;
};

// --------------------------------------------------------------------------------------------------------------- load

struct Call {
  int64_t id;
  size_t request;  // Index of its request.
  absl::Time due, sent, deadline;
  grpc::ClientContext context;
  grpc::ByteBuffer response;
  grpc::Status status;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader;
};

// Reads the requests. Lines at the end that do not fill a whole call are ignored.
std::vector<grpc::ByteBuffer> ReadRequests(const Arguments& arguments) {
  std::ifstream file(arguments.texts_file);
  if (!file) throw std::runtime_error(absl::StrCat("cannot read ", arguments.texts_file));
  std::vector<grpc::ByteBuffer> requests;
  v1::EmbedRequest request;
  if (!arguments.prompt_name.empty()) request.mutable_options()->set_prompt_name(arguments.prompt_name);
  for (std::string line; std::getline(file, line);) {
    request.add_inputs()->set_text(line);
    if (request.inputs_size() < arguments.texts_per_call) continue;
    const grpc::Slice slice(request.SerializeAsString());
    requests.emplace_back(&slice, 1);
    request.clear_inputs();
  }
  if (requests.empty()) {
    throw std::runtime_error(
        absl::StrCat(arguments.texts_file, " has fewer than ", arguments.texts_per_call, " lines"));
  }
  return requests;
}

// Writes every call as two lines of JSON, when it is sent and when it is finished, and each vector when it is first
// seen.
class History {
 public:
  explicit History(const std::string& path) {
    if (path.empty()) return;
    file_.open(path);
    if (!file_) throw std::runtime_error(absl::StrCat("cannot write ", path));
  }

  void Sent(const Call& call) {
    if (!file_.is_open()) return;
    Write({{"sent", call.id},
           {"request", call.request},
           {"at", Seconds(call.sent)},
           {"deadline", Seconds(call.deadline)}});
  }

  void Finished(const Call& call, absl::Time at, const Hints& hints) {
    if (!file_.is_open()) return;
    json line = {{"finished", call.id}, {"at", Seconds(at)}, {"code", CodeName(call.status.error_code())}};
    if (!hints.reason.empty()) line["reason"] = hints.reason;
    if (hints.retry) line["retry_seconds"] = absl::ToDoubleSeconds(*hints.retry);
    if (hints.push_back) line["pushback_seconds"] = absl::ToDoubleSeconds(*hints.push_back);
    if (call.status.ok()) AddAnswer(call, line);
    Write(line);
  }

 private:
  void AddAnswer(const Call& call, json& line) {
    grpc::Slice bytes;
    v1::EmbedResponse response;
    if (!call.response.DumpToSingleSlice(&bytes).ok() ||
        !response.ParseFromArray(bytes.begin(), static_cast<int>(bytes.size()))) {
      line["code"] = "MALFORMED";
      return;
    }
    std::vector<float> values;
    int64_t tokens = 0;
    for (const auto& result : response.results()) {
      tokens += result.tokens();
      for (const auto& embedding : result.embeddings()) {
        values.insert(values.end(), embedding.values().begin(), embedding.values().end());
      }
    }
    // The hash is the same in every process, because libstdc++'s hash has no seed.
    const size_t hash = std::hash<std::string_view>()(
        {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0])});
    line["recipe"] = response.recipe();
    line["tokens"] = tokens;
    line["vectors"] = absl::StrCat(absl::Hex(hash));
    if (!seen_.emplace(call.request, response.recipe(), hash).second) return;
    Write({{"vectors", line["vectors"]}, {"request", call.request}, {"recipe", response.recipe()}, {"values", values}});
  }

  void Write(const json& line) { file_ << line.dump() << "\n"; }

  std::ofstream file_;
  std::set<std::tuple<size_t, std::string, size_t>> seen_;
};

class Load {
 public:
  explicit Load(const Arguments& arguments)
      : arguments_(arguments),
        requests_(ReadRequests(arguments)),
        connections_(arguments),
        history_(arguments.history_file) {
    if (!arguments.api_key_file.empty()) authorization_ = absl::StrCat("Bearer ", FirstLine(arguments.api_key_file));
  }

  json Run() {
    const absl::Time start = Now();
    const absl::Time counted = start + absl::Seconds(arguments_.warm_up_seconds);
    absl::Time end = counted + absl::Seconds(arguments_.seconds);
    Record record(counted, end);
    if (arguments_.rate > 0) {
      schedule_ = std::make_unique<OpenLoop>(arguments_.rate, arguments_.poisson, start);
    } else {
      schedule_ = std::make_unique<ClosedLoop>(arguments_.concurrency, start);
    }
    while (true) {
      const absl::Time now = Now();
      if (stop_requested != 0 || AllSent()) end = std::min(end, now);
      while (!AllSent() && schedule_->Next() <= std::min(now, end)) SendOne(record);
      if (now >= end && in_flight_ == 0) return record.Summary(end);
      // Waits only briefly, so that signals are noticed.
      ReceiveUntil(std::min(now < end ? schedule_->Next() : absl::InfiniteFuture(), now + absl::Milliseconds(100)),
                   record);
    }
  }

 private:
  bool AllSent() const { return arguments_.calls > 0 && sent_ >= arguments_.calls; }

  void SendOne(Record& record) {
    const absl::Time due = schedule_->Next();
    schedule_->Sent();
    if (in_flight_ >= arguments_.max_in_flight) {
      record.AddUnsent();
      schedule_->Answered(kPauseAfterFailure);
      return;
    }
    const int64_t id = sent_++;
    auto* call = new Call{.id = id,
                          .request = static_cast<size_t>(id) % requests_.size(),
                          .due = due,
                          .sent = Now(),
                          .deadline = due + absl::Seconds(arguments_.timeout_seconds)};
    call->context.set_deadline(ForGrpc(call->deadline));
    if (!authorization_.empty()) call->context.AddMetadata("authorization", authorization_);
    history_.Sent(*call);
    call->reader = connections_.Next().PrepareUnaryCall(&call->context, kMethod, requests_[call->request], &queue_);
    call->reader->StartCall();
    call->reader->Finish(&call->response, &call->status, call);
    ++in_flight_;
  }

  void ReceiveUntil(absl::Time deadline, Record& record) {
    void* tag = nullptr;
    bool ok = false;
    if (queue_.AsyncNext(&tag, &ok, ForGrpc(deadline)) != grpc::CompletionQueue::GOT_EVENT) return;
    const std::unique_ptr<Call> call(static_cast<Call*>(tag));
    --in_flight_;
    const absl::Time now = Now();
    const Hints hints = ReadHints(call->context, call->status);
    record.Add(call->due, call->sent, now, hints, call->status);
    history_.Finished(*call, now, hints);
    schedule_->Answered(PauseAfter(call->status, hints));
  }

  absl::Duration PauseAfter(const grpc::Status& status, const Hints& hints) const {
    if (status.ok()) return absl::ZeroDuration();
    if (!arguments_.wait_for_hint || !hints.retry) return kPauseAfterFailure;
    return std::clamp(*hints.retry, kPauseAfterFailure, kMaxHintedPause);
  }

  const Arguments& arguments_;
  const std::vector<grpc::ByteBuffer> requests_;
  Connections connections_;
  History history_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<Schedule> schedule_;
  std::string authorization_;
  int64_t sent_ = 0;
  int in_flight_ = 0;
};

void AddOptions(CLI::App& app, Arguments& arguments) {
  app.add_option("--server", arguments.server, "HOST:PORT")->capture_default_str();
  app.add_option("--texts", arguments.texts_file, "File with a text a line, sent in turn")->required();
  app.add_option("--rate", arguments.rate, "Calls a second, open loop; without it the loop is closed")
      ->check(CLI::PositiveNumber);
  app.add_flag("--poisson", arguments.poisson,
               "Random gaps in the open loop, exponentially distributed; else equal ones");
  app.add_option("--concurrency", arguments.concurrency, "Calls at a time in the closed loop")
      ->check(CLI::PositiveNumber);
  app.add_option("--seconds", arguments.seconds, "How long calls are sent and counted")->check(CLI::PositiveNumber);
  app.add_option("--warm-up", arguments.warm_up_seconds, "Seconds of sending before calls are counted")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--calls", arguments.calls, "Maximum number of calls; 0 = as many as the time allows")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--texts-per-call", arguments.texts_per_call, "Lines of --texts that one call embeds")
      ->check(CLI::PositiveNumber);
  app.add_flag("--wait-for-hint", arguments.wait_for_hint,
               "A refused caller of the closed loop waits as long as the server says, at most 10 s");
  app.add_option("--history", arguments.history_file, "Writes every call to this file, for history.py");
  app.add_option("--timeout", arguments.timeout_seconds, "Deadline of a call, seconds")->check(CLI::PositiveNumber);
  app.add_option("--connections", arguments.connections, "Connections, used in turn")->check(CLI::PositiveNumber);
  app.add_option("--calls-per-connection", arguments.calls_per_connection,
                 "After so many calls a new connection replaces the old one; 0 = never");
  app.add_option("--max-in-flight", arguments.max_in_flight, "Calls beyond these are not sent, only counted as unsent");
  app.add_option("--prompt-name", arguments.prompt_name, "A prompt of the model");
  app.add_option("--api-key-file", arguments.api_key_file, "File whose first line is the API key");
  app.add_option("--tls-root", arguments.tls_root_file, "PEM file of the authorities to trust; without it plaintext");
  auto* certificate = app.add_option("--client-certificate", arguments.client_certificate_file, "PEM file, for mTLS");
  auto* key = app.add_option("--client-key", arguments.client_key_file, "PEM file, for mTLS");
  certificate->needs(key);
  key->needs(certificate);
  app.add_option("--service-config", arguments.service_config_file,
                 "gRPC service config (JSON) with a retry policy; without it no call is retried");
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Loads a server with Embed calls, and prints what came back as one JSON object.");
  AddOptions(app, arguments);
  CLI11_PARSE(app, argc, argv);
  for (const int signal : {SIGINT, SIGTERM}) std::signal(signal, [](int) { stop_requested = 1; });
  try {
    std::cout << Load(arguments).Run().dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "operations_load_client: " << error.what() << "\n";
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace longembed::load

int main(int argc, char** argv) { return longembed::load::Main(argc, argv); }
