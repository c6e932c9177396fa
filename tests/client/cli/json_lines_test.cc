#include "client/cli/json_lines.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <sstream>
#include <string>
#include <utility>

namespace longembed::client {
namespace {

using ::testing::HasSubstr;

TEST(JsonLinesTest, ReadsIdsOfAnyKind) {
  std::istringstream in("{\"id\": \"a\", \"text\": \"grüße\"}\n\n{\"id\": [1], \"text\": \"b\"}\r\n{\"text\": \"c\"}");
  LineReader reader(in, "file", LineFormat::kJson);
  auto first = *reader.Next();
  EXPECT_EQ(first->id, "a");
  EXPECT_EQ(first->input->text(), "grüße");
  EXPECT_EQ((*reader.Next())->id.dump(), "[1]");
  EXPECT_EQ((*reader.Next())->id, 4);  // The line number is the id.
  EXPECT_FALSE((*reader.Next()).has_value());
}

TEST(JsonLinesTest, LinesThatAParserWouldMisreadAreErrors) {
  const std::pair<std::string, const char*> rows[] = {
      {R"({"id": 7, "text": "a", "text": "b"})", "has \"text\" twice"},
      {R"({"id": 7, "text": "a", "id": 8})", "has \"id\" twice"},
      {R"({"id": 7, "text": "a", "score": 1e999})", "a number beyond the range of a double"},
      {std::string("{\"id\": 7, \"text\": \"a\"}\0{}", 25), "at byte 23: a NUL byte"},
  };
  for (const auto& [line, why] : rows) {
    std::istringstream in(line);
    LineReader reader(in, "file", LineFormat::kJson);
    const auto read = *reader.Next();
    EXPECT_THAT(std::string(read->input.status().message()), HasSubstr(why)) << line;
  }
  std::istringstream in(R"({"text": "a", "source": {"page": 1, "page": 2}})");
  LineReader reader(in, "file", LineFormat::kJson);
  EXPECT_TRUE((*reader.Next())->input.ok());
}

std::string Nested(int levels) { return std::string(levels, '[') + std::string(levels, ']'); }

// The answer to a line repeats its id.
TEST(JsonLinesTest, AnIdThatNoAnswerCanRepeatIsAnError) {
  const std::pair<std::string, const char*> rows[] = {
      {Nested(101), "has an \"id\" nested deeper than 100 levels"},
      {Nested(200'000), "has an \"id\" nested deeper than 100 levels"},
      {"12345678901234567890123", "has an \"id\" with a number beyond 64 bits; write it as a string"},
      {"-9223372036854775809", "has an \"id\" with a number beyond 64 bits"},
      {R"({"a": [18446744073709551616]})", "has an \"id\" with a number beyond 64 bits"},
  };
  for (const auto& [id, why] : rows) {
    std::istringstream in("\n{\"id\": " + id + ", \"text\": \"a\"}\n{\"id\": " + id + ", \"text\": \"a\n");
    LineReader reader(in, "file", LineFormat::kJson);
    const auto whole = *reader.Next(), cut = *reader.Next();
    EXPECT_THAT(std::string(whole->input.status().message()), HasSubstr(why));
    EXPECT_THAT(std::string(cut->input.status().message()), HasSubstr("not a JSON object"));
    EXPECT_EQ(whole->id, 2);  // The line number is the id.
    EXPECT_EQ(cut->id, 3);
  }
  for (const std::string& id : {Nested(100), std::string("18446744073709551615"), std::string("-9223372036854775808"),
                                std::string("0.5"), std::string("100.0")}) {
    std::istringstream in("{\"id\": " + id + ", \"text\": \"a\"}");
    const auto read = *LineReader(in, "file", LineFormat::kJson).Next();
    EXPECT_TRUE(read->input.ok()) << read->input.status();
    EXPECT_EQ(read->id.dump(), id);
  }
}

TEST(JsonLinesTest, ReadsPlainLines) {
  std::istringstream in("one\n{two}\n");
  LineReader reader(in, "file", LineFormat::kText);
  EXPECT_EQ((*reader.Next())->input->text(), "one");
  EXPECT_EQ((*reader.Next())->input->text(), "{two}");
  EXPECT_EQ(reader.bytes_read(), 10);
}

TEST(JsonLinesTest, SkipsAByteOrderMark) {
  for (const auto format : {LineFormat::kText, LineFormat::kJson}) {
    std::istringstream in(format == LineFormat::kText ? "\xef\xbb\xbf"
                                                        "a\n"
                                                      : "\xef\xbb\xbf{\"text\": \"a\"}\n");
    LineReader reader(in, "file", format);
    EXPECT_EQ((*reader.Next())->input->text(), "a");
  }
}

TEST(JsonLinesTest, BadLinesAreNamed) {
  for (const char* line : {"nonsense", "[1]", "{\"id\": 1}", "{\"text\": 3}", "{\"text\": \"a\"",
                           R"({"text": "a", "ranges": [3]})", R"({"text": "a", "ranges": [[0, -1]]})"}) {
    std::istringstream in(std::string("{\"text\": \"fine\"}\n") + line);
    LineReader reader(in, "corpus.jsonl", LineFormat::kJson);
    EXPECT_TRUE((*reader.Next())->input.ok());
    const absl::Status status = (*reader.Next())->input.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << line;
    EXPECT_THAT(std::string(status.message()), HasSubstr("corpus.jsonl, line 2"));
  }
}

TEST(JsonLinesTest, WritesOneVectorOrSeveral) {
  v1::EmbedResult result;
  result.add_embeddings()->add_values(0.1f);
  result.set_tokens(7);
  result.add_sequences()->mutable_content()->set_end(5);
  std::ostringstream one, two, failed;
  WriteResult("x", result, "r1", v1::EmbedOptions::FLOAT32, one);
  EXPECT_EQ(one.str(),
            "{\"id\":\"x\",\"embedding\":[0.1],\"tokens\":7,\"truncated_tokens\":0,\"windows\":[[0,5]],\"method\":"
            "\"PLAIN\",\"recipe\":\"r1\"}\n");
  result.add_embeddings()->add_values(-2);
  WriteResult(3, result, "", v1::EmbedOptions::FLOAT32, two);
  EXPECT_THAT(two.str(), HasSubstr("\"embeddings\":[[0.1],[-2]]"));
  result.mutable_embeddings(0)->mutable_range()->set_end(2);
  result.mutable_embeddings(1)->mutable_range()->set_start(2);
  result.mutable_embeddings(1)->mutable_range()->set_end(5);
  std::ostringstream ranged;
  WriteResult(3, result, "", v1::EmbedOptions::FLOAT32, ranged);
  EXPECT_THAT(ranged.str(), HasSubstr("\"ranges\":[[0,2],[2,5]]"));
  result.set_truncated_tokens(90);
  result.set_truncated_tokens_estimated(true);
  std::ostringstream estimated;
  WriteResult(3, result, "", v1::EmbedOptions::FLOAT32, estimated);
  EXPECT_THAT(estimated.str(), HasSubstr("\"truncated_tokens\":90,\"truncated_tokens_estimated\":true,\"windows\""));
  result.mutable_error()->set_code(3);
  result.mutable_error()->set_message("say \"why\"");
  WriteResult(3, result, "", v1::EmbedOptions::FLOAT32, failed);
  EXPECT_EQ(failed.str(), "{\"id\":3,\"error\":{\"code\":3,\"message\":\"say \\\"why\\\"\"}}\n");
}

TEST(JsonLinesTest, ReadsRanges) {
  std::istringstream in(R"({"text": "ab", "ranges": [[0, 1], [1, 2]]})");
  LineReader reader(in, "-", LineFormat::kJson);
  const v1::Input input = *(*reader.Next())->input;
  ASSERT_EQ(input.ranges_size(), 2);
  EXPECT_EQ(input.ranges(1).end(), 2u);
}

TEST(JsonLinesTest, WritesPackedEncodings) {
  v1::EmbedResult result;
  v1::Embedding& embedding = *result.add_embeddings();
  embedding.set_packed("\x01\x7f");
  embedding.set_scale(0.5f);
  embedding.set_dimensions(2);
  std::ostringstream out;
  WriteResult(1, result, "", v1::EmbedOptions::INT8, out);
  EXPECT_THAT(out.str(),
              HasSubstr("\"embedding\":{\"encoding\":\"INT8\",\"dimensions\":2,\"data\":\"AX8=\",\"scale\":0.5}"));
}

TEST(JsonLinesTest, FloatsReadBackTheSame) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  for (int i = 0; i < 10000; ++i) {
    const float value = normal(random);
    EXPECT_EQ(std::strtof(FormatFloat(value).c_str(), nullptr), value);
  }
  EXPECT_EQ(FormatFloat(0.1f), "0.1");
}

}  // namespace
}  // namespace longembed::client
