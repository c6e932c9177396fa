// Tests EmbedStream over a real channel.
#include <gmock/gmock.h>

#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/server/api/service_test.h"

namespace longembed {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class EmbedStreamTest : public ServiceTest {
 protected:
  using ServiceTest::ServiceTest;
  using Stream = grpc::ClientReaderWriter<v1::EmbedStreamRequest, v1::EmbedStreamResponse>;

  std::unique_ptr<Stream> Open() { return stub_->EmbedStream(&context_); }

  static v1::EmbedStreamRequest Message(const std::string& id, const std::string& text, bool more_parts = false) {
    v1::EmbedStreamRequest message;
    message.set_id(id);
    message.mutable_input()->set_text(text);
    message.set_more_parts(more_parts);
    return message;
  }
  static v1::EmbedStreamRequest FirstMessage(const std::string& id, const std::string& text) {
    v1::EmbedStreamRequest message = Message(id, text);
    message.mutable_options()->set_normalize(false);
    return message;
  }
  // Returns all answers, by id.
  static std::map<std::string, v1::EmbedStreamResponse> ReadAll(Stream& stream) {
    std::map<std::string, v1::EmbedStreamResponse> answers;
    for (v1::EmbedStreamResponse answer; stream.Read(&answer);) {
      EXPECT_TRUE(answers.emplace(answer.id(), answer).second) << answer.id();
    }
    return answers;
  }
  // Embeds texts of 1, 19 and 1 tokens, with a vector for each token. The second text must fail alone; returns its
  // error.
  static std::string ErrorOfALargeText(const FakeServer::Options& options) {
    FakeServer server(options);
    const auto stub = v1::EmbeddingService::NewStub(server.Connect());
    grpc::ClientContext context;
    const auto stream = stub->EmbedStream(&context);
    v1::EmbedStreamRequest first = FirstMessage("before", "a");
    first.mutable_options()->set_output(v1::EmbedOptions::SPAN_VECTORS);
    first.mutable_options()->mutable_spans()->mutable_every_tokens()->set_tokens(1);
    first.mutable_options()->mutable_extension()->mutable_windows()->set_tokens(6);
    stream->Write(first);
    stream->Write(Message("large", "a a a a a a a a a a a a a a a a a a a"));
    stream->Write(Message("after", "a"));
    stream->WritesDone();
    const auto answers = ReadAll(*stream);
    EXPECT_TRUE(stream->Finish().ok());
    EXPECT_EQ(answers.size(), 3u);
    EXPECT_FALSE(answers.at("before").result().has_error());
    EXPECT_FALSE(answers.at("after").result().has_error());
    return answers.at("large").result().error().message();
  }

  grpc::ClientContext context_;
};

TEST_F(EmbedStreamTest, AnswersEveryIdUnderTheOptionsOfTheFirstMessage) {
  const auto stream = Open();
  stream->Write(FirstMessage("0", "x"));
  // The messages have 3 tokens each, far more in total than the queue's 100. They must wait, and none is refused.
  for (int i = 1; i < 300; ++i)
    stream->Write(Message(absl::StrCat(i), std::string(static_cast<size_t>(1 + i % 9), 'a')));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 300u);
  for (const auto& [id, answer] : answers) {
    const int letters = id == "0" ? 1 : 1 + std::stoi(id) % 9;
    ASSERT_EQ(answer.result().embeddings_size(), 1) << id << answer.ShortDebugString();
    EXPECT_EQ(answer.result().embeddings(0).values(0), static_cast<float>(1 + 10 + letters + 2)) << id;
    EXPECT_EQ(answer.model(), "fake");
    EXPECT_FALSE(answer.recipe().empty());
  }
}

TEST_F(EmbedStreamTest, AnInputThatFailsDoesNotEndTheStream) {
  const auto stream = Open();
  stream->Write(Message("empty", ""));
  stream->Write(Message("none", ""));
  v1::EmbedStreamRequest no_content;
  no_content.set_id("nothing");
  stream->Write(no_content);
  stream->Write(Message("long", "a a a a a a a a a a a a a a a a a a a a a a a a a a a a a a"));
  stream->Write(Message("fine", "a"));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 5u);
  EXPECT_EQ(answers.at("empty").result().error().code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(answers.at("long").result().error().message(), HasSubstr("input: "));
  EXPECT_THAT(answers.at("nothing").result().error().message(), HasSubstr("input: has neither"));
  EXPECT_FALSE(answers.at("fine").result().has_error());
}

