#include "client/cli/extension_flags.h"

#include <google/protobuf/util/json_util.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "client/cli/validators.h"
#include "system/duplicate_keys.h"
#include "system/return_if_error.h"

namespace longembed::client {
namespace {

absl::Status Wrong(const std::string& flag, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", what));
}

absl::Status FromJson(const std::string& flag, const std::string& json, google::protobuf::Message& message) {
  if (const std::string key = FindDuplicateKey(json); !key.empty())
    return Wrong(flag, absl::StrCat("has \"", key, "\" twice in one object"));
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &message);
  if (parsed.ok()) return absl::OkStatus();
  // The parser shows the place of an error in two more lines. A path is missing before ": " for the text as a whole.
  const std::string words(parsed.message().data(), parsed.message().size());
  return Wrong(flag, std::string(absl::StripPrefix(words.substr(0, words.find('\n')), ": ")));
}

// How a value of --positions is converted to a field of Extension, for example yarn=8 to {"yarn": {"factor": 8}}.
struct PositionsFlag {
  std::string field;
  std::vector<std::string> numbers;  // The fields that take the numbers. A value gives all of the numbers or none.
  bool required = false;
};

// Returns the flags of all positions methods, which are the messages in Extension except `windows`,
// `attention_calibration` and `recommended`. A method with a factor takes it as its only number. A method without one
// takes all of its fields.
std::map<std::string, PositionsFlag> MakePositionsFlags() {
  std::map<std::string, PositionsFlag> flags;
  const auto& extension = *v1::Extension::descriptor();
  for (int i = 0; i < extension.field_count(); ++i) {
    const auto* const method = extension.field(i)->message_type();
    const std::string& name = extension.field(i)->name();
    if (method == nullptr || name == "windows" || name == "recommended") continue;
    if (name == "attention_calibration") continue;
    PositionsFlag& flag = flags[absl::StrReplaceAll(name, {{"_", "-"}})];
    flag.field = name;
    for (int j = 0; j < method->field_count(); ++j) flag.numbers.push_back(method->field(j)->name());
    if (method->FindFieldByName("factor") != nullptr) flag.numbers = {"factor"};
  }
  flags["ntk"].required = true;
  flags["ntk-base"] = {.field = "ntk", .numbers = {"base"}, .required = true};
  return flags;
}

const std::map<std::string, PositionsFlag>& PositionsFlags() {
  static const auto& flags = *new std::map<std::string, PositionsFlag>(MakePositionsFlags());
  return flags;
}

std::string PositionsHelp() {
  std::vector<std::string> forms;
  for (const auto& [name, flag] : PositionsFlags()) {
    const std::string numbers = absl::AsciiStrToUpper(absl::StrJoin(flag.numbers, ","));
    forms.push_back(flag.required     ? absl::StrCat(name, "=", numbers)
                    : numbers.empty() ? name
                                      : absl::StrCat(name, "[=", numbers, "]"));
  }
  return absl::StrCat(absl::StrJoin(forms, ", "),
                      "; numbers in brackets have defaults, most of them computed from the text's length");
}

bool IsNumber(const std::string& text) {
  double number = 0;
  return absl::SimpleAtod(text, &number);
}

}  // namespace

void ExtensionFlags::AddTo(CLI::App& command) {
  auto* json = command.add_option("--extension", json_, "Context extension, as JSON of longembed.v1.Extension");
  auto* windows =
      command.add_flag("--windows{default}", windows_, "Parallel context windows; --windows=N for their size")
          ->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  std::vector<CLI::Option*> flags{
      windows,
      command.add_option("--overlap", overlap_, "Tokens that neighboring windows share")->needs(windows),
      command.add_flag("--short-last", short_last_, "Leave a short last window short")->needs(windows),
      command
          .add_option("--aggregation", aggregation_,
                      "How window vectors become one: mean, token-weighted-mean, max (worse than truncation), first, "
                      "norm-weighted, top-norm")
          ->check(CLI::IsMember({"mean", "token-weighted-mean", "max", "first", "norm-weighted", "top-norm"}))
          ->needs(windows),
      command.add_option("--norm-temperature", norm_temperature_, "T of norm-weighted: weights are softmax(norm / T)")
          ->needs(windows),
      command.add_option("--top", top_, "Number of window vectors of greatest norm that top-norm averages")
          ->check(Decimal())
          ->needs(windows),
      command
          .add_option("--groups", groups_,
                      "With --vectors window: average neighboring windows to at most this many vectors")
          ->check(Decimal())
          ->needs(windows),
      command.add_option("--positions", positions_, PositionsHelp()),
      command.add_flag("--resonance", resonance_, "Round rotary wavelengths to whole tokens"),
      command.add_flag("--log-scaling", log_scaling_, "Scale attention with the logarithm of the length"),
      command.add_option("--temperature", temperature_, "Divide queries by this number; below 1, attention is sharper"),
      command
          .add_flag("--calibration{default}", calibration_,
                    "Even attention out over positions; --calibration=STRENGTH, 0 to 1")
          ->multi_option_policy(CLI::MultiOptionPolicy::Throw),
      command.add_flag("--always", always_, "Apply the extension to short texts too"),
  };
  auto* recommended = command.add_flag("--recommended", recommended_, "Use the extension that the model recommends");
  auto* profile = command.add_option("--profile", profile_, "Use an extension that the server's config names");
  for (CLI::Option* flag : flags) flag->excludes(json)->excludes(recommended)->excludes(profile);
  json->excludes(recommended)->excludes(profile);
  recommended->excludes(profile);
  command
      .add_option("--vectors", vectors_,
                  "one, or one per window, span or token, or sparse (default: the model's first output)")
      ->check(CLI::IsMember({"one", "window", "span", "token", "sparse"}));
  command.add_option("--token-pooling", token_pooling_, "Keep about one of this many token vectors of a document")
      ->check(Decimal());
  command.add_option("--max-terms", max_terms_, "Keep this many of the largest weights of a sparse vector")
      ->check(Decimal());
  command.add_option("--spans", spans_,
                     "Late chunking, one vector per: sentences, ranges (of the input lines), or every N tokens");
}

