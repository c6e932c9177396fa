#include "server/api/http/health_route.h"

#include <google/protobuf/empty.pb.h>

#include <memory>
#include <utility>

#include "server/api/http/json_dialect.h"
#include "server/errors/errors.h"
#include "server/http/json.h"

namespace longembed {
namespace {

using google::protobuf::Empty;

class CheckHealth final : public TypedOperation<Empty, Empty> {
 public:
  CheckHealth(const Health& health, const CallContext& call, const Request& request, Response& response)
      : TypedOperation(call, request, response), health_(health) {}

  void Start(Done done) override {
    done_ = std::move(done);
    End(health_.IsServing("").value_or(false) ? absl::OkStatus() : NotServing());
  }

 private:
  const Health& health_;
};

class HealthJson final : public JsonDialect {
 public:
  Error Describe(const absl::Status& status) const override {
    return {HttpStatusOf(status), JsonText(ErrorObject(status, {.message = "error"}))};
  }

 private:
  absl::Status Read(const nlohmann::json&, google::protobuf::Message&) override { return absl::OkStatus(); }
  int64_t MostSerializedBytes(int64_t) const override { return 2; }
  void Write(const google::protobuf::Message&, const google::protobuf::Message&, std::string& text) const override {
    text += "{}";
  }
};

}  // namespace

std::vector<Route> HealthRoutes(const Health& health) {
  const auto check = [&health](const char* path) -> Route {
    ApiMethod method = MakeMethod<CheckHealth>("http.Health", health);
    method.exempt = true;
    return {.is_get = true,
            .path = path,
            .method = std::move(method),
            .needs_key = false,
            .dialect = [](const std::string&) { return std::make_unique<HealthJson>(); }};
  };
  return {check("/health"), check("/ping")};  // SageMaker sends requests to /invocations only if /ping answers.
}

}  // namespace longembed