TEST_F(EmbedStreamTest, OutOfMemoryFailsOnlyTheInput) {
  const auto stream = Open();
  stream->Write(FirstMessage("huge", std::string(kNoMemory)));
  stream->Write(Message("fine", "a"));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers.at("huge").result().error().code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_FALSE(answers.at("fine").result().has_error());
}

// Messages in parts alternate with short ones, so that a short message may finish while the next one is being read.
TEST_F(EmbedStreamTest, MessagesAreStartedInOrder) {
  const auto stream = Open();
  constexpr int kRounds = 60, kParts = 8;
  std::jthread writer([&stream] {
    stream->Write(FirstMessage("first", "a"));
    for (int i = 0; i < kRounds; ++i) {
      stream->Write(Message(absl::StrCat("short ", i), "a"));
      for (int part = 0; part < kParts; ++part) {
        stream->Write(Message(absl::StrCat("long ", i), std::string(static_cast<size_t>(part) + 1, 'a') + " ",
                              /*more_parts=*/part + 1 < kParts));
      }
    }
    stream->WritesDone();
  });
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 2u * kRounds + 1);
  for (int i = 0; i < kRounds; ++i) {
    const auto& result = answers.at(absl::StrCat("long ", i)).result();
    ASSERT_EQ(result.tokens(), kParts + 2u) << result.ShortDebugString();
    EXPECT_EQ(result.embeddings(0).values(0), 1 + 11 + 12 + 13 + 14 + 15 + 16 + 17 + 18 + 2);
  }
}

TEST_F(EmbedStreamTest, AnEndInTheMiddleOfATextIsAnError) {
  const auto stream = Open();
  stream->Write(FirstMessage("whole", "a"));
  stream->Write(Message("half", "b ", /*more_parts=*/true));
  stream->WritesDone();
  EXPECT_EQ(ReadAll(*stream).size(), 1u);
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("\"half\" is incomplete"));
}

TEST_F(EmbedStreamTest, ErrorsOfTheStreamItselfEndIt) {
  const auto fails_with = [this](const std::vector<v1::EmbedStreamRequest>& messages, const std::string& words) {
    grpc::ClientContext context;
    const auto stream = stub_->EmbedStream(&context);
    for (const v1::EmbedStreamRequest& message : messages) stream->Write(message);
    ReadAll(*stream);
    const grpc::Status status = stream->Finish();
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT) << words;
    EXPECT_THAT(status.error_message(), HasSubstr(words));
  };
  fails_with({FirstMessage("a", "a"), FirstMessage("b", "b")}, "options: is set");
  v1::EmbedStreamRequest bad = FirstMessage("a", "a");
  bad.mutable_options()->set_prompt_name("sonnet");
  fails_with({bad}, "options.prompt_name");
  fails_with({Message("a", "a ", true), Message("b", "b")}, "the last part of \"a\"");
  fails_with({FirstMessage("", "a")}, "id: is empty");
  fails_with({FirstMessage("a", "a"), Message("", "b")}, "id: is empty");
  fails_with({FirstMessage("a", "a"), Message("", "b", true)}, "id: is empty");
  v1::EmbedStreamRequest ids;
  ids.set_id("a");
  ids.mutable_input()->mutable_token_ids()->add_ids(11);
  ids.set_more_parts(true);
  fails_with({ids}, "parts must be text");
}

TEST_F(EmbedStreamTest, RangesGoWithTheLastPart) {
  const auto stream = Open();
  v1::EmbedStreamRequest first = Message("early", "aa ", true), last = Message("late", "b");
  first.mutable_options()->set_output(v1::EmbedOptions::SPAN_VECTORS);
  first.mutable_options()->mutable_spans()->mutable_ranges();
  for (v1::EmbedStreamRequest* message : {&first, &last}) {
    v1::Range& range = *message->mutable_input()->add_ranges();
    range.set_end(2);
  }
  stream->Write(first);
  stream->Write(Message("early", "b"));
  stream->Write(Message("late", "aa ", true));
  stream->Write(last);
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 2u);
  const google::rpc::Status& refused = answers.at("early").result().error();
  EXPECT_EQ(refused.code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(refused.message(), HasSubstr("input.ranges: is set, but needs the last part"));
  EXPECT_EQ(answers.at("late").result().embeddings_size(), 1);
}

