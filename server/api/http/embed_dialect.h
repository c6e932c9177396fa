// Shared code of the embeddings dialects, which have their own names for the fields of longembed.v1's Embed.
#ifndef LONGEMBED_SERVER_API_HTTP_EMBED_DIALECT_H_
#define LONGEMBED_SERVER_API_HTTP_EMBED_DIALECT_H_

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "longembed/v1/embedding.pb.h"
#include "server/api/http/json_dialect.h"
#include "server/core/model_choice.h"

namespace longembed {

// Reads the keys of a JSON object one after the other, and refuses those that were not read.
class JsonFields {
 public:
  explicit JsonFields(const nlohmann::json& object) : object_(object) {}

  // Null if the object lacks the key or has null.
  const nlohmann::json* Take(const std::string& key);
  // Each sets `value` where the key is there. Errors: WRONG_TYPE.
  absl::Status Take(const std::string& key, std::string& value);
  absl::Status Take(const std::string& key, bool& value);
  absl::Status TakeCount(const std::string& key, uint32_t& value);
  // Options of longembed.v1 that a dialect takes as they are.
  absl::Status TakeOptions(std::initializer_list<const char*> keys, v1::EmbedOptions& options);
  // Errors: UNKNOWN_FIELD.
  absl::Status CheckAllTaken() const;

 private:
  const nlohmann::json& object_;
  std::vector<std::string> taken_;
};

// Texts, or token ids as the model's own tokenizer gives them with its special tokens.
class InputReader {
 public:
  // `field`: its name in the dialect.
  InputReader(std::string_view field, v1::EmbedRequest& request) : field_(field), request_(request) {}

  // A text, several texts, one text's token ids, or those of several. Errors: WRONG_TYPE, MISSING_FIELD,
  // TOO_MANY_ELEMENTS.
  absl::Status Read(const nlohmann::json* value);
  // Whether there was one input, not a list of them.
  bool is_single() const { return is_single_; }

 private:
  absl::Status ReadOne(const nlohmann::json& value, const std::string& field);

  const std::string field_;
  v1::EmbedRequest& request_;
  bool is_single_ = false;
};

// Whether each input of token ids begins and ends with the special tokens of its model's tokenizer. Those of another
// tokenizer do not, and would make vectors of nonsense. Errors: FOREIGN_TOKENS, and those of ResolveModel.
absl::Status CheckTokenIds(const v1::EmbedRequest& request, const ModelRegistry& models, const Profiles& profiles);

// An error of Embed in the words of a dialect whose inputs are `inputs`.
absl::Status InDialect(const absl::Status& status, std::string_view inputs, bool is_single);

// "[0.1,...]"
void AppendVector(const v1::Embedding& embedding, std::string& text);
// In quotes: base64 of float32, little endian.
void AppendBase64(const v1::Embedding& embedding, std::string& text);

// A method under the name that metrics and logs have for it over HTTP.
ApiMethod Named(std::string name, ApiMethod method);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_EMBED_DIALECT_H_
