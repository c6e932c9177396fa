// The commands explain, tokenize, models and health.
#include <google/protobuf/util/json_util.h>

#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/cli/command_line.h"
#include "client/cli/connection_errors.h"
#include "client/cli/text_reader.h"

namespace longembed::client {
namespace {

std::string ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(message, &json, options);
  return status.ok() ? json : "{}";
}

// Returns the extension as JSON for a request, without fields that have their default values.
std::string Compact(const v1::Extension& extension) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  std::string json;
  const auto status = google::protobuf::util::MessageToJsonString(extension, &json, options);
  return status.ok() ? json : "{}";
}

// Reads all texts of the source. These commands take few texts and send them in one call.
absl::StatusOr<std::vector<InputLine>> ReadAll(const Arguments& arguments, const Streams& streams) {
  TextReader reader(arguments.source, streams.in);
  std::vector<InputLine> lines;
  while (true) {
    absl::StatusOr<std::optional<InputLine>> line = reader.Next();
    if (!line.ok()) return line.status();
    if (!line->has_value()) return lines;
    if (!(*line)->input.ok()) return (*line)->input.status();
    lines.push_back(**std::move(line));
  }
}

// Writes one line of JSON: the id, then the fields of the result.
void WriteJson(const nlohmann::json& id, const google::protobuf::Message& result, std::ostream& out) {
  nlohmann::ordered_json object{{"id", nlohmann::ordered_json(id)}};
  object.update(nlohmann::ordered_json::parse(ToJson(result)));
  out << object.dump() << "\n";
}

// Describes a method, for example "YARN factor 2.58, query scale 1.15".
std::string Describe(const v1::Method& method) {
  std::string text = v1::Method::Kind_Name(method.kind());
  if (method.has_factor()) text += absl::StrFormat(" factor %g", method.factor());
  if (method.has_base()) text += absl::StrFormat(" base %g", method.base());
  if (method.has_group()) text += absl::StrFormat(" group %d, window %d", method.group(), method.neighbor_window());
  if (method.has_shift_from()) {
    text += absl::StrFormat(" from %d, window %d", method.shift_from(), method.local_window());
  }
  if (method.has_chunk()) text += absl::StrFormat(" chunk %d, window %d", method.chunk(), method.local_window());
  if (method.resonance()) text += ", resonance";
  if (method.has_query_scale()) text += absl::StrFormat(", query scale %g", method.query_scale());
  if (method.has_calibration()) {
    text += absl::StrFormat(", calibration %g over %d baskets in %d layers", method.calibration().strength(),
                            method.calibration().baskets(), method.calibration().layers());
  }
  return text;
}

void WriteExplanationText(const nlohmann::json& id, const v1::ExplainResult& result, std::ostream& out) {
  out << absl::StrFormat("%s: %d tokens, %d cut away, at most %d a sequence, %.2f GFLOP\n", id.dump(), result.tokens(),
                         result.truncated_tokens(), result.capacity(), result.cost().gflop());
  for (const v1::Sequence& sequence : result.sequences()) {
    out << absl::StrFormat("  content tokens [%d, %d), %d tokens, %s\n", sequence.content().start(),
                           sequence.content().end(), sequence.tokens(), Describe(sequence.method()));
  }
  for (const v1::Range& range : result.vectors()) {
    out << absl::StrFormat("  a vector of content tokens [%d, %d)\n", range.start(), range.end());
  }
}

void WriteTokensText(const nlohmann::json& id, const v1::TokenizedText& result, std::ostream& out) {
  out << id.dump() << ": " << result.tokens_size() << " tokens\n";
  for (const v1::Token& token : result.tokens()) {
    out << absl::StrFormat("  %7d  [%d, %d)  %s\n", token.id(), token.range().start(), token.range().end(),
                           token.text());
  }
}

