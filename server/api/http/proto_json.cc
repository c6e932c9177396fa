#include "server/api/http/proto_json.h"

#include <utility>

#include "server/api/http/json_dialect.h"
#include "server/api/http/json_message.h"
#include "server/errors/rpc_status.h"

namespace longembed {
namespace {

using google::protobuf::Message;

class ProtoJson : public JsonDialect {
 public:
  Error Describe(const absl::Status& status) const override {
    return {HttpStatusOf(status), MessageToJson(ToRpcStatus(status))};
  }
  // The factor allows for field names and for the digits of a float32.
  int64_t MostSerializedBytes(int64_t wire_bytes) const override { return 8 * wire_bytes; }

 private:
  absl::Status Read(const nlohmann::json& body, Message& message) override { return ReadMessage(body, message); }
  void Write(const Message&, const Message& message, std::string& text) const override {
    AppendMessage(message, max_bytes(), text);
  }
};

class GetModelJson final : public ProtoJson {
 public:
  explicit GetModelJson(std::string name) : name_(std::move(name)) {}

 private:
  absl::Status Read(const nlohmann::json&, Message& message) override {
    static_cast<v1::GetModelRequest&>(message).set_model(name_);
    return absl::OkStatus();
  }

  const std::string name_;
};

}  // namespace

std::vector<Route> ProtoJsonRoutes(const LongembedContext& context) {
  const auto plain = [](const std::string&) { return std::make_unique<ProtoJson>(); };
  return {{.path = "/longembed/v1/embed", .method = EmbedMethod(context), .dialect = plain},
          {.path = "/longembed/v1/explain", .method = ExplainMethod(context), .dialect = plain},
          {.path = "/longembed/v1/tokenize", .method = TokenizeMethod(context), .dialect = plain},
          {.is_get = true, .path = "/longembed/v1/models", .method = ListModelsMethod(context), .dialect = plain},
          {.is_get = true,
           .path = "/longembed/v1/models/",
           .method = GetModelMethod(context),
           .dialect = [](const std::string& name) { return std::make_unique<GetModelJson>(name); }}};
}

}  // namespace longembed
