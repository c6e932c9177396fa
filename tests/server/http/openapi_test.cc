// Compares openapi.json with the routes that it describes: their fields, defaults and answers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "model/errors/errors.h"
#include "server/api/http/pages.h"
#include "server/api/http/routes.h"
#include "server/http/byte_chain.h"
#include "server/http/http_server.h"
#include "tests/server/api/service_test.h"
#include "tests/server/http/raw_connection.h"

namespace longembed {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Describes the first difference between a value and a schema of the document. The text is empty if there is none. An
// object must not have keys that its schema does not list.
class SchemaCheck {
 public:
  explicit SchemaCheck(const json& document) : document_(document) {}

  std::string Differs(const json& value, const json& schema, const std::string& at = "answer") const {
    if (schema.contains("$ref")) {
      return Differs(value, document_.at(json::json_pointer(schema["$ref"].get<std::string>().substr(1))), at);
    }
    if (schema.contains("const")) return value == schema["const"] ? "" : absl::StrCat(at, " is ", value.dump());
    for (const char* const choice : {"oneOf", "anyOf"}) {
      if (schema.contains(choice)) return DiffersFromAll(value, schema[choice], at);
    }
    if (!HasType(value, schema["type"])) return absl::StrCat(at, " is no ", schema["type"].dump());
    const bool named = !schema.contains("enum") || Contains(schema["enum"], value);
    if (!named) return absl::StrCat(at, " is ", value.dump());
    if (value.is_array()) return ItemsDiffer(value, schema, at);
    return value.is_object() ? FieldsDiffer(value, schema, at) : "";
  }

 private:
  static bool Contains(const json& list, const json& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
  }

  static bool HasType(const json& value, const json& type) {
    if (type.is_array()) {
      return std::any_of(type.begin(), type.end(), [&value](const json& each) { return HasType(value, each); });
    }
    if (type == "integer") return value.is_number_integer();
    return type == "number" ? value.is_number() : type == value.type_name();
  }

  std::string DiffersFromAll(const json& value, const json& schemas, const std::string& at) const {
    std::string all;
    for (const json& schema : schemas) {
      const std::string differs = Differs(value, schema, at);
      if (differs.empty()) return "";
      absl::StrAppend(&all, differs, "; ");
    }
    return all;
  }

  std::string ItemsDiffer(const json& value, const json& schema, const std::string& at) const {
    for (const json& item : value) {
      if (std::string differs = Differs(item, schema["items"], at + "[]"); !differs.empty()) return differs;
    }
    return "";
  }

  std::string FieldsDiffer(const json& value, const json& schema, const std::string& at) const {
    for (const json& name : schema.value("required", json::array())) {
      if (!value.contains(name.get<std::string>())) return absl::StrCat(at, " has no ", name.dump());
    }
    const json properties = schema.value("properties", json::object());
    for (const auto& [key, field] : value.items()) {
      const json& said = properties.contains(key) ? properties[key] : schema.value("additionalProperties", json());
      if (key.starts_with("@") || at == "answer.details[]") continue;  // google.protobuf.Any may hold anything.
      if (!said.is_object()) return absl::StrCat(at, " has ", key, ", which the document does not know");
      if (std::string differs = Differs(field, said, absl::StrCat(at, ".", key)); !differs.empty()) return differs;
    }
    return "";
  }

  const json& document_;
};

class OpenApiTest : public ServiceTest {
 protected:
  OpenApiTest() {
    config_.limits = Options(absl::Minutes(10)).config.limits;
    server_.health().SetServing(true);
    routes_ = MakeRoutes(server_.apis(), config_.http, server_.health());
  }

  static std::string KeyOf(const Route& route) {
    const bool has_parameter = route.path.size() > 1 && route.path.back() == '/';
    return absl::StrCat(route.is_get ? "get " : "post ", route.path, has_parameter ? "{model}" : "");
  }
  const json& OperationOf(const Route& route) const {
    const std::vector<std::string> key = absl::StrSplit(KeyOf(route), ' ');
    return document_.at("paths").at(key[1]).at(key[0]);
  }
  const json& RequestOf(const Route& route) const {
    return OperationOf(route).at("requestBody").at("content").at("application/json");
  }
  const json& SchemaOf(const json& reference) const {
    return document_.at(json::json_pointer(reference.at("$ref").get<std::string>().substr(1)));
  }

