// Shared code of the embeddings dialects, which rename the fields of longembed.v1's Embed.
#ifndef LONGEMBED_SERVER_API_HTTP_EMBED_DIALECT_H_
#define LONGEMBED_SERVER_API_HTTP_EMBED_DIALECT_H_

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "longembed/v1/embedding.pb.h"
#include "server/api/http/json_dialect.h"
#include "server/core/model_choice.h"

namespace longembed {

// Reads the keys of a JSON object one by one, and rejects keys that were not read.
class JsonFields {
 public:
  explicit JsonFields(const nlohmann::json& object) : object_(object) {}

  // Returns the value of the key, or null if the key is absent or its value is null.
  const nlohmann::json* Take(const std::string& key);
  // These set `value` if the key is present. Errors: WRONG_TYPE.
  absl::Status Take(const std::string& key, std::string& value);
  absl::Status Take(const std::string& key, bool& value);
  absl::Status TakeCount(const std::string& key, std::optional<uint32_t>& value);
  // Reads options of longembed.v1 that a dialect takes unchanged.
  absl::Status TakeOptions(std::initializer_list<const char*> keys, v1::EmbedOptions& options);
  // Returns an error if the object has keys that were not taken. Errors: UNKNOWN_FIELD.
  absl::Status CheckAllTaken() const;

 private:
  const nlohmann::json& object_;
  std::vector<std::string> taken_;
};

// Reads inputs: texts, or token ids as the model's own tokenizer gives them, special tokens included.
class InputReader {
 public:
  // `field` is the name of the inputs in the dialect.
  InputReader(std::string_view field, v1::EmbedRequest& request) : field_(field), request_(request) {}

  // Reads one text, several texts, the token ids of one text, or those of several. Errors: WRONG_TYPE, MISSING_FIELD,
  // TOO_MANY_ELEMENTS.
  absl::Status Read(const nlohmann::json* value);
  // Returns whether the request had a single input instead of a list.
  bool is_single() const { return is_single_; }

 private:
  absl::Status ReadOne(const nlohmann::json& value, const std::string& field);

  const std::string field_;
  v1::EmbedRequest& request_;
  bool is_single_ = false;
};

// Checks that each input of token ids begins and ends with the special tokens of its model's tokenizer. Ids of another
// tokenizer do not, and would give meaningless vectors. Errors: FOREIGN_TOKENS, and those of ResolveModel.
absl::Status CheckTokenIds(const v1::EmbedRequest& request, const ModelRegistry& models, const Profiles& profiles);

// Checks that no input is token ids, which hold their prompt already, because the request names a prompt in `field`.
// Errors: MISPLACED_FIELD.
absl::Status CheckPromptHasTexts(const v1::EmbedRequest& request, std::string_view field);

// Rewrites an error of Embed with the field names of a dialect that calls the inputs `inputs`.
absl::Status InDialect(const absl::Status& status, std::string_view inputs, bool is_single);

// Appends the vector as "[0.1,...]".
void AppendVector(const v1::Embedding& embedding, std::string& text);
// Appends the vector in quotes, as base64 of little-endian float32.
void AppendBase64(const v1::Embedding& embedding, std::string& text);

// Returns the method under the name that metrics and logs use for it over HTTP.
ApiMethod Named(std::string name, ApiMethod method);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_EMBED_DIALECT_H_
