#include "client/cli/extension_flags.h"

#include <google/protobuf/util/json_util.h>

#include <CLI/CLI.hpp>
#include <map>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace longembed::client {
namespace {

constexpr char kPositions[] =
    "grouped, recurrent, interpolation, ntk=FACTOR, ntk-base=BASE, ntk-dynamic, ntk-by-parts, yarn, self-extend; "
    "grouped, interpolation, ntk-dynamic, ntk-by-parts and yarn take =FACTOR, self-extend =GROUP,WINDOW; without a "
    "number it follows from the text's length";

absl::Status Wrong(const std::string& flag, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", what));
}

absl::Status FromJson(const std::string& flag, const std::string& json, google::protobuf::Message& message) {
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &message);
  if (parsed.ok()) return absl::OkStatus();
  return Wrong(flag, std::string(parsed.message().data(), parsed.message().size()));
}

// What takes a number by which name: "yarn=8" -> {"yarn": {"factor": 8}}.
struct Spelling {
  const char* field;
  const char* number;  // nullptr: takes none.
  bool required = false;
};

const std::map<std::string, Spelling>& Spellings() {
  static const auto& spellings = *new std::map<std::string, Spelling>{
      {"grouped", {"grouped", "factor"}},
      {"recurrent", {"recurrent", nullptr}},
      {"interpolation", {"interpolation", "factor"}},
      {"ntk", {"ntk", "factor", true}},
      {"ntk-base", {"ntk", "base", true}},
      {"ntk-dynamic", {"ntk_dynamic", "factor"}},
      {"ntk-by-parts", {"ntk_by_parts", "factor"}},
      {"yarn", {"yarn", "factor"}},
  };
  return spellings;
}

bool IsNumber(const std::string& text) {
  double number = 0;
  return absl::SimpleAtod(text, &number);
}

}  // namespace

void ExtensionFlags::AddTo(CLI::App& command) {
  auto* json = command.add_option("--extension", json_, "Context extension, as JSON of longembed.v1.Extension");
  auto* windows =
      command.add_flag("--windows{default}", windows_, "Parallel context windows; --windows=N for their size");
  std::vector<CLI::Option*> flags{
      windows,
      command.add_option("--overlap", overlap_, "Tokens that neighboring windows share")->needs(windows),
      command.add_flag("--short-last", short_last_, "Leave a short last window short")->needs(windows),
      command.add_option("--aggregation", aggregation_, "Of window vectors: mean, token-weighted-mean, max, first")
          ->check(CLI::IsMember({"mean", "token-weighted-mean", "max", "first"}))
          ->needs(windows),
      command.add_option("--positions", positions_, kPositions),
      command.add_flag("--resonance", resonance_, "Round rotary wavelengths to whole tokens"),
      command.add_flag("--log-scaling", log_scaling_, "Scale attention with the logarithm of the length"),
      command.add_option("--temperature", temperature_, "Divide queries by it in attention: below 1 is sharper"),
      command.add_flag("--always", always_, "Apply it to short texts too"),
  };
  auto* recommended = command.add_flag("--recommended", recommended_, "What the model recommends");
  auto* profile = command.add_option("--profile", profile_, "A named extension of the server");
  for (CLI::Option* flag : flags) flag->excludes(json)->excludes(recommended)->excludes(profile);
  json->excludes(recommended)->excludes(profile);
  recommended->excludes(profile);
  command
      .add_option("--vectors", vectors_,
                  "one, one a window, span or token, or sparse (default: the model's first output)")
      ->check(CLI::IsMember({"one", "window", "span", "token", "sparse"}));
  command.add_option("--max-terms", max_terms_, "Of sparse vectors: keep so many of the largest weights");
  command.add_option("--spans", spans_,
                     "Late chunking, a vector each: sentences, ranges (of the input lines), or every N tokens");
}

absl::Status ExtensionFlags::Fill(v1::EmbedOptions& options) const {
  if (absl::Status status = FillSpans(options); !status.ok()) return status;
  if (!json_.empty()) return FromJson("--extension", json_, *options.mutable_extension());
  v1::Extension extension;
  if (absl::Status status = FillWindows(extension); !status.ok()) return status;
  if (absl::Status status = FillPositions(extension); !status.ok()) return status;
  extension.set_resonance(resonance_);
  extension.set_attention_log_scaling(log_scaling_);
  if (temperature_.has_value()) extension.set_attention_temperature(*temperature_);
  if (always_) extension.set_when(v1::Extension::ALWAYS);
  if (recommended_) extension.mutable_recommended();
  extension.set_profile(profile_);
  if (extension.ByteSizeLong() > 0) *options.mutable_extension() = std::move(extension);
  return absl::OkStatus();
}

