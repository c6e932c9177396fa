#include "server/api/http/cohere.h"

#include <openssl/rand.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "model/vector/encoding.h"
#include "server/api/http/embed_dialect.h"
#include "server/errors/errors.h"
#include "server/http/json.h"
#include "system/return_if_error.h"

namespace longembed {
namespace {

using google::protobuf::Message;
using nlohmann::json;

std::span<const float> ValuesOf(const v1::Embedding& embedding) {
  return {embedding.values().data(), static_cast<size_t>(embedding.values_size())};
}

// Returns components as longembed.v1's INT8 encoding packs them. A cosine does not need their scale.
std::vector<int> Levels(const v1::Embedding& embedding) {
  const std::string packed = PackInt8(ValuesOf(embedding)).bytes;
  const auto* const levels = reinterpret_cast<const int8_t*>(packed.data());
  return {levels, levels + packed.size()};
}

// Returns bits packed as in longembed.v1's BINARY encoding.
std::vector<int> Bits(const v1::Embedding& embedding) {
  const std::string packed = PackBinary(ValuesOf(embedding));
  const auto* const bytes = reinterpret_cast<const uint8_t*>(packed.data());
  return {bytes, bytes + packed.size()};
}

void AppendNumbers(const std::vector<int>& numbers, int offset, std::string& text) {
  text += '[';
  for (size_t i = 0; i < numbers.size(); ++i) absl::StrAppend(&text, i == 0 ? "" : ",", numbers[i] + offset);
  text += ']';
}

struct EmbeddingType {
  const char* name;
  void (*append)(const v1::Embedding& embedding, std::string& text);
};
const std::array<EmbeddingType, 6> kTypes{{
    {"float", &AppendVector},
    {"int8", [](const v1::Embedding& e, std::string& text) { AppendNumbers(Levels(e), 0, text); }},
    {"uint8", [](const v1::Embedding& e, std::string& text) { AppendNumbers(Levels(e), 128, text); }},
    {"binary", [](const v1::Embedding& e, std::string& text) { AppendNumbers(Bits(e), -128, text); }},
    {"ubinary", [](const v1::Embedding& e, std::string& text) { AppendNumbers(Bits(e), 0, text); }},
    {"base64", &AppendBase64},
}};

std::string RandomId() {
  std::array<unsigned char, 16> bytes{};
  RAND_bytes(bytes.data(), bytes.size());
  std::string hex = absl::BytesToHexString({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  for (const size_t dash : {20, 16, 12, 8}) hex.insert(dash, "-");
  return hex;
}

class CohereEmbed final : public JsonDialect {
 public:
  explicit CohereEmbed(const LongembedContext& context) : context_(context) {}

  Error Describe(const absl::Status& status) const override {
    const absl::Status renamed = RenameField(status, "options.dimensions", "output_dimension");
    return {HttpStatusOf(status), JsonText(ErrorObject(InDialect(renamed, "texts", is_single_), {}))};
  }

  // Each float, of four bytes on the wire, is written in up to six types. The answer repeats the texts, which take no
  // more than they took in the request.
  int64_t MostSerializedBytes(int64_t wire_bytes) const override {
    constexpr int64_t kRest = 512;
    return 8 * wire_bytes + body_bytes() + kRest;
  }

 private:
  absl::Status Read(const json& body, Message& message) override {
    auto& request = static_cast<v1::EmbedRequest&>(message);
    v1::EmbedOptions& options = *request.mutable_options();
    JsonFields fields(body);
    InputReader inputs("texts", request);
    const absl::Status read = inputs.Read(fields.Take("texts"));
    is_single_ = inputs.is_single();
    RETURN_IF_ERROR(read);
    RETURN_IF_ERROR(ReadOptions(fields, options));
    const absl::StatusOr<ModelChoice> choice =
        ResolveModel(context_.models, context_.profiles, options.model(), "options.model");
    if (!choice.ok()) return choice.status();
    RETURN_IF_ERROR(ReadInputType(fields, *choice, options));
    RETURN_IF_ERROR(ReadTypes(fields.Take("embedding_types")));
    RETURN_IF_ERROR(ReadPriority(fields, options));
    RETURN_IF_ERROR(fields.TakeOptions({"extension", "normalize", "force_dimensions"}, options));
    RETURN_IF_ERROR(fields.CheckAllTaken());
    CutBeyondWindows(*choice, options);
    if (options.has_input_type()) RETURN_IF_ERROR(CheckPromptHasTexts(request, "input_type"));
    return CheckTokenIds(request, context_.models, context_.profiles);
  }

  static absl::Status ReadOptions(JsonFields& fields, v1::EmbedOptions& options) {
    std::string model, truncate = "END";
    std::optional<uint32_t> dimensions, max_tokens;
    RETURN_IF_ERROR(fields.Take("model", model));
    RETURN_IF_ERROR(fields.Take("truncate", truncate));
    RETURN_IF_ERROR(fields.TakeCount("output_dimension", dimensions));
    RETURN_IF_ERROR(fields.TakeCount("max_tokens", max_tokens));
    v1::EmbedOptions::Truncate cut;
    if (!v1::EmbedOptions::Truncate_Parse(truncate, &cut)) {
      return WrongJsonType("truncate", "\"NONE\", \"START\" or \"END\"", absl::StrCat("\"", truncate, "\""));
    }
    options.set_model(model);
    options.set_truncate(cut);
    options.set_output(v1::EmbedOptions::ONE_VECTOR);
    if (dimensions.has_value()) options.set_dimensions(*dimensions);
    if (max_tokens.has_value()) options.set_max_tokens(*max_tokens);
    return absl::OkStatus();
  }

  // Sets options.input_type if the model has a prompt for it: every Cohere request has an input type, but not every
  // model has prompts.
  static absl::Status ReadInputType(JsonFields& fields, const ModelChoice& choice, v1::EmbedOptions& options) {
    std::string type;
    RETURN_IF_ERROR(fields.Take("input_type", type));
    constexpr std::array kKnown{"search_query", "search_document", "classification", "clustering", ""};
    if (std::ranges::find(kKnown, type) == kKnown.end()) {
      return WrongJsonType("input_type", "search_query, search_document, classification or clustering",
                           absl::StrCat("\"", type, "\""));
    }
    const auto& prompts = choice.model->model().manifest.input_types;
    const bool query = type == "search_query";
    if (!query && type != "search_document") return absl::OkStatus();
    if (prompts.contains(query ? "QUERY" : "DOCUMENT")) {
      options.set_input_type(query ? v1::EmbedOptions::QUERY : v1::EmbedOptions::DOCUMENT);
    }
    return absl::OkStatus();
  }

  // Windows hold texts of up to max_tokens_per_input tokens. Cohere's `truncate` cuts longer ones, too, and is END by
  // default, so that no text is refused for its length.
  void CutBeyondWindows(const ModelChoice& choice, v1::EmbedOptions& options) const {
    if (options.truncate() == v1::EmbedOptions::NONE || options.has_max_tokens()) return;
    const absl::StatusOr<Extension> extension =
        choice.extension != nullptr ? *choice.extension
                                    : ResolveExtension(options.extension(), v1::EmbedOptions::ONE_VECTOR,
                                                       choice.model->model().manifest, context_.profiles);
    if (!extension.ok() || !extension->windows.has_value()) return;  // Embed returns the error.
    options.set_max_tokens(static_cast<uint32_t>(context_.limits.max_tokens_per_input));
  }

  // Reads the priority, which is a number in Cohere's API (0 is the highest) and a name in longembed.v1's.
  static absl::Status ReadPriority(JsonFields& fields, v1::EmbedOptions& options) {
    const json* const value = fields.Take("priority");
    if (value == nullptr || !value->is_number()) return fields.TakeOptions({"priority"}, options);
    constexpr uint32_t kLowest = 999;
    std::optional<uint32_t> number;
    const absl::Status status = fields.TakeCount("priority", number);
    if (!status.ok() || *number > kLowest) {
      return WrongJsonType("priority", "INTERACTIVE, BULK, or a whole number from 0 to 999", value->dump());
    }
    options.set_priority(number == 0 ? v1::EmbedOptions::INTERACTIVE : v1::EmbedOptions::BULK);
    return absl::OkStatus();
  }

  absl::Status ReadTypes(const json* names) {
    if (names == nullptr) {
      types_ = {&kTypes.front()};
      return absl::OkStatus();
    }
    const auto wrong = [](const json& found) {
      const auto name = [](std::string* out, const EmbeddingType& type) { *out += type.name; };
      return WrongJsonType("embedding_types", absl::StrCat("a list of ", absl::StrJoin(kTypes, ", ", name)),
                           found.dump());
    };
    if (!names->is_array() || names->empty()) return wrong(*names);
    for (const json& name : *names) {
      const auto found = std::ranges::find_if(kTypes, [&name](const EmbeddingType& type) { return name == type.name; });
      if (found == kTypes.end()) return wrong(name);
      if (std::ranges::find(types_, &*found) == types_.end()) types_.push_back(&*found);
    }
    return absl::OkStatus();
  }

  void Write(const Message& request, const Message& message, std::string& text) const override {
    const auto& response = static_cast<const v1::EmbedResponse&>(message);
    uint64_t tokens = 0;
    for (const v1::EmbedResult& result : response.results()) tokens += result.tokens();
    text += absl::StrCat(R"({"id":")", RandomId(), R"(","response_type":"embeddings_by_type","embeddings":{)");
    for (const EmbeddingType* const type : types_) {
      absl::StrAppend(&text, type == types_.front() ? "\"" : ",\"", type->name, "\":[");
      for (int i = 0; i < response.results_size() && !IsTooLarge(text); ++i) {
        if (i > 0) text += ",";
        type->append(response.results(i).embeddings(0), text);
      }
      text += "]";
    }
    text += R"(},"texts":[)";
    const auto& inputs = static_cast<const v1::EmbedRequest&>(request).inputs();
    for (int i = 0; i < inputs.size(); ++i) {
      if (i > 0) text += ",";
      AppendJsonString(inputs[i].text(), text);
    }
    text += R"(],"meta":{"api_version":{"version":"2"},"billed_units":{"input_tokens":)";
    absl::StrAppend(&text, tokens, R"(}},"recipe":")", response.recipe(), "\"}");
  }

  const LongembedContext& context_;
  bool is_single_ = false;
  std::vector<const EmbeddingType*> types_;
};

}  // namespace

std::vector<Route> CohereRoutes(const LongembedContext& context) {
  return {{.path = "/v2/embed",
           .method = Named("cohere.Embed", EmbedMethod(context)),
           .dialect = [&context](const std::string&) { return std::make_unique<CohereEmbed>(context); }}};
}

}  // namespace longembed
