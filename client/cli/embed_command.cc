#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/cli/answer_writer.h"
#include "client/cli/command_line.h"
#include "client/cli/connection_errors.h"
#include "client/cli/npy_file.h"
#include "client/cli/progress.h"
#include "client/cli/resume.h"
#include "client/cli/text_reader.h"
#include "client/stream.h"
#include "system/return_if_error.h"

namespace longembed::client {
namespace {

// An answer waits for the answers of all earlier texts, which may take minutes. At most this many times --in-flight
// answers may wait.
constexpr size_t kAheadOfFirst = 8;

// Sends the texts over a stream and writes the answers in order. Memory is bounded: texts are read only while the
// limits on texts in flight and on waiting answers allow it.
class EmbedRun {
 public:
  struct Outcome {
    absl::Status status;
    // The error of a wrong input. Texts before it are answered, so the output ends where the input is wrong.
    absl::Status input_error;
    bool some_failed = false;
  };

  EmbedRun(const Arguments& arguments, const Streams& streams, std::ostream& out, NpyFile* matrix, std::string recipe)
      : arguments_(arguments),
        client_(arguments.client),
        reader_(arguments.source, streams.in),
        progress_(streams.err, streams.err_is_terminal, reader_.total_bytes()),
        writer_(arguments, out, matrix, std::move(recipe), progress_),
        on_interrupt_(streams.interrupt, [this] { writer_.Close(); }) {}

  // Runs once. Skips one text for each id in `done`.
  Outcome Run(std::unordered_multiset<std::string> done) {
    Outcome outcome;
    outcome.status = SendAll(std::move(done), outcome.input_error);
    outcome.some_failed = writer_.some_failed();
    return outcome;
  }

 private:
  absl::Status SendAll(std::unordered_multiset<std::string> done, absl::Status& input_error) {
    const size_t in_flight = static_cast<size_t>(arguments_.in_flight);
    EmbedStream stream(
        client_, arguments_.options,
        {.max_in_flight = in_flight, .max_ahead = kAheadOfFirst * in_flight, .timeout = arguments_.call.timeout},
        [this](uint64_t number, v1::EmbedStreamResponse answer) { return writer_.Take(number, std::move(answer)); });
    while (true) {
      absl::StatusOr<std::optional<InputLine>> line = reader_.Next();
      if (!line.ok()) input_error = line.status();
      if (!line.ok() || !line->has_value()) break;
      const bool skip = !done.empty() && !done.extract((*line)->id.dump()).empty();
      if (skip) continue;
      if (!(*line)->input.ok() && !arguments_.partial) {
        input_error = (*line)->input.status();
        break;
      }
      writer_.Expect((*line)->id, reader_.bytes_read());
      RETURN_IF_ERROR(stream.Write(std::move((*line)->input)));
    }
    return stream.Finish();
  }