absl::Status ExtensionFlags::FillWindows(v1::Extension& extension) const {
  if (windows_.empty()) return absl::OkStatus();
  v1::Extension::Windows& windows = *extension.mutable_windows();
  if (uint32_t tokens = 0; absl::SimpleAtoi(windows_, &tokens)) {
    windows.set_tokens(tokens);
  } else if (windows_ != "default") {
    return Wrong("--windows", absl::StrCat("\"", windows_, "\" is no number of tokens"));
  }
  if (uint32_t tokens = 0; absl::SimpleAtoi(overlap_, &tokens)) {
    windows.set_overlap(tokens);
  } else if (!overlap_.empty()) {
    return Wrong("--overlap", absl::StrCat("\"", overlap_, "\" is no number of tokens"));
  }
  if (short_last_) windows.set_last(v1::Extension::Windows::SHORT);
  if (aggregation_ == "mean") windows.set_aggregation(v1::Extension::Windows::MEAN);
  if (aggregation_ == "token-weighted-mean") windows.set_aggregation(v1::Extension::Windows::TOKEN_WEIGHTED_MEAN);
  if (aggregation_ == "max") windows.set_aggregation(v1::Extension::Windows::MAX);
  if (aggregation_ == "first") windows.set_aggregation(v1::Extension::Windows::FIRST);
  return absl::OkStatus();
}

absl::Status ExtensionFlags::FillPositions(v1::Extension& extension) const {
  if (positions_.empty()) return absl::OkStatus();
  const std::vector<std::string> parts = absl::StrSplit(positions_, absl::MaxSplits('=', 1));
  const std::string number = parts.size() > 1 ? parts[1] : "";
  if (parts.size() > 1 && number.empty()) {
    return Wrong("--positions", absl::StrCat("\"", positions_, "\" has no number after ="));
  }
  if (parts[0] == "self-extend") {
    auto& method = *extension.mutable_self_extend();
    if (number.empty()) return absl::OkStatus();
    const std::vector<std::string> numbers = absl::StrSplit(number, ',');
    uint32_t group = 0, window = 0;
    if (numbers.size() != 2 || !absl::SimpleAtoi(numbers[0], &group) || !absl::SimpleAtoi(numbers[1], &window)) {
      return Wrong("--positions", absl::StrCat("self-extend takes =GROUP,WINDOW, not \"", number, "\""));
    }
    method.set_group(group);
    method.set_neighbor_window(window);
    return absl::OkStatus();
  }
  const auto found = Spellings().find(parts[0]);
  if (found == Spellings().end()) {
    return Wrong("--positions", absl::StrCat("\"", parts[0], "\" is none of ", kPositions));
  }
  const Spelling& spelling = found->second;
  const bool good = number.empty() ? !spelling.required : spelling.number != nullptr && IsNumber(number);
  if (!good) return Wrong("--positions", absl::StrCat("\"", positions_, "\" is not of the form ", kPositions));
  const std::string content = number.empty() ? "" : absl::StrCat("\"", spelling.number, "\": \"", number, "\"");
  v1::Extension positions;
  const absl::Status status =
      FromJson("--positions", absl::StrCat("{\"", spelling.field, "\": {", content, "}}"), positions);
  extension.MergeFrom(positions);
  return status;
}

absl::Status ExtensionFlags::FillSpans(v1::EmbedOptions& options) const {
  if (vectors_ == "one") options.set_output(v1::EmbedOptions::ONE_VECTOR);
  if (vectors_ == "window") options.set_output(v1::EmbedOptions::WINDOW_VECTORS);
  if (vectors_ == "token") options.set_output(v1::EmbedOptions::TOKEN_VECTORS);
  if (vectors_ == "sparse") options.set_output(v1::EmbedOptions::SPARSE);
  if (vectors_ == "span" || !spans_.empty()) options.set_output(v1::EmbedOptions::SPAN_VECTORS);
  if (max_terms_.has_value()) options.set_max_terms(*max_terms_);
  if (spans_.empty()) return absl::OkStatus();
  if (!vectors_.empty() && vectors_ != "span") {
    return Wrong("--spans", absl::StrCat("cannot be combined with --vectors ", vectors_));
  }
  if (spans_ == "sentences") {
    options.mutable_spans()->mutable_sentences();
  } else if (spans_ == "ranges") {
    options.mutable_spans()->mutable_ranges();
  } else if (uint32_t tokens = 0; absl::SimpleAtoi(spans_, &tokens)) {
    options.mutable_spans()->mutable_every_tokens()->set_tokens(tokens);
  } else {
    return Wrong("--spans", absl::StrCat("\"", spans_, "\" is none of sentences, ranges and a number of tokens"));
  }
  return absl::OkStatus();
}

}  // namespace longembed::client
