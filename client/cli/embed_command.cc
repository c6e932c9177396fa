#include <fstream>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/answer_writer.h"
#include "client/cli/command_line.h"
#include "client/cli/progress.h"
#include "client/cli/text_reader.h"
#include "client/stream.h"

namespace longembed::client {
namespace {

// Sends the texts over a stream and writes the answers in order. Memory is bounded: no more is read than is in flight.
class EmbedRun {
 public:
  EmbedRun(const Arguments& arguments, const Streams& streams, std::ostream& out)
      : arguments_(arguments),
        client_(arguments.client),
        reader_(arguments.source, streams.in),
        progress_(streams.err, streams.err_is_terminal, reader_.total_bytes()),
        writer_(arguments, out, progress_) {}

  // `done`: ids whose texts are skipped.
  absl::Status Run(const std::set<std::string>& done) {
    EmbedStream stream(client_, arguments_.options,
                       {.max_in_flight = static_cast<size_t>(arguments_.in_flight), .timeout = arguments_.call.timeout},
                       [this](uint64_t number, v1::EmbedStreamResponse answer) {
                         return writer_.Take(number, std::move(*answer.mutable_result()));
                       });
    while (true) {
      absl::StatusOr<std::optional<InputLine>> line = reader_.Next();
      // What was read before a bad line is still answered, so that the output ends where the input went wrong.
      if (!line.ok()) input_error_ = line.status();
      if (!line.ok() || !line->has_value()) break;
      if (!done.empty() && done.contains((*line)->id.dump())) continue;
      writer_.Expect((*line)->id, reader_.bytes_read());
      v1::Input input;
      FillInput(**std::move(line), input);
      if (const absl::Status status = stream.Write(std::move(input)); !status.ok()) return status;
    }
    return stream.Finish();
  }

  const absl::Status& input_error() const { return input_error_; }
  bool some_failed() const { return writer_.some_failed(); }

 private:
  const Arguments& arguments_;
  Client client_;
  TextReader reader_;
  Progress progress_;
  AnswerWriter writer_;
  absl::Status input_error_;
};

int RunTo(std::ostream& out, const std::set<std::string>& done, const Arguments& arguments, const Streams& streams) {
  EmbedRun run(arguments, streams, out);
  if (const absl::Status status = run.Run(done); !status.ok()) return Complain(status, streams);
  if (!run.input_error().ok()) {
    Complain(run.input_error(), streams);
    return kExitUsage;
  }
  return run.some_failed() ? kExitSomeFailed : kExitOk;
}

}  // namespace

int RunEmbed(const Arguments& arguments, const Streams& streams) {
  if (arguments.out_file.empty()) return RunTo(streams.out, {}, arguments, streams);
  std::set<std::string> done;
  if (arguments.resume) {
    absl::StatusOr<std::set<std::string>> ids = IdsOf(arguments.out_file);
    if (!ids.ok()) return Complain(ids.status(), streams), kExitUsage;
    done = *std::move(ids);
  }
  std::ofstream file(arguments.out_file, arguments.resume ? std::ios::app : std::ios::trunc);
  if (!file) {
    Complain(absl::InvalidArgumentError(absl::StrCat(arguments.out_file, " cannot be written")), streams);
    return kExitUsage;
  }
  return RunTo(file, done, arguments, streams);
}

}  // namespace longembed::client