  const Arguments& arguments_;
  Client client_;
  TextReader reader_;
  Progress progress_;
  AnswerWriter writer_;
  std::stop_callback<std::function<void()>> on_interrupt_;
};

int RunTo(std::ostream& out, NpyFile* matrix, EarlierAnswers earlier, const Arguments& arguments,
          const Streams& streams) {
  // The temporary ends the run, and removes the progress line, before anything is printed.
  const EmbedRun::Outcome outcome =
      EmbedRun(arguments, streams, out, matrix, std::move(earlier.recipe)).Run(std::move(earlier.ids));
  if (!outcome.status.ok()) return PrintError(ExplainConnection(outcome.status, arguments.client), streams);
  if (!outcome.input_error.ok()) return PrintError(outcome.input_error, streams, kExitUsage);
  return outcome.some_failed ? kExitSomeFailed : kExitOk;
}

absl::Status CannotBeWritten(const std::string& file) {
  return absl::InvalidArgumentError(absl::StrCat("--out: ", file, " cannot be written: ", std::strerror(errno)));
}

bool IsMatrix(const std::string& file) { return absl::EndsWithIgnoreCase(file, ".npy"); }

// Refuses names of formats that would otherwise be given to JSON lines.
absl::Status CheckFormat(const std::string& file) {
  for (const char* const format : {".parquet", ".npz"}) {
    if (!absl::EndsWithIgnoreCase(file, format)) continue;
    return absl::InvalidArgumentError(absl::StrCat("--out: ", file, ": ", format,
                                                   " files are not written; write .npy, or JSON lines to convert "
                                                   "(client/README.md shows how)"));
  }
  return absl::OkStatus();
}

// Returns the file of JSON lines next to a matrix.
std::string LinesFile(const std::string& matrix) { return absl::StrCat(matrix, ".jsonl"); }

// Returns the files to read. A shell may have redirected standard input from a file.
std::vector<std::string> InputFiles(const TextSource& source) {
  std::vector<std::string> files = source.files;
  if (source.texts.empty() && files.empty()) files.emplace_back(kStandardInput);
  std::ranges::replace(files, kStandardInput, "/dev/stdin");
  return files;
}

// Checks --out against the other arguments. Errors: INVALID_ARGUMENT.
absl::Status CheckOut(const Arguments& arguments) {
  RETURN_IF_ERROR(CheckFormat(arguments.out_file));
  if (arguments.resume && arguments.text_output) {
    return absl::InvalidArgumentError("--resume: cannot be combined with --output text, which has no ids to find");
  }
  if (IsMatrix(arguments.out_file) && (arguments.resume || arguments.text_output)) {
    return absl::InvalidArgumentError(absl::StrCat("--out: a .npy file cannot be combined with ",
                                                   arguments.resume ? "--resume" : "--output text",
                                                   "; write JSON lines instead"));
  }
  std::vector<std::string> outputs{arguments.out_file};
  if (IsMatrix(arguments.out_file)) outputs.push_back(LinesFile(arguments.out_file));
  for (const std::string& input : InputFiles(arguments.source)) {
    for (const std::string& output : outputs) {
      std::error_code error;  // equivalent() returns false if a file does not exist.
      const bool same = std::filesystem::equivalent(input, output, error);
      if (same && std::filesystem::is_regular_file(input, error)) {
        return absl::InvalidArgumentError(absl::StrCat("--out: ", output, " is an input, too"));
      }
    }
  }
  return absl::OkStatus();
}

// Writes the vectors to --out, and the JSON lines that name their rows to FILE.jsonl next to it.
int RunToMatrix(const Arguments& arguments, const Streams& streams) {
  absl::StatusOr<NpyFile> matrix = NpyFile::Create(arguments.out_file, arguments.options.encoding());
  if (!matrix.ok()) return PrintError(matrix.status(), streams, kExitUsage);
  const std::string lines = LinesFile(arguments.out_file);
  std::ofstream file(lines, std::ios::trunc);
  if (!file) return PrintError(CannotBeWritten(lines), streams, kExitUsage);
  return RunTo(file, &*matrix, {}, arguments, streams);
}

}  // namespace

int RunEmbed(const Arguments& arguments, const Streams& streams) {
  if (arguments.out_file.empty()) return RunTo(streams.out, nullptr, {}, arguments, streams);
  if (const absl::Status status = CheckOut(arguments); !status.ok()) return PrintError(status, streams, kExitUsage);
  if (IsMatrix(arguments.out_file)) return RunToMatrix(arguments, streams);
  EarlierAnswers earlier;
  if (arguments.resume) {
    absl::StatusOr<EarlierAnswers> read = ReadEarlierAnswers(arguments.out_file);
    if (!read.ok()) return PrintError(read.status(), streams, kExitUsage);
    earlier = *std::move(read);
  }
  std::ofstream file(arguments.out_file, arguments.resume ? std::ios::app : std::ios::trunc);
  if (!file) return PrintError(CannotBeWritten(arguments.out_file), streams, kExitUsage);
  if (earlier.failed > 0) {
    streams.err << "longembed: " << earlier.failed << " of the texts failed in earlier runs; " << arguments.out_file
                << " says why\n";
  }
  const bool some_failed = earlier.failed > 0;
  const int status = RunTo(file, nullptr, std::move(earlier), arguments, streams);
  return status == kExitOk && some_failed ? kExitSomeFailed : status;
}

}  // namespace longembed::client