TEST_F(EmbedStreamTest, ATextMayComeInParts) {
  const auto stream = Open();
  v1::EmbedStreamRequest first = FirstMessage("whole", "aa b");
  first.set_more_parts(true);
  stream->Write(first);
  stream->Write(Message("whole", "bb ", true));
  stream->Write(Message("whole", "c"));
  stream->Write(Message("next", "dddd"));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_THAT(answers.at("whole").result().embeddings(0).values(), ElementsAre(1 + 12 + 13 + 11 + 2, 5, 5, 1));
  EXPECT_THAT(answers.at("next").result().embeddings(0).values(), ElementsAre(1 + 14 + 2, 3, 3, 1));
  // The server's side of the stream ends slightly after the client's.
  for (int i = 0; i < 500 && server_.ledger().bytes() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(server_.ledger().bytes(), 0);
}

// Only that text fails: its remaining parts are skipped, and the stream continues.
TEST_F(EmbedStreamTest, ATextBeyondTheLimitOfItsPartsFailsAlone) {
  const auto stream = Open();
  const std::string part(1 << 15, 'a');
  stream->Write(FirstMessage("before", "a"));
  for (int i = 0; i < 12; ++i)
    stream->Write(Message("huge", part, i < 11));  // The limit is 4 times max_request_bytes, which is 8 parts.
  stream->Write(Message("after", "a"));
  stream->WritesDone();
  const auto answers = ReadAll(*stream);
  EXPECT_TRUE(stream->Finish().ok());
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_THAT(answers.at("huge").result().error().message(), HasSubstr("the limit is 262144"));
  EXPECT_FALSE(answers.at("before").result().has_error());
  EXPECT_FALSE(answers.at("after").result().has_error());
}

// The vectors of the text fit the limit, but not the whole answer: the stream ended, and so did any that sent the text
// again.
TEST_F(EmbedStreamTest, AnAnswerThatIsTooLargeFailsAlone) {
  FakeServer::Options options = Options(absl::Minutes(10));
  options.config.limits.max_response_bytes = 450;
  EXPECT_THAT(ErrorOfALargeText(options), StartsWith("input: the answer would have "));
}

// Errors of whole calls name "inputs", a field that messages of a stream lack.
TEST_F(EmbedStreamTest, ATextOfTooManyVectorsFailsAlone) {
  FakeServer::Options options = Options(absl::Minutes(10));
  options.config.limits.max_vectors_per_call = 18;
  EXPECT_THAT(ErrorOfALargeText(options), StartsWith("input: "));
}

class RawEmbedStreamTest : public EmbedStreamTest {
 protected:
  using Raw = grpc::ClientReaderWriter<grpc::ByteBuffer, v1::EmbedStreamResponse>;

  // Sends each message as raw bytes. Returns the answers by id, and the status of the stream.
  std::pair<std::map<std::string, v1::EmbedStreamResponse>, grpc::Status> Send(
      const std::vector<std::string>& messages) {
    grpc::ClientContext context;
    const grpc::internal::RpcMethod method("/longembed.v1.EmbeddingService/EmbedStream",
                                           grpc::internal::RpcMethod::BIDI_STREAMING);
    std::unique_ptr<Raw> stream(
        grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, v1::EmbedStreamResponse>::Create(channel_.get(),
                                                                                                     method, &context));
    for (const std::string& message : messages) {
      const grpc::Slice slice(message);
      stream->Write(grpc::ByteBuffer(&slice, 1));
    }
    stream->WritesDone();
    std::map<std::string, v1::EmbedStreamResponse> answers;
    for (v1::EmbedStreamResponse answer; stream->Read(&answer);) {
      EXPECT_TRUE(answers.emplace(answer.id(), answer).second) << answer.id() << " is answered twice";
    }
    return {answers, stream->Finish()};
  }

  static std::string Broken(const std::string& id, bool more_parts = false) {
    std::string bytes = Message(id, "caf#", more_parts).SerializeAsString();
    return bytes.replace(bytes.find('#'), 1, "\xe9");
  }
  static std::string Unknown(const std::string& id) { return Message(id, "a").SerializeAsString() + "\x78\x01"; }
};

TEST_F(RawEmbedStreamTest, AnInvalidMessageFailsUnderItsId) {
  const auto [answers, status] = Send({FirstMessage("0", "a").SerializeAsString(), Broken("utf8"), Unknown("field"),
                                       Message("1", "a").SerializeAsString()});
  EXPECT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(answers.size(), 4u);
  EXPECT_THAT(answers.at("utf8").result().error().message(),
              HasSubstr("input.text: is not valid UTF-8, first at byte 3"));
  EXPECT_THAT(answers.at("field").result().error().message(), HasSubstr("field number 15"));
  EXPECT_FALSE(answers.at("1").result().has_error());
}

TEST_F(RawEmbedStreamTest, AnInvalidPartFailsItsText) {
  const auto [answers, status] =
      Send({FirstMessage("0", "a").SerializeAsString(), Message("long", "a ", true).SerializeAsString(),
            Broken("long", true), Message("long", "b").SerializeAsString(), Message("1", "a").SerializeAsString()});
  EXPECT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_TRUE(answers.at("long").result().has_error());
  EXPECT_FALSE(answers.at("1").result().has_error());
}

TEST_F(RawEmbedStreamTest, ATextWithSeveralInvalidPartsFailsOnce) {
  const auto [answers, status] = Send({FirstMessage("0", "a").SerializeAsString(), Broken("long", true),
                                       Message("long", "a ", true).SerializeAsString(), Broken("long", true),
                                       Broken("long"), Message("1", "a").SerializeAsString()});
  EXPECT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_TRUE(answers.at("long").result().has_error());
  EXPECT_FALSE(answers.at("1").result().has_error());
}

// The second half would be embedded as if it were the whole text.
TEST_F(RawEmbedStreamTest, AnInvalidMessageBetweenTwoPartsEndsTheStream) {
  for (const std::string& between : {Unknown("other"), Broken("other"), Broken("other", /*more_parts=*/true)}) {
    const auto [answers, status] =
        Send({FirstMessage("0", "a").SerializeAsString(), Message("long", "a ", true).SerializeAsString(), between,
              Message("long", "b").SerializeAsString()});
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr("is \"other\", but the last part of \"long\" has not arrived"));
    ASSERT_EQ(answers.size(), 1u);
    EXPECT_TRUE(answers.contains("0"));
  }
}

