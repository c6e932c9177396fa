#include "server/http/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "model/errors/errors.h"
#include "server/errors/errors.h"
#include "server/http/request_target.h"
#include "server/http/response_text.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

std::string ReasonOf(std::string_view text) { return ErrorReason(ParseJson(text).status()); }

TEST(JsonTest, InvalidJsonIsRefusedWithItsPosition) {
  for (const char* text : {"", "{", "[1,]", "{\"a\":}", "nul", "\"\\ud800\"", "\"\xff\"", "{\"a\":1}x", "NaN", "'a'",
                           "[1e999]", "-1e999"}) {
    EXPECT_EQ(ReasonOf(text), "MALFORMED_JSON") << text;
  }
  for (const std::string_view text :
       {std::string_view("{}\0", 3), std::string_view("{}\0{}", 5), std::string_view("\0", 1)}) {
    EXPECT_EQ(ReasonOf(text), "MALFORMED_JSON") << text;
  }
  EXPECT_THAT(ParseJson(std::string_view("{}\0{}", 5)).status().message(), HasSubstr("at byte 3 of 5"));
  EXPECT_THAT(ParseJson("[1, x]").status().message(), HasSubstr("at byte 5 of 6"));
  EXPECT_THAT(ParseJson("[1").status().message(), HasSubstr("after 2 bytes"));
}

TEST(JsonTest, DuplicateKeysAreRefusedAtEveryDepth) {
  EXPECT_EQ(ReasonOf(R"({"a": 1, "b": {"c": 1, "c": 2}})"), "DUPLICATE_FIELD");
  EXPECT_EQ(ReasonOf(R"([{"a": 1}, {"a": 1}])"), "");
}

TEST(JsonTest, DepthAndNumberOfValuesAreBounded) {
  EXPECT_EQ(ReasonOf(std::string(32, '[') + std::string(32, ']')), "");
  EXPECT_EQ(ReasonOf(std::string(33, '[') + std::string(33, ']')), "JSON_TOO_DEEP");
  std::string many = "[0";
  for (int i = 0; i < 1 << 20; ++i) many += ",0";
  EXPECT_EQ(ReasonOf(many + "]"), "TOO_MANY_ELEMENTS");
  // Commas within a string do not count as elements.
  EXPECT_EQ(ReasonOf("\"" + std::string(2 << 20, ',') + "\""), "");
  EXPECT_EQ(ReasonOf("\"\\\"" + std::string(2 << 20, ',') + "\""), "");
}

TEST(JsonTest, ParsingBytesGrowWithTheValues) {
  EXPECT_GE(JsonParsingBytes("[" + std::string(1000, ',')), 48000);
  EXPECT_LT(JsonParsingBytes("\"" + std::string(1000, ',') + "\""), 6000);
  // Keys are kept twice while duplicates are looked for: in nodes of 80 and of 64 bytes.
  const std::string key(100, 'k');
  std::string object = "{";
  for (int i = 0; i < 1000; ++i) object += "\"" + key + std::to_string(i) + "\":0,";
  EXPECT_GE(JsonParsingBytes(object), 1000 * (80 + 64 + 2 * 100));
}

TEST(JsonTest, BytesThatAreNotUtf8AreWrittenAsReplacements) {
  EXPECT_EQ(JsonText(nlohmann::json{{"a", "b\xff"}}), "{\"a\":\"b\xef\xbf\xbd\"}");
  EXPECT_EQ(JsonText(nlohmann::json{{"\xff", 1}}), "{\"\xef\xbf\xbd\":1}");
  std::string text;
  AppendJsonString("\xc3", text);
  EXPECT_EQ(text, "\"\xef\xbf\xbd\"");
}

TEST(JsonTest, NumbersReadBackAsTheyWere) {
  for (const float value : {0.0f, -0.0f, 1.0f / 3, -1.17549435e-38f, 3.4028235e38f, 1e-45f}) {
    std::string text;
    AppendJsonNumber(value, text);
    EXPECT_EQ(ParseJson(text)->get<float>(), value) << text;
  }
}

TEST(RequestTargetTest, DecodesPathsAndRefusesInvalidOnes) {
  EXPECT_EQ(PathOf("/v1/models/a%3Ab?x=%zz"), "/v1/models/a:b");
  EXPECT_EQ(PathOf("/%41"), "/A");
  for (const char* target : {"", "*", "v1", "/%", "/%4", "/%zz"}) {
    EXPECT_EQ(PathOf(target), std::nullopt) << target;
  }
}

// RFC 9112 demands that of every server: clients with a proxy send it.
TEST(RequestTargetTest, TakesWholeAddresses) {
  EXPECT_EQ(PathOf("http://host:8080/v1/models/a%3Ab?x=1"), "/v1/models/a:b");
  EXPECT_EQ(PathOf("HTTPS://[::1]/v1"), "/v1");
  for (const char* target : {"http://host", "http://host/", "http://host?x=/y", "http://host#/y"}) {
    EXPECT_EQ(PathOf(target), "/") << target;
  }
  for (const char* target : {"http://", "http:///v1", "http:/v1", "ftp://host/v1", "host:443", "http://host/%"}) {
    EXPECT_EQ(PathOf(target), std::nullopt) << target;
  }
}

TEST(ResponseTextTest, RecognizesJson) {
  for (const char* type : {"application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"}) {
    EXPECT_TRUE(IsJsonType(type)) << type;
  }
  for (const char* type : {"", "text/json", "application/jsonx", "application/x-www-form-urlencoded"}) {
    EXPECT_FALSE(IsJsonType(type)) << type;
  }
}

TEST(ResponseTextTest, HasRetryAfterAndWwwAuthenticate) {
  using Headers = Operation::Headers;
  EXPECT_EQ(ErrorHeaders(TooManyConcurrentCalls(1, 1, absl::Milliseconds(1200))),
            (Headers{{"Retry-After", "2"}, {"retry-after-ms", "1200"}}));
  EXPECT_EQ(ErrorHeaders(MissingApiKey()), (Headers{{"WWW-Authenticate", "Bearer"}}));
  EXPECT_EQ(ErrorHeaders(UnknownPath("/")), Headers());
}

TEST(ResponseTextTest, ReadsTimeouts) {
  EXPECT_EQ(ParseSeconds("1.5"), absl::Milliseconds(1500));
  for (const char* text : {"", "0", "-1", "1s", "nan", "1,5"}) EXPECT_EQ(ParseSeconds(text), std::nullopt) << text;
}

}  // namespace
}  // namespace longembed
