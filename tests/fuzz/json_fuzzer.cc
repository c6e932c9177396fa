// Fuzzes the body of an HTTP request. It is parsed as JSON, read as each message that JSON may represent, and read as
// the input of an OpenAI request. Whatever is accepted must read back as itself.

#include <cstdint>
#include <string>
#include <string_view>

#include "longembed/v1/embedding.pb.h"
#include "model/text/utf8.h"
#include "server/api/http/embed_dialect.h"
#include "server/api/http/json_message.h"
#include "server/http/json.h"
#include "server/http/request_target.h"
#include "tests/fuzz/expect.h"

namespace longembed {
namespace {

using nlohmann::json;

template <typename Message>
void ReadAs(const json& body) {
  Message message, again;
  if (const absl::Status status = ReadMessage(body, message); !status.ok()) return ExpectRefusal(status);
  const absl::StatusOr<json> written = ParseJson(MessageToJson(message));
  FUZZ_EXPECT(written.ok() && ReadMessage(*written, again).ok());
  FUZZ_EXPECT(message.SerializeAsString() == again.SerializeAsString());
}

void ReadAsOpenAi(const json& body) {
  JsonFields fields(body);
  v1::EmbedRequest request;
  InputReader inputs("input", request);
  if (const absl::Status status = inputs.Read(fields.Take("input")); !status.ok()) return ExpectRefusal(status);
  FUZZ_EXPECT(!inputs.is_single() || request.inputs_size() == 1);
  for (const v1::Input& input : request.inputs()) {
    FUZZ_EXPECT(input.content_case() != v1::Input::CONTENT_NOT_SET && !FirstInvalidUtf8Byte(input.text()).has_value());
  }
  const absl::Status status =
      fields.TakeOptions({"extension", "truncate", "max_tokens", "priority"}, *request.mutable_options());
  if (!status.ok()) return ExpectRefusal(status);
  if (const absl::Status unknown = fields.CheckAllTaken(); !unknown.ok()) ExpectRefusal(unknown);
}

void Run(std::string_view text) {
  const std::optional<std::string> path = PathOf(text);
  FUZZ_EXPECT(!path.has_value() || (path->front() == '/' && path->size() <= text.size()));
  FUZZ_EXPECT(JsonParsingBytes(text) >= static_cast<int64_t>(text.size()));
  const absl::StatusOr<json> body = ParseJson(text);
  if (!body.ok()) return ExpectRefusal(body.status());
  const absl::StatusOr<json> again = ParseJson(body->dump());
  FUZZ_EXPECT(again.ok() && *again == *body);
  ReadAs<v1::EmbedRequest>(*body);
  ReadAs<v1::ExplainRequest>(*body);
  ReadAs<v1::TokenizeRequest>(*body);
  if (body->is_object()) ReadAsOpenAi(*body);
}

}  // namespace
}  // namespace longembed

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  longembed::Run({reinterpret_cast<const char*>(data), size});
  return 0;
}
