// longembed-embed-texts DIRECTORY: embeds texts with nothing but the model library. The exporter compares what it says
// with the checkpoint's own library.
//
// Reads a JSON object a line from stdin: {"text": "...", "prompt_name": "...", "output": "SPARSE"}. Without prompt_name
// a text gets the prompt of a request that says nothing of prompts; with "" it gets none. Answers each by a line on
// stdout:
// {"vector": [...]}, not normalized, of the beginning of a text that is longer than the trained window; with output
// SPARSE {"indices": [...], "values": [...]}. The first text that cannot be embedded ends the run with status 1 and one
// sentence on stderr.
#include <algorithm>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "model/embed/embedder.h"
#include "model/encoder/load_encoder.h"

namespace longembed {
namespace {

absl::StatusOr<Input> ParseLine(const std::string& line, std::string& text, EmbedderOptions& options) {
  const nlohmann::json request = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!request.is_object() || !request.contains("text") || !request["text"].is_string()) {
    return absl::InvalidArgumentError("a line has to be a JSON object with a text");
  }
  text = request["text"].get<std::string>();
  if (request.contains("prompt_name")) {
    if (!request["prompt_name"].is_string()) return absl::InvalidArgumentError("prompt_name has to be a string");
    const auto name = request["prompt_name"].get<std::string>();
    options.prompt = name.empty() ? PromptChoice(LiteralPrompt{}) : PromptChoice(PromptName{name});
  }
  options.sparse = request.value("output", nlohmann::json()) == "SPARSE";
  return Input(text);
}

absl::StatusOr<OutputVector> EmbedLine(const Embedder& embedder, const std::string& line, bool& sparse) {
  std::string text;
  EmbedderOptions options{.plan = {.truncate = Truncate::kEnd, .allow_empty = true}, .normalize = false};
  const absl::StatusOr<Input> input = ParseLine(line, text, options);
  if (!input.ok()) return input.status();
  sparse = options.sparse;
  auto embedded = embedder.Embed(std::span(&*input, 1), options);
  if (!embedded.ok()) return embedded.status();
  return std::move(embedded->front().front());
}

template <typename Number>
void WriteNumbers(const char* name, const std::vector<Number>& numbers) {
  std::cout << '"' << name << "\":[";
  for (size_t i = 0; i < numbers.size(); ++i) std::cout << (i == 0 ? "" : ",") << numbers[i];
  std::cout << "]";
}

void WriteVector(const OutputVector& vector, bool sparse) {
  std::cout << "{";
  if (sparse) {
    WriteNumbers("indices", vector.indices);
    std::cout << ",";
  }
  WriteNumbers(sparse ? "values" : "vector", vector.values);
  std::cout << "}\n";
}

absl::Status EmbedLines(const std::string& directory) {
  const absl::StatusOr<std::unique_ptr<const Model>> model = LoadModel(directory);
  if (!model.ok()) return model.status();
  const absl::StatusOr<std::unique_ptr<Encoder>> encoder = LoadEncoder(directory, (*model)->manifest, {});
  if (!encoder.ok()) return encoder.status();
  Team team;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  const HelperThreads helpers(team, std::max(0, cores / 2 - 1));
  const Embedder embedder(**model, **encoder, team);
  std::cout.precision(std::numeric_limits<float>::max_digits10);
  int64_t number = 0;
  for (std::string line; std::getline(std::cin, line);) {
    ++number;
    bool sparse = false;
    const absl::StatusOr<OutputVector> vector = EmbedLine(embedder, line, sparse);
    if (!vector.ok()) {
      return absl::Status(vector.status().code(), absl::StrCat("line ", number, ": ", vector.status().message()));
    }
    WriteVector(*vector, sparse);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: longembed-embed-texts DIRECTORY < texts.jsonl\n";
    return 2;
  }
  const absl::Status status = longembed::EmbedLines(argv[1]);
  if (!status.ok()) std::cerr << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