  // Reads a request as the route's dialect does.
  static absl::Status Read(const Route& route, const json& body, Message& message) {
    return route.dialect("")->Parse(ToBytes(body.dump()), 1 << 16, message);
  }
  static absl::Status Read(const Route& route, const json& body) {
    const std::unique_ptr<Message> message(route.method.request->New());
    return Read(route, body, *message);
  }

  std::string Ask(int port, const std::string& request) {
    RawConnection connection(port);
    connection.Send(request);
    return connection.ReadResponse();
  }
  std::unique_ptr<HttpServer> Serve() {
    return std::make_unique<HttpServer>(config_, server_.host(),
                                        MakeRoutes(server_.apis(), config_.http, server_.health()),
                                        *Acceptor::Listen("127.0.0.1:0", {.silence = absl::Seconds(10)}), nullptr);
  }

  const json document_ = json::parse(OpenApiJson());
  ServerConfig config_;
  Routes routes_;
};

TEST_F(OpenApiTest, DescribesExactlyTheRoutes) {
  std::set<std::string> told, served;
  for (const auto& [path, operations] : document_.at("paths").items()) {
    for (const auto& [method, operation] : operations.items()) told.insert(absl::StrCat(method, " ", path));
  }
  for (const Route& route : routes_.calls) served.insert(KeyOf(route));
  EXPECT_EQ(told, served);
}

TEST_F(OpenApiTest, DescribesExactlyTheFieldsOfRequests) {
  for (const Route& route : routes_.calls) {
    if (route.is_get) continue;
    std::set<std::string> told;
    for (const auto& [name, schema] : SchemaOf(RequestOf(route)["schema"])["properties"].items()) told.insert(name);
    json body = RequestOf(route)["example"];
    EXPECT_EQ(ErrorReason(Read(route, body)), "") << KeyOf(route) << Read(route, body);
    body["no_such_field"] = 1;
    const absl::Status unknown = Read(route, body);
    EXPECT_EQ(ErrorReason(unknown), "UNKNOWN_FIELD") << KeyOf(route) << unknown;
    const std::vector<std::string> parts = absl::StrSplit(std::string(unknown.message()), "it has ");
    const std::set<std::string> taken = absl::StrSplit(parts.back(), ", ");
    EXPECT_EQ(told, taken) << KeyOf(route);
  }
}

TEST_F(OpenApiTest, RequiredFieldsAreRequired) {
  for (const Route& route : routes_.calls) {
    if (route.is_get) continue;
    for (const json& name : SchemaOf(RequestOf(route)["schema"]).value("required", json::array())) {
      json body = RequestOf(route)["example"];
      body.erase(name.get<std::string>());
      EXPECT_EQ(ErrorReason(Read(route, body)), "MISSING_FIELD") << KeyOf(route) << name;
    }
  }
}

TEST_F(OpenApiTest, ValuesOfEnumsAreTakenAndOthersRefused) {
  for (const Route& route : routes_.calls) {
    if (route.is_get) continue;
    for (const auto& [name, schema] : SchemaOf(RequestOf(route)["schema"])["properties"].items()) {
      const bool is_list = schema.value("type", "") == "array";
      const json& of_one = is_list ? schema["items"] : schema;
      if (!of_one.contains("enum")) continue;
      json body = RequestOf(route)["example"];
      const auto read = [&](const json& value) {
        body[name] = is_list ? json::array({value}) : value;
        return Read(route, body);
      };
      for (const json& value : of_one["enum"]) EXPECT_TRUE(read(value).ok()) << KeyOf(route) << name << value;
      EXPECT_EQ(ErrorReason(read("no such value")), "WRONG_TYPE") << KeyOf(route) << name;
    }
  }
}

// Returns true if a message, or the options in it, distinguish the default from an absent field.
bool HasPresence(const Message& message, const std::string& name) {
  for (const auto* const type : {message.GetDescriptor(), v1::EmbedOptions::descriptor()}) {
    const FieldDescriptor* const field = type->FindFieldByName(name);
    if (field != nullptr && field->has_presence()) return true;
  }
  return false;
}

TEST_F(OpenApiTest, DefaultsEqualAbsentFields) {
  int compared = 0;
  for (const Route& route : routes_.calls) {
    if (route.is_get) continue;
    const std::string api = OperationOf(route)["tags"].front();
    for (const auto& [name, schema] : SchemaOf(RequestOf(route)["schema"])["properties"].items()) {
      if (!schema.contains("default")) continue;
      const std::unique_ptr<Message> without(route.method.request->New()), with(route.method.request->New());
      json body = RequestOf(route)["example"];
      body.erase(name);
      ASSERT_TRUE(Read(route, body, *without).ok());
      body[name] = schema["default"];
      ASSERT_TRUE(Read(route, body, *with).ok()) << KeyOf(route) << name;
      // TEI's routes themselves set fields that have presence.
      if (api != "TEI" && HasPresence(*with, name)) continue;
      EXPECT_EQ(without->SerializeAsString(), with->SerializeAsString()) << KeyOf(route) << " " << name;
      ++compared;
    }
  }
  EXPECT_GT(compared, 20);
}

TEST_F(OpenApiTest, AnswersAndErrorsAreAsItSays) {
  const std::unique_ptr<HttpServer> http = Serve();
  for (const Route& route : routes_.calls) {
    const json& operation = OperationOf(route);
    const std::string body = route.is_get ? "" : RequestOf(route)["example"].dump();
    const std::string path = absl::StrReplaceAll(KeyOf(route), {{"get ", ""}, {"post ", ""}, {"{model}", "fake"}});
    const std::string answer =
        Ask(http->port(), absl::StrCat(route.is_get ? "GET " : "POST ", path, " HTTP/1.1\r\nContent-Type: ",
                                       "application/json\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
    const bool ok = absl::StrContains(answer, " 200 OK\r\n");
    // The fake model has no sparse head, and its vocabulary lacks the example's tokens.
    if (path != "/embed_sparse" && path != "/decode") EXPECT_TRUE(ok) << answer;
    const json& response = ok ? operation["responses"]["200"] : SchemaOf(operation["responses"]["default"]);
    const json said = json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
    EXPECT_EQ(SchemaCheck(document_).Differs(said, response["content"]["application/json"]["schema"]), "")
        << KeyOf(route) << answer;
  }
}

TEST_F(OpenApiTest, ErrorsOfEveryApiAreAsItSays) {
  const std::unique_ptr<HttpServer> http = Serve();
  for (const Route& route : routes_.calls) {
    if (route.is_get) continue;
    const std::string answer =
        Ask(http->port(),
            absl::StrCat("POST ", route.path,
                         " HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"x\":1}"));
    EXPECT_THAT(answer, Not(HasSubstr(" 200 OK")));
    const json& response = SchemaOf(OperationOf(route)["responses"]["default"]);
    const json said = json::parse(answer.substr(answer.find("\r\n\r\n") + 4));
    EXPECT_EQ(SchemaCheck(document_).Differs(said, response["content"]["application/json"]["schema"]), "") << answer;
  }
}

TEST_F(OpenApiTest, IsServedWithAPageThatShowsIt) {
  const std::unique_ptr<HttpServer> http = Serve();
  const std::string document = Ask(http->port(), "GET /openapi.json HTTP/1.1\r\n\r\n");
  EXPECT_THAT(document, AllOf(HasSubstr(" 200 OK"), HasSubstr("Content-Type: application/json\r\n"),
                              HasSubstr(std::string(OpenApiJson()))));
  EXPECT_THAT(Ask(http->port(), "GET /docs HTTP/1.1\r\n\r\n"),
              AllOf(HasSubstr("Content-Type: text/html; charset=utf-8\r\n"),
                    HasSubstr("Content-Security-Policy: default-src 'self'; "), HasSubstr("fetch('openapi.json')"),
                    HasSubstr("</html>")));
}

TEST_F(OpenApiTest, TheRootRedirectsBrowsersToThePageAndOthersGetALink) {
  const std::unique_ptr<HttpServer> http = Serve();
  EXPECT_THAT(Ask(http->port(), "GET / HTTP/1.1\r\nAccept: text/html,application/xhtml+xml\r\n\r\n"),
              AllOf(HasSubstr("HTTP/1.1 302 Found\r\n"), HasSubstr("Location: docs\r\n"), HasSubstr("Vary: Accept")));
  EXPECT_THAT(Ask(http->port(), "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n"),
              AllOf(HasSubstr(" 200 OK"), HasSubstr(R"("docs":"/docs")"), HasSubstr("Vary: Accept")));
}

TEST_F(OpenApiTest, LeavesTeiOutWhereItIsNotServed) {
  const std::vector<StaticFile> files = Pages(false);
  const auto file = std::ranges::find(files, "/openapi.json", &StaticFile::path);
  ASSERT_NE(file, files.end());
  const json without = json::parse(file->content);
  EXPECT_FALSE(without["paths"].contains("/embed"));
  EXPECT_TRUE(without["paths"].contains("/v1/embeddings"));
  EXPECT_EQ(without["tags"].size(), document_["tags"].size() - 1);
}

}  // namespace
}  // namespace longembed
