#include <algorithm>
#include <deque>
#include <future>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "client/cli/command_line.h"
#include "client/cli/progress.h"
#include "client/cli/text_reader.h"

namespace longembed::client {

namespace {

// A call under way, and the ids of its inputs.
struct Pending {
  std::vector<nlohmann::json> ids;
  std::future<absl::StatusOr<v1::EmbedResponse>> response;
};

void WriteForAPerson(const nlohmann::json& id, const v1::EmbedResult& result, std::ostream& out) {
  if (result.has_error()) {
    out << absl::StrFormat("%-20s error: %s\n", id.dump(), result.error().message());
    return;
  }
  for (const v1::Embedding& embedding : result.embeddings()) {
    out << absl::StrFormat("%-20s %5d tokens", id.dump(), result.tokens());
    if (result.truncated_tokens() > 0) out << absl::StrFormat(", %d cut away", result.truncated_tokens());
    out << ": [";
    for (int i = 0; i < std::min(4, embedding.values_size()); ++i)
      out << absl::StrFormat("%+.4f, ", embedding.values(i));
    out << "...] of " << embedding.dimensions() << "\n";
  }
}

// Sends batches, a few at a time, and writes their answers in order. Memory is bounded: no more is read than is under
// way.
class EmbedRun {
 public:
  EmbedRun(const Arguments& arguments, const Streams& streams)
      : arguments_(arguments),
        streams_(streams),
        client_(arguments.client),
        reader_(arguments.source, streams.in),
        progress_(streams.err, streams.err_is_terminal, reader_.total_bytes()) {}

  absl::Status Run() {
    for (bool more = true; more || !pending_.empty();) {
      if (more && pending_.size() < static_cast<size_t>(arguments_.concurrency)) {
        const absl::StatusOr<bool> sent = SendBatch();
        // What was read before the bad line is still answered, so that the output ends where the input went wrong.
        if (!sent.ok()) input_error_ = sent.status();
        more = sent.ok() && *sent;
      } else if (absl::Status status = WriteOldest(); !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }

  const absl::Status& input_error() const { return input_error_; }
  bool some_failed() const { return some_failed_; }

 private:
  // Reads up to a batch and sends it; false at the end of the input.
  absl::StatusOr<bool> SendBatch() {
    v1::EmbedRequest request;
    *request.mutable_options() = arguments_.options;
    request.set_partial_results(arguments_.partial);
    std::vector<nlohmann::json> ids;
    absl::Status error;
    bool more = true;
    while (static_cast<int>(ids.size()) < arguments_.batch) {
      absl::StatusOr<std::optional<InputLine>> line = reader_.Next();
      if (!line.ok()) error = line.status();
      more = line.ok() && line->has_value();
      if (!more) break;
      ids.push_back((*line)->id);
      FillInput(**std::move(line), *request.add_inputs());
    }
    if (!ids.empty()) {
      pending_.push_back({std::move(ids), std::async(std::launch::async, [this, request = std::move(request)] {
                            return client_.Embed(request, arguments_.call);
                          })});
    }
    if (!error.ok()) return error;
    return more;
  }

  absl::Status WriteOldest() {
    Pending oldest = std::move(pending_.front());
    pending_.pop_front();
    const absl::StatusOr<v1::EmbedResponse> response = oldest.response.get();
    if (!response.ok()) return response.status();
    if (absl::Status status = CheckCount(response->results_size(), oldest.ids.size()); !status.ok()) return status;
    for (int i = 0; i < response->results_size(); ++i) {
      const v1::EmbedResult& result = response->results(i);
      if (arguments_.text_output) {
        WriteForAPerson(oldest.ids[i], result, streams_.out);
      } else {
        WriteResult(oldest.ids[i], result, arguments_.options.encoding(), streams_.out);
      }
      some_failed_ |= result.has_error();
      tokens_ += result.tokens();
    }
    texts_ += response->results_size();
    progress_.Update(texts_, tokens_, reader_.bytes_read());
    if (!streams_.out.flush()) return absl::DataLossError("the output cannot be written");
    return absl::OkStatus();
  }

  const Arguments& arguments_;
  const Streams& streams_;
  Client client_;
  TextReader reader_;
  Progress progress_;
  std::deque<Pending> pending_;
  absl::Status input_error_;
  bool some_failed_ = false;
  int64_t texts_ = 0;
  int64_t tokens_ = 0;
};

}  // namespace

int RunEmbed(const Arguments& arguments, const Streams& streams) {
  EmbedRun run(arguments, streams);
  if (const absl::Status status = run.Run(); !status.ok()) return Complain(status, streams);
  if (!run.input_error().ok()) {
    Complain(run.input_error(), streams);
    return kExitUsage;
  }
  return run.some_failed() ? kExitSomeFailed : kExitOk;
}

}  // namespace longembed::client
