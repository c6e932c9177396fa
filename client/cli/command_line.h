// Parses the arguments of the `longembed` command and runs the command that they name.
#ifndef LONGEMBED_CLIENT_CLI_COMMAND_LINE_H_
#define LONGEMBED_CLIENT_CLI_COMMAND_LINE_H_

#include <istream>
#include <ostream>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cli/json_lines.h"
#include "client/client.h"
#include "longembed/v1/embedding.pb.h"

namespace longembed::client {

// The streams that a command reads and writes.
struct Streams {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool err_is_terminal = false;
  // Requested when the process is about to end. After its callbacks have run, `out` and --out end with a complete line.
  std::stop_token interrupt = {};
};

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;      // A request or the transport failed.
inline constexpr int kExitUsage = 2;       // The arguments or the input lines are wrong.
inline constexpr int kExitSomeFailed = 3;  // With --partial: some inputs failed, in this run or an earlier one.

inline constexpr char kStandardInput[] = "-";  // The file name that means standard input.

// The texts of embed, explain and tokenize: those of --text, otherwise those of the files, otherwise standard input.
struct TextSource {
  std::vector<std::string> texts;
  std::vector<std::string> files;
  LineFormat format = LineFormat::kJson;
};

struct Arguments {
  ClientOptions client;
  CallOptions call;
  v1::EmbedOptions options;
  TextSource source;
  bool text_output = false;  // Print plain text instead of JSON.
  bool partial = false;
  int in_flight = 256;   // The most texts without an answer.
  std::string out_file;  // Empty: standard output.
  bool resume = false;   // Append to out_file. For each answer in it, skip one text with the same id.
  std::string health_service;
};

int RunEmbed(const Arguments& arguments, const Streams& streams);
int RunExplain(const Arguments& arguments, const Streams& streams);
int RunTokenize(const Arguments& arguments, const Streams& streams);
int RunModels(const Arguments& arguments, const Streams& streams);
// Returns kExitOk if grpc.health.v1 reports SERVING.
int RunHealth(const Arguments& arguments, const Streams& streams);

// Parses the arguments and runs the command. Returns the exit status.
int RunCommandLine(int argc, const char* const* argv, const Streams& streams);

// Checks that the server answered every input. Errors: INTERNAL.
absl::Status CheckCount(int results, size_t inputs);

// Writes `text` and flushes `out`. Errors: DATA_LOSS, with the system's reason.
absl::Status WriteOutput(const std::string& text, std::ostream& out);

// Prints the error as one sentence on `err`. Returns `exit_status`.
int PrintError(const absl::Status& status, const Streams& streams, int exit_status = kExitFailed);

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_COMMAND_LINE_H_
