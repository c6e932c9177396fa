#include "server/api/http/embed_dialect.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "model/errors/errors.h"
#include "server/api/http/json_message.h"
#include "server/errors/errors.h"
#include "server/errors/reworded.h"
#include "server/http/json.h"
#include "server/rpc/wire.h"
#include "system/return_if_error.h"

namespace longembed {

using nlohmann::json;

const json* JsonFields::Take(const std::string& key) {
  taken_.push_back(key);
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null() ? nullptr : &*found;
}

absl::Status JsonFields::Take(const std::string& key, std::string& value) {
  const json* const found = Take(key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_string()) return WrongJsonType(key, "a string", found->type_name());
  value = found->get<std::string>();
  return absl::OkStatus();
}

absl::Status JsonFields::Take(const std::string& key, bool& value) {
  const json* const found = Take(key);
  if (found == nullptr) return absl::OkStatus();
  if (!found->is_boolean()) return WrongJsonType(key, "true or false", found->type_name());
  value = found->get<bool>();
  return absl::OkStatus();
}

absl::Status JsonFields::TakeCount(const std::string& key, std::optional<uint32_t>& value) {
  const json* const found = Take(key);
  if (found == nullptr) return absl::OkStatus();
  const bool fits = found->is_number_unsigned() && found->get<uint64_t>() <= std::numeric_limits<uint32_t>::max();
  if (!fits) return WrongJsonType(key, "a whole number from 0 to 4294967295", found->dump());
  value = found->get<uint32_t>();
  return absl::OkStatus();
}

absl::Status JsonFields::TakeOptions(std::initializer_list<const char*> keys, v1::EmbedOptions& options) {
  json given = json::object();
  for (const char* const key : keys) {
    if (const json* const value = Take(key); value != nullptr) given[key] = *value;
  }
  return given.empty() ? absl::OkStatus() : ReadMessage(given, options);
}

absl::Status JsonFields::CheckAllTaken() const {
  for (const auto& [key, value] : object_.items()) {
    if (std::ranges::find(taken_, key) == taken_.end()) return UnknownField(key, taken_);
  }
  return absl::OkStatus();
}

absl::Status InputReader::Read(const json* value) {
  if (value == nullptr) return MissingField(field_);
  is_single_ = !value->is_array() || (!value->empty() && value->front().is_number());
  if (is_single_) return ReadOne(*value, field_);
  const auto count = static_cast<int64_t>(value->size());
  if (count > kMaxElements) return TooManyElements(field_, count, kMaxElements);
  for (size_t i = 0; i < value->size(); ++i) {
    RETURN_IF_ERROR(ReadOne((*value)[i], absl::StrCat(field_, "[", i, "]")));
  }
  return absl::OkStatus();
}

absl::Status InputReader::ReadOne(const json& value, const std::string& field) {
  v1::Input& input = *request_.add_inputs();
  if (value.is_string()) {
    input.set_text(value.get_ref<const std::string&>());
    return absl::OkStatus();
  }
  if (!value.is_array()) return WrongJsonType(field, "a string, or an array of token ids", value.type_name());
  v1::TokenIds& tokens = *input.mutable_token_ids();
  tokens.set_complete(true);
  for (size_t i = 0; i < value.size(); ++i) {
    const json& id = value[i];
    const bool fits = id.is_number_unsigned() && id.get<uint64_t>() <= std::numeric_limits<uint32_t>::max();
    if (!fits) return WrongJsonType(absl::StrCat(field, "[", i, "]"), "a token id", id.dump());
    tokens.add_ids(id.get<uint32_t>());
  }
  return absl::OkStatus();
}

namespace {

bool HasTokenIds(const v1::EmbedRequest& request) {
  return std::ranges::any_of(request.inputs(), [](const v1::Input& input) { return input.has_token_ids(); });
}

}  // namespace

absl::Status CheckTokenIds(const v1::EmbedRequest& request, const ModelRegistry& models, const Profiles& profiles) {
  if (!HasTokenIds(request)) return absl::OkStatus();
  const absl::StatusOr<ModelChoice> choice = ResolveModel(models, profiles, request.options().model(), "options.model");
  if (!choice.ok()) return choice.status();
  const ModelManifest& manifest = choice->model->model().manifest;
  for (int i = 0; i < request.inputs_size(); ++i) {
    if (!request.inputs(i).has_token_ids()) continue;
    const auto& ids = request.inputs(i).token_ids().ids();
    const auto &prefix = manifest.special_prefix, &suffix = manifest.special_suffix;
    const auto same = [](uint32_t id, int32_t special) { return id == static_cast<uint32_t>(special); };
    // Without special tokens, nothing would tell the model's own tokens from those of another tokenizer.
    const bool whole =
        std::ssize(prefix) + std::ssize(suffix) > 0 && ids.size() >= std::ssize(prefix) + std::ssize(suffix) &&
        std::equal(prefix.begin(), prefix.end(), ids.begin(), [&](auto a, auto b) { return same(b, a); }) &&
        std::equal(suffix.rbegin(), suffix.rend(), ids.rbegin(), [&](auto a, auto b) { return same(b, a); });
    if (!whole) return ForeignTokens(absl::StrCat("inputs[", i, "]"), prefix, suffix);
  }
  return absl::OkStatus();
}

absl::Status CheckPromptHasTexts(const v1::EmbedRequest& request, std::string_view field) {
  if (!HasTokenIds(request)) return absl::OkStatus();
  return Misplaced(field, "inputs that are texts; token ids hold their prompt already");
}

absl::Status InDialect(const absl::Status& status, std::string_view inputs, bool is_single) {
  absl::Status renamed = is_single ? RenameField(status, "inputs[0]", inputs) : status;
  renamed = RenameField(renamed, "inputs", inputs);  // Errors of the whole call name no element.
  renamed = RenameField(renamed, "options.", "");
  // In the dialects, token ids take the place of a text.
  const std::string field = ErrorField(renamed);
  renamed = RenameField(renamed, field, absl::StrReplaceAll(field, {{".token_ids.ids", ""}, {".token_ids", ""}}));
  // The message, too, names options as longembed.v1 does.
  return Reworded(renamed, renamed.code(), absl::StrReplaceAll(renamed.message(), {{"options.", ""}}));
}

void AppendVector(const v1::Embedding& embedding, std::string& text) {
  text += '[';
  const char* separator = "";
  for (const float value : embedding.values()) {
    text += separator;
    AppendJsonNumber(value, text);
    separator = ",";
  }
  text += ']';
}

void AppendBase64(const v1::Embedding& embedding, std::string& text) {
  static_assert(std::endian::native == std::endian::little);
  const auto& values = embedding.values();
  const char* const bytes = reinterpret_cast<const char*>(values.data());
  absl::StrAppend(&text, "\"", absl::Base64Escape({bytes, values.size() * sizeof(float)}), "\"");
}

ApiMethod Named(std::string name, ApiMethod method) {
  method.name = std::move(name);
  return method;
}

}  // namespace longembed