absl::Status ExtensionFlags::Fill(v1::EmbedOptions& options) const {
  RETURN_IF_ERROR(FillSpans(options));
  if (!json_.empty()) return FromJson("--extension", json_, *options.mutable_extension());
  v1::Extension extension;
  RETURN_IF_ERROR(FillWindows(extension));
  RETURN_IF_ERROR(FillPositions(extension));
  extension.set_resonance(resonance_);
  extension.set_attention_log_scaling(log_scaling_);
  if (temperature_.has_value()) extension.set_attention_temperature(*temperature_);
  RETURN_IF_ERROR(FillCalibration(extension));
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
    return Wrong("--windows", absl::StrCat("\"", windows_, "\" is not a number of tokens"));
  }
  if (uint32_t tokens = 0; absl::SimpleAtoi(overlap_, &tokens)) {
    windows.set_overlap(tokens);
  } else if (!overlap_.empty()) {
    return Wrong("--overlap", absl::StrCat("\"", overlap_, "\" is not a number of tokens"));
  }
  if (short_last_) windows.set_last(v1::Extension::Windows::SHORT);
  if (aggregation_ == "mean") windows.set_aggregation(v1::Extension::Windows::MEAN);
  if (aggregation_ == "token-weighted-mean") windows.set_aggregation(v1::Extension::Windows::TOKEN_WEIGHTED_MEAN);
  if (aggregation_ == "max") windows.set_aggregation(v1::Extension::Windows::MAX);
  if (aggregation_ == "first") windows.set_aggregation(v1::Extension::Windows::FIRST);
  if (aggregation_ == "norm-weighted") windows.set_aggregation(v1::Extension::Windows::NORM_WEIGHTED);
  if (aggregation_ == "top-norm") windows.set_aggregation(v1::Extension::Windows::TOP_NORM);
  if (norm_temperature_.has_value()) windows.set_norm_temperature(*norm_temperature_);
  if (top_.has_value()) windows.set_top(*top_);
  if (groups_.has_value()) windows.set_vectors(*groups_);
  return absl::OkStatus();
}

absl::Status ExtensionFlags::FillCalibration(v1::Extension& extension) const {
  if (calibration_.empty()) return absl::OkStatus();
  v1::Extension::AttentionCalibration& calibration = *extension.mutable_attention_calibration();
  double strength = 0;
  if (calibration_ == "default") return absl::OkStatus();
  if (!absl::SimpleAtod(calibration_, &strength)) {
    return Wrong("--calibration", absl::StrCat("\"", calibration_, "\" is not a number"));
  }
  calibration.set_strength(strength);
  return absl::OkStatus();
}

absl::Status ExtensionFlags::FillPositions(v1::Extension& extension) const {
  if (positions_.empty()) return absl::OkStatus();
  const std::vector<std::string> parts = absl::StrSplit(positions_, absl::MaxSplits('=', 1));
  const std::string number = parts.size() > 1 ? parts[1] : "";
  if (parts.size() > 1 && number.empty()) {
    return Wrong("--positions", absl::StrCat("\"", positions_, "\" has no number after ="));
  }
  const auto found = PositionsFlags().find(parts[0]);
  if (found == PositionsFlags().end()) {
    return Wrong("--positions", absl::StrCat("\"", parts[0], "\" is not one of ", PositionsHelp()));
  }
  const PositionsFlag& flag = found->second;
  std::vector<std::string> numbers;
  if (!number.empty()) numbers = absl::StrSplit(number, ',');
  const bool complete = numbers.empty() ? !flag.required : numbers.size() == flag.numbers.size();
  if (!complete || !std::ranges::all_of(numbers, IsNumber)) {
    return Wrong("--positions", absl::StrCat("\"", positions_, "\" is not of the form ", PositionsHelp()));
  }
  std::vector<std::string> members;
  for (size_t i = 0; i < numbers.size(); ++i) {
    members.push_back(absl::StrCat("\"", flag.numbers[i], "\": \"", numbers[i], "\""));
  }
  v1::Extension positions;
  const std::string json = absl::StrCat("{\"", flag.field, "\": {", absl::StrJoin(members, ", "), "}}");
  const absl::Status status = FromJson("--positions", json, positions);
  extension.MergeFrom(positions);
  return status;
}

absl::Status ExtensionFlags::FillSpans(v1::EmbedOptions& options) const {
  if (vectors_ == "one") options.set_output(v1::EmbedOptions::ONE_VECTOR);
  if (vectors_ == "window") options.set_output(v1::EmbedOptions::WINDOW_VECTORS);
  if (vectors_ == "token") options.set_output(v1::EmbedOptions::TOKEN_VECTORS);
  if (vectors_ == "sparse") options.set_output(v1::EmbedOptions::SPARSE);
  if (vectors_ == "span" || !spans_.empty()) options.set_output(v1::EmbedOptions::SPAN_VECTORS);
  if (token_pooling_.has_value()) options.set_token_pooling(*token_pooling_);
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
    return Wrong("--spans", absl::StrCat("\"", spans_, "\" is not sentences, ranges or a number of tokens"));
  }
  return absl::OkStatus();
}

}  // namespace longembed::client
