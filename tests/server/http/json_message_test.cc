// Compares the JSON of messages with protobuf's own reader and writer.
#include "server/api/http/json_message.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <limits>

#include "absl/strings/str_cat.h"
#include "longembed/v1/embedding.pb.h"
#include "model/errors/errors.h"
#include "opentelemetry/proto/trace/v1/trace.pb.h"
#include "server/errors/errors.h"
#include "server/errors/rpc_status.h"
#include "server/http/json.h"

namespace longembed {
namespace {

using google::protobuf::Message;
using google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

// Reads our JSON with protobuf's reader.
template <typename Type>
void ExpectSame(const Type& message) {
  Type read;
  const std::string json = MessageToJson(message);
  const auto status = google::protobuf::util::JsonStringToMessage(json, &read);
  ASSERT_TRUE(status.ok()) << status.message() << json;
  EXPECT_TRUE(MessageDifferencer::Equals(read, message)) << json;
}

TEST(JsonMessageTest, WritesWhatProtobufReads) {
  ExpectSame(v1::EmbedResponse());
  v1::EmbedResponse response;
  response.set_model("a \"model\" \n \xc3\xa9");
  response.mutable_timing()->mutable_queue()->set_nanos(1'500'000);
  v1::EmbedResult& result = *response.add_results();
  v1::Embedding& embedding = *result.add_embeddings();
  for (const float value : {0.f, -0.f, 1e-30f, 3.4e38f, 0.1f, -123456.789f, std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()}) {
    embedding.add_values(value);
  }
  embedding.set_packed(std::string("\x00\xff\x7f", 3));
  result.set_tokens(std::numeric_limits<uint32_t>::max());
  response.add_results()->mutable_error()->CopyFrom(ToRpcStatus(TooManyInputs("inputs", 5, 4)));
  ExpectSame(response);

  v1::Model model;
  (*model.mutable_prompts())["query \""] = "query: ";
  (*model.mutable_prompts())["none"] = "";
  model.set_family(v1::Model::ROPE);
  model.mutable_limits()->set_max_request_bytes(std::numeric_limits<uint64_t>::max());
  ExpectSame(model);

  opentelemetry::proto::trace::v1::Span span;  // Has what our messages lack: int64, bool and double in a oneof.
  span.set_start_time_unix_nano(std::numeric_limits<uint64_t>::max());
  span.set_trace_id("\xff\x01");
  auto& values = *span.add_attributes()->mutable_value()->mutable_array_value();
  values.add_values()->set_bool_value(true);
  values.add_values()->set_int_value(std::numeric_limits<int64_t>::min());
  values.add_values()->set_double_value(0.1);
  values.add_values()->set_double_value(std::numeric_limits<double>::infinity());
  ExpectSame(span);

  v1::EmbedOptions unknown;
  unknown.set_encoding(static_cast<v1::EmbedOptions::Encoding>(77));
  ExpectSame(unknown);
}

TEST(JsonMessageTest, StopsAtTheLimit) {
  v1::EmbedResponse response;
  for (int i = 0; i < 100'000; ++i) response.add_results()->add_embeddings()->add_values(1.2345678e-5f);
  std::string text;
  AppendMessage(response, 10'000, text);
  EXPECT_GT(text.size(), 10'000u);
  EXPECT_LT(text.size(), 11'000u);
}

TEST(JsonMessageTest, ReadsLongArraysPieceByPiece) {
  nlohmann::json request{{"options", {{"maxTokens", 5}}}};
  constexpr int kInputs = 20'000;
  for (int i = 0; i < kInputs; ++i) request["inputs"].push_back({{"text", absl::StrCat("text ", i)}});
  v1::EmbedRequest message;
  ASSERT_TRUE(ReadMessage(request, message).ok());
  EXPECT_EQ(message.options().max_tokens(), 5u);
  ASSERT_EQ(message.inputs_size(), kInputs);
  for (int i = 0; i < kInputs; ++i) ASSERT_EQ(message.inputs(i).text(), absl::StrCat("text ", i));

  request["inputs"][12'345]["token_ids"] = {{"ids", {1, -2}}};
  request["inputs"][12'345].erase("text");
  const absl::Status status = ReadMessage(request, message);
  EXPECT_THAT(ErrorField(status), HasSubstr("inputs[12345]")) << status;
}

}  // namespace
}  // namespace longembed
