// longembed-embed-texts [--streamed] DIRECTORY: embeds texts with the model library alone. The exporter compares its
// output with the output of the checkpoint's own library.
//
// Reads one JSON object per line from stdin: {"text": "...", "prompt_name": "...", "output": "SPARSE"}. A text without
// prompt_name gets the model's default prompt; with "" it gets none. A text longer than the plain limit of the manifest
// is truncated at its end.
//
// Writes one line per text to stdout. Vectors are not normalized.
//   no output                {"vector": [...]}
//   output SPARSE            {"indices": [...], "values": [...]}
//   output TOKEN_VECTORS     {"vectors": [[...], ...]}; prompt_name decides whether the text is a query
//
// The first text that cannot be embedded ends the run with status 1 and a message of one sentence on stderr. With
// --streamed, only one layer is in memory at a time, and all layers are read again for each text.
#include <algorithm>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <thread>

#include "absl/strings/str_cat.h"
#include "model/embed/embedder.h"
#include "model/encoder/load_encoder.h"

namespace longembed {
namespace {

// Parses a line into `text` and its options. Errors: an invalid line.
absl::StatusOr<EmbedderOptions> ParseLine(const ModelManifest& model, const std::string& line, std::string& text) {
  const nlohmann::json request = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!request.is_object() || !request.contains("text") || !request["text"].is_string()) {
    return absl::InvalidArgumentError("a line has to be a JSON object with a text");
  }
  text = request["text"].get<std::string>();
  EmbedderOptions options{.plan = {.truncate = Truncate::kEnd, .allow_empty = true}, .normalize = false};
  std::string name;
  if (request.contains("prompt_name")) {
    if (!request["prompt_name"].is_string()) return absl::InvalidArgumentError("prompt_name has to be a string");
    name = request["prompt_name"].get<std::string>();
    options.prompt = name.empty() ? PromptChoice(LiteralPrompt{}) : PromptChoice(PromptName{name});
  }
  const nlohmann::json output = request.value("output", nlohmann::json());
  options.sparse = output == "SPARSE";
  if (output == "TOKEN_VECTORS") {
    const auto query = model.input_types.find("QUERY");
    const bool is_query = query != model.input_types.end() && query->second == name;
    options.plan.token_vectors = is_query ? TokenVectors::kQuery : TokenVectors::kDocument;
  }
  return options;
}

template <typename Number>
void WriteNumbers(const std::vector<Number>& numbers) {
  std::cout << "[";
  for (size_t i = 0; i < numbers.size(); ++i) std::cout << (i == 0 ? "" : ",") << numbers[i];
  std::cout << "]";
}

void WriteVectors(const std::vector<OutputVector>& vectors, const EmbedderOptions& options) {
  if (options.sparse) {
    std::cout << "{\"indices\":";
    WriteNumbers(vectors.front().indices);
    std::cout << ",\"values\":";
    WriteNumbers(vectors.front().values);
  } else if (options.plan.token_vectors == TokenVectors::kNone) {
    std::cout << "{\"vector\":";
    WriteNumbers(vectors.front().values);
  } else {
    std::cout << "{\"vectors\":[";
    for (size_t i = 0; i < vectors.size(); ++i) {
      if (i > 0) std::cout << ",";
      WriteNumbers(vectors[i].values);
    }
    std::cout << "]";
  }
  std::cout << "}\n";
}

absl::Status EmbedLine(const ModelManifest& model, const Embedder& embedder, const std::string& line) {
  std::string text;
  const absl::StatusOr<EmbedderOptions> options = ParseLine(model, line, text);
  if (!options.ok()) return options.status();
  const Input input{std::string_view(text)};
  const auto embedded = embedder.Embed(std::span(&input, 1), *options);
  if (!embedded.ok()) return embedded.status();
  WriteVectors(embedded->front(), *options);
  return absl::OkStatus();
}

absl::Status EmbedLines(const std::string& directory, bool streamed) {
  const absl::StatusOr<std::unique_ptr<const Model>> model = LoadModel(directory);
  if (!model.ok()) return model.status();
  const absl::StatusOr<std::unique_ptr<Encoder>> encoder =
      LoadEncoder(directory, (*model)->manifest, {.streamed = streamed});
  if (!encoder.ok()) return encoder.status();
  Team team;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const HelperThreads helpers(team, std::max(0, cores / 2 - 1));
  const Embedder embedder(**model, **encoder, team);
  std::cout.precision(std::numeric_limits<float>::max_digits10);
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    const absl::Status status = EmbedLine((*model)->manifest, embedder, line);
    if (!status.ok()) return absl::Status(status.code(), absl::StrCat("line ", number, ": ", status.message()));
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) {
  constexpr char kUsage[] = "usage: longembed-embed-texts [--streamed] DIRECTORY < texts.jsonl\n";
  const std::string_view first = argc > 1 ? argv[1] : "";
  if (argc == 2 && (first == "--help" || first == "-h")) {
    std::cout << kUsage;
    return 0;
  }
  const bool streamed = argc == 3 && first == "--streamed";
  if (!streamed && (argc != 2 || first.starts_with('-'))) {
    std::cerr << kUsage;
    return 2;
  }
  const absl::Status status = longembed::EmbedLines(argv[argc - 1], streamed);
  if (!status.ok()) std::cerr << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