void WriteModelText(const v1::Model& model, std::ostream& out) {
  out << absl::StrFormat("%s: %s, %d dimensions, %d tokens (%s), %s on %s\n", model.name(), model.architecture(),
                         model.dimensions(), model.plain_limit(), v1::Model::Pooling_Name(model.pooling()),
                         model.precision(), model.device());
  out << "  extensions: " << absl::StrJoin(model.methods(), ", ") << "\n";
  if (model.has_recommended_extension()) out << "  recommended: " << Compact(model.recommended_extension()) << "\n";
  if (model.has_recommended_multi_vector_extension()) {
    out << "  recommended for one vector per window: " << Compact(model.recommended_multi_vector_extension()) << "\n";
  }
  for (const auto& [name, value] : model.recommendation_evidence()) {
    out << absl::StrFormat("    %s: %s\n", name, value);
  }
  if (model.profiles_size() > 0) out << "  profiles: " << absl::StrJoin(model.profiles(), ", ") << "\n";
  for (const auto& [name, prompt] : model.prompts()) out << absl::StrFormat("  prompt %s: \"%s\"\n", name, prompt);
  if (!model.default_prompt_name().empty()) out << "  default prompt: " << model.default_prompt_name() << "\n";
  if (!model.similarity_function().empty()) out << "  similarity: " << model.similarity_function() << "\n";
  if (model.trained_dimensions_size() > 1)
    out << "  dimensions: " << absl::StrJoin(model.trained_dimensions(), ", ") << "\n";
  if (!model.trained_window_source().empty()) {
    out << absl::StrFormat("  trained for %d tokens, by %s; %s EOS token\n", model.trained_window(),
                           model.trained_window_source(), model.add_eos_token() ? "with" : "without");
  }
  out << "  from " << model.source() << ", license " << model.license() << "\n";
}

}  // namespace

int RunExplain(const Arguments& arguments, const Streams& streams) {
  const absl::StatusOr<std::vector<InputLine>> lines = ReadAll(arguments, streams);
  if (!lines.ok()) return PrintError(lines.status(), streams, kExitUsage);
  v1::ExplainRequest request;
  *request.mutable_options() = arguments.options;
  for (const InputLine& line : *lines) *request.add_inputs() = *line.input;
  Client client(arguments.client);
  const absl::StatusOr<v1::ExplainResponse> response = client.Explain(request, arguments.call);
  if (!response.ok()) return PrintError(ExplainConnection(response.status(), arguments.client), streams);
  if (const absl::Status status = CheckCount(response->results_size(), lines->size()); !status.ok()) {
    return PrintError(status, streams);
  }
  for (int i = 0; i < response->results_size(); ++i) {
    if (arguments.text_output) {
      WriteExplanationText((*lines)[i].id, response->results(i), streams.out);
    } else {
      WriteJson((*lines)[i].id, response->results(i), streams.out);
    }
  }
  return kExitOk;
}

int RunTokenize(const Arguments& arguments, const Streams& streams) {
  const absl::StatusOr<std::vector<InputLine>> lines = ReadAll(arguments, streams);
  if (!lines.ok()) return PrintError(lines.status(), streams, kExitUsage);
  v1::TokenizeRequest request;
  request.set_model(arguments.options.model());
  for (const InputLine& line : *lines) request.add_texts(line.input->text());
  Client client(arguments.client);
  const absl::StatusOr<v1::TokenizeResponse> response = client.Tokenize(request, arguments.call);
  if (!response.ok()) return PrintError(ExplainConnection(response.status(), arguments.client), streams);
  if (const absl::Status status = CheckCount(response->results_size(), lines->size()); !status.ok()) {
    return PrintError(status, streams);
  }
  for (int i = 0; i < response->results_size(); ++i) {
    if (arguments.text_output) {
      WriteTokensText((*lines)[i].id, response->results(i), streams.out);
    } else {
      WriteJson((*lines)[i].id, response->results(i), streams.out);
    }
  }
  return kExitOk;
}

int RunModels(const Arguments& arguments, const Streams& streams) {
  Client client(arguments.client);
  const absl::StatusOr<v1::ListModelsResponse> response = client.ListModels(arguments.call);
  if (!response.ok()) return PrintError(ExplainConnection(response.status(), arguments.client), streams);
  for (const v1::Model& model : response->models()) {
    if (arguments.text_output) {
      WriteModelText(model, streams.out);
    } else {
      streams.out << ToJson(model) << "\n";
    }
  }
  return kExitOk;
}

int RunHealth(const Arguments& arguments, const Streams& streams) {
  Client client(arguments.client);
  const absl::StatusOr<bool> serving = client.IsServing(arguments.health_service, arguments.call);
  if (!serving.ok()) return PrintError(ExplainConnection(serving.status(), arguments.client), streams);
  streams.out << (*serving ? "SERVING\n" : "NOT_SERVING\n");
  return *serving ? kExitOk : kExitFailed;
}

}  // namespace longembed::client