TEST_F(RawEmbedStreamTest, ATornPartEndsTheStream) {
  std::string torn = Message("long", "a b c", true).SerializeAsString();
  torn.resize(torn.size() - 4);  // Within the text, before more_parts.
  const auto [answers, status] =
      Send({FirstMessage("0", "a").SerializeAsString(), torn, Message("long", "b").SerializeAsString()});
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("not a well-formed"));
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_TRUE(answers.contains("0"));
}

// Messages that were read before the end of the stream must be answered first, whatever ends the stream.
TEST_F(RawEmbedStreamTest, MessagesReadAreAnsweredBeforeTheError) {
  for (const std::string& bad : {std::string("\x1a\x7f"), FirstMessage("late", "a").SerializeAsString()}) {
    std::vector<std::string> messages{FirstMessage("0", "a").SerializeAsString()};
    for (int i = 1; i < 20; ++i) messages.push_back(Message(absl::StrCat(i), "a").SerializeAsString());
    messages.push_back(bad);
    const auto [answers, status] = Send(messages);
    EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
    EXPECT_EQ(answers.size(), 20u);
  }
}

TEST_F(RawEmbedStreamTest, AnInvalidFirstMessageEndsTheStream) {
  const auto [answers, status] = Send({Broken("0"), Message("1", "a").SerializeAsString()});
  EXPECT_EQ(status.error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_TRUE(answers.empty());
}

TEST_F(EmbedStreamTest, AnIdleStreamEndsWhenTheServerDrains) {
  const auto stream = Open();
  stream->Write(FirstMessage("a", "a"));
  v1::EmbedStreamResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  const absl::Time started = absl::Now();
  server_.grpc().Shutdown(absl::Seconds(30));
  EXPECT_LT(absl::Now() - started, absl::Seconds(10));
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_EQ(stream->Finish().error_code(), grpc::UNAVAILABLE);
}

TEST_F(EmbedStreamTest, MessagesReadAreAnsweredBeforeADrainEndsTheStream) {
  encoder_.CloseGate();
  const auto stream = Open();
  stream->Write(FirstMessage("a", "a"));
  encoder_.AwaitCalls(1);
  std::jthread drain([this] { server_.grpc().Shutdown(absl::Seconds(30)); });
  absl::SleepFor(absl::Milliseconds(50));
  encoder_.OpenGate();
  EXPECT_EQ(ReadAll(*stream).size(), 1u);
  EXPECT_EQ(stream->Finish().error_code(), grpc::UNAVAILABLE);
}

// A message that arrives while the server drains is not accepted, and the client is told so.
TEST_F(EmbedStreamTest, AStreamThatStillSendsEndsWithUnavailableInADrain) {
  const auto stream = Open();
  stream->Write(FirstMessage("0", "a"));
  v1::EmbedStreamResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  encoder_.CloseGate();
  stream->Write(Message("1", "a"));
  encoder_.AwaitCalls(2);
  std::jthread drain([this] { server_.grpc().Shutdown(absl::Seconds(30)); });
  absl::SleepFor(absl::Milliseconds(50));
  stream->Write(Message("2", "a"));
  absl::SleepFor(absl::Milliseconds(50));
  encoder_.OpenGate();
  EXPECT_EQ(ReadAll(*stream).size(), 1u);
  EXPECT_EQ(stream->Finish().error_code(), grpc::UNAVAILABLE);
}

class OldStreamTest : public EmbedStreamTest {
 protected:
  OldStreamTest() : EmbedStreamTest(absl::Milliseconds(200)) {}

  static void ExpectTooOld(const grpc::Status& status) {
    EXPECT_EQ(status.error_code(), grpc::UNAVAILABLE);
    EXPECT_THAT(status.error_message(), HasSubstr("connections.max_age, which is 200ms"));
  }
};

TEST_F(OldStreamTest, AnOldStreamEndsWithUnavailable) {
  const auto stream = Open();
  // Messages are sent one after the other, so that all messages sent before the end are answered.
  int answered = 0;
  v1::EmbedStreamResponse answer;
  for (const absl::Time end = absl::Now() + absl::Seconds(10); absl::Now() < end; ++answered) {
    if (!stream->Write(Message(absl::StrCat(answered), "a")) || !stream->Read(&answer)) break;
    ASSERT_EQ(answer.id(), absl::StrCat(answered));
  }
  EXPECT_GT(answered, 0);
  ExpectTooOld(stream->Finish());
}

// Otherwise a key that was revoked would work on idle streams as long as their clients like.
TEST_F(OldStreamTest, AnIdleStreamEndsToo) {
  const auto stream = Open();
  stream->Write(FirstMessage("a", "a"));
  v1::EmbedStreamResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  absl::SleepFor(absl::Milliseconds(250));
  server_.host().streams->EndOld();
  EXPECT_FALSE(stream->Read(&answer));
  ExpectTooOld(stream->Finish());
}

TEST_F(EmbedStreamTest, StreamsBelowMaxAgeContinue) {
  const auto stream = Open();
  stream->Write(FirstMessage("a", "a"));
  v1::EmbedStreamResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  server_.host().streams->EndOld();
  stream->Write(Message("b", "a"));
  EXPECT_TRUE(stream->Read(&answer));
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(EmbedStreamTest, AStreamIsReadNoFurtherThanItIsAnswered) {
  encoder_.CloseGate();
  const auto stream = Open();
  std::jthread writer([&stream] {
    for (int i = 0; i < 2000 && stream->Write(Message(absl::StrCat(i), "a")); ++i) {
    }
  });
  encoder_.AwaitCalls(1);
  absl::SleepFor(absl::Milliseconds(100));
  EXPECT_LE(server_.lane().queue_state().jobs, 256u);
  context_.TryCancel();
  encoder_.OpenGate();
  stream->Finish();
}
}  // namespace
}  // namespace longembed
