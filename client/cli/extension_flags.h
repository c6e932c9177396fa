// Flags that set a context extension and the output: --windows, --positions, --vectors and so on. They are a short form
// of what --extension says in JSON.
#ifndef LONGEMBED_CLIENT_CLI_EXTENSION_FLAGS_H_
#define LONGEMBED_CLIENT_CLI_EXTENSION_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "longembed/v1/embedding.pb.h"

namespace CLI {
class App;
}

namespace longembed::client {

class ExtensionFlags {
 public:
  // Adds the flags to a command. This object must outlive the parsing. May be called for several commands.
  void AddTo(CLI::App& command);

  // Sets extension, output, spans, max_terms and token_pooling from the flags. Errors: INVALID_ARGUMENT, with one
  // sentence that names the flag.
  absl::Status Fill(v1::EmbedOptions& options) const;

 private:
  absl::Status FillWindows(v1::Extension& extension) const;
  absl::Status FillCalibration(v1::Extension& extension) const;
  absl::Status FillPositions(v1::Extension& extension) const;
  absl::Status FillSpans(v1::EmbedOptions& options) const;

  std::string json_, windows_, overlap_, aggregation_, positions_, profile_, spans_, vectors_, calibration_;
  std::optional<uint32_t> max_terms_, token_pooling_, top_, groups_;
  bool short_last_ = false, log_scaling_ = false, resonance_ = false, always_ = false, recommended_ = false;
  std::optional<double> temperature_, norm_temperature_;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_EXTENSION_FLAGS_H_
