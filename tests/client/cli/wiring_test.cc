// Checks, for every flag of every command, the request that reaches a server. The last test fails if a new flag, or a
// new choice of one, has no row here.
#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "client/cli/command_line.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "longembed/v1/embedding.grpc.pb.h"
#include "system/mutex.h"

namespace longembed::client {
namespace {

using ::google::protobuf::Message;
using ::google::protobuf::TextFormat;
using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

using Words = std::vector<std::string>;

const Words kCommands{"embed", "explain", "tokenize", "models", "health"};
const Words kTextCommands{"embed", "explain", "tokenize"};

// One call as it reached the server.
struct Call {
  std::vector<std::unique_ptr<Message>> requests;  // EmbedStream has several requests.
  std::string authorization;
  absl::Time deadline;
};

// A server that records every call and answers it.
class RecordingServer {
 public:
  explicit RecordingServer(const std::shared_ptr<grpc::ServerCredentials>& credentials) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", credentials, &port_);
    builder.RegisterService(&embedding_);
    builder.RegisterService(&health_);
    server_ = builder.BuildAndStart();
  }
  ~RecordingServer() { server_->Shutdown(); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  // Returns the calls since the last call of this function.
  std::vector<Call> TakeCalls() {
    const MutexLock lock(mutex_);
    return std::exchange(calls_, {});
  }

 private:
  // Records a call and returns its number.
  size_t Begin(const grpc::ServerContext& context) {
    const MutexLock lock(mutex_);
    Call& call = calls_.emplace_back();
    call.deadline = absl::FromChrono(context.deadline());
    const auto key = context.client_metadata().find("authorization");
    if (key != context.client_metadata().end()) call.authorization.assign(key->second.data(), key->second.size());
    return calls_.size() - 1;
  }
  template <typename Request>
  void Record(size_t call, const Request& request) {
    const MutexLock lock(mutex_);
    calls_[call].requests.push_back(std::make_unique<Request>(request));
  }

  struct Embedding final : v1::EmbeddingService::Service {
    explicit Embedding(RecordingServer& server) : recorder(server) {}
    using Context = grpc::ServerContext;
    grpc::Status EmbedStream(
        Context* context, grpc::ServerReaderWriter<v1::EmbedStreamResponse, v1::EmbedStreamRequest>* stream) override {
      const size_t call = recorder.Begin(*context);
      for (v1::EmbedStreamRequest request; stream->Read(&request);) {
        recorder.Record(call, request);
        if (request.more_parts()) continue;
        v1::EmbedStreamResponse answer;
        answer.set_id(request.id());
        answer.mutable_result()->add_embeddings()->add_values(1);
        stream->Write(answer);
      }
      return grpc::Status::OK;
    }
    grpc::Status Explain(Context* context, const v1::ExplainRequest* request, v1::ExplainResponse* response) override {
      recorder.Record(recorder.Begin(*context), *request);
      for (int i = 0; i < request->inputs_size(); ++i) response->add_results();
      return grpc::Status::OK;
    }
    grpc::Status Tokenize(Context* context, const v1::TokenizeRequest* request,
                          v1::TokenizeResponse* response) override {
      recorder.Record(recorder.Begin(*context), *request);
      for (int i = 0; i < request->texts_size(); ++i) response->add_results();
      return grpc::Status::OK;
    }
    grpc::Status ListModels(Context* context, const v1::ListModelsRequest* request,
                            v1::ListModelsResponse* response) override {
      recorder.Record(recorder.Begin(*context), *request);
      response->add_models()->set_name("small");
      return grpc::Status::OK;
    }
    RecordingServer& recorder;
  };

  struct Health final : grpc::health::v1::Health::Service {
    explicit Health(RecordingServer& server) : recorder(server) {}
    grpc::Status Check(grpc::ServerContext* context, const grpc::health::v1::HealthCheckRequest* request,
                       grpc::health::v1::HealthCheckResponse* response) override {
      recorder.Record(recorder.Begin(*context), *request);
      response->set_status(grpc::health::v1::HealthCheckResponse::SERVING);
      return grpc::Status::OK;
    }
    RecordingServer& recorder;
  };

  Mutex mutex_;
  std::vector<Call> calls_;
  Embedding embedding_{*this};
  Health health_{*this};
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

struct Outcome {
  int status;
  std::string out;
  std::string err;
};

Outcome Longembed(const Words& words, const std::string& input = "") {
  std::vector<const char*> arguments{"longembed"};
  for (const std::string& word : words) arguments.push_back(word.c_str());
  std::istringstream in(input);
  std::ostringstream out, err;
  const int status =
      RunCommandLine(static_cast<int>(arguments.size()), arguments.data(), {.in = in, .out = out, .err = err});
  return {status, out.str(), err.str()};
}

Words Join(Words words, const Words& more) {
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

// Flags of one command, and the resulting message in text format.
struct Row {
  Words flags;
  std::string expected;
};

// Flags that set longembed.v1.EmbedOptions, which embed and explain send.
const std::vector<Row> kOptionRows{
    {{}, ""},
    {{"--model", "small"}, "model: 'small'"},
    {{"--prompt-name", "passage"}, "prompt_name: 'passage'"},
    {{"--input-type", "query"}, "input_type: QUERY"},
    {{"--input-type", "document"}, "input_type: DOCUMENT"},
    {{"--prompt", "find: "}, "prompt: 'find: '"},
    {{"--truncate", "none"}, ""},
    {{"--truncate", "end"}, "truncate: END"},
    {{"--truncate", "start"}, "truncate: START"},
    {{"--truncate", "end", "--max-tokens", "4096"}, "truncate: END max_tokens: 4096"},
    {{"--extension", R"({"yarn": {"factor": 2, "beta_fast": 30}})"}, "extension { yarn { factor: 2 beta_fast: 30 } }"},
    {{"--windows"}, "extension { windows {} }"},
    {{"--windows=256"}, "extension { windows { tokens: 256 } }"},
    {{"--windows", "--overlap", "32"}, "extension { windows { overlap: 32 } }"},
    {{"--windows", "--overlap", "0"}, "extension { windows { overlap: 0 } }"},
    {{"--windows", "--short-last"}, "extension { windows { last: SHORT } }"},
    {{"--windows", "--aggregation", "mean"}, "extension { windows { aggregation: MEAN } }"},
    {{"--windows", "--aggregation", "token-weighted-mean"},
     "extension { windows { aggregation: TOKEN_WEIGHTED_MEAN } }"},
    {{"--windows", "--aggregation", "max"}, "extension { windows { aggregation: MAX } }"},
    {{"--windows", "--aggregation", "first"}, "extension { windows { aggregation: FIRST } }"},
    {{"--windows", "--aggregation", "norm-weighted", "--norm-temperature", "0.5"},
     "extension { windows { aggregation: NORM_WEIGHTED norm_temperature: 0.5 } }"},
    {{"--windows", "--aggregation", "top-norm", "--top", "5"},
     "extension { windows { aggregation: TOP_NORM top: 5 } }"},
    {{"--windows=128", "--vectors", "window", "--groups", "8"},
     "output: WINDOW_VECTORS extension { windows { tokens: 128 vectors: 8 } }"},
    {{"--windows=256", "--overlap", "32", "--short-last", "--aggregation", "first"},
     "extension { windows { tokens: 256 overlap: 32 last: SHORT aggregation: FIRST } }"},
    {{"--positions", "grouped"}, "extension { grouped {} }"},
    {{"--positions", "grouped=4"}, "extension { grouped { factor: 4 } }"},
    {{"--positions", "recurrent"}, "extension { recurrent {} }"},
    {{"--positions", "interpolation"}, "extension { interpolation {} }"},
    {{"--positions", "interpolation=2.5"}, "extension { interpolation { factor: 2.5 } }"},
    {{"--positions", "ntk=2.5"}, "extension { ntk { factor: 2.5 } }"},
    {{"--positions", "ntk-base=40000"}, "extension { ntk { base: 40000 } }"},
    {{"--positions", "ntk-dynamic"}, "extension { ntk_dynamic {} }"},
    {{"--positions", "ntk-dynamic=2"}, "extension { ntk_dynamic { factor: 2 } }"},
    {{"--positions", "ntk-by-parts"}, "extension { ntk_by_parts {} }"},
    {{"--positions", "ntk-by-parts=3"}, "extension { ntk_by_parts { factor: 3 } }"},
    {{"--positions", "yarn"}, "extension { yarn {} }"},
    {{"--positions", "yarn=8"}, "extension { yarn { factor: 8 } }"},
    {{"--positions", "self-extend"}, "extension { self_extend {} }"},
    {{"--positions", "shifted-rotary"}, "extension { shifted_rotary {} }"},
    {{"--positions", "shifted-rotary=170,64"}, "extension { shifted_rotary { shift_from: 170 local_window: 64 } }"},
    {{"--positions", "self-extend=9,64"}, "extension { self_extend { group: 9 neighbor_window: 64 } }"},
    {{"--windows", "--positions", "yarn=8"}, "extension { windows {} yarn { factor: 8 } }"},
    {{"--resonance"}, "extension { resonance: true }"},
    {{"--log-scaling"}, "extension { attention_log_scaling: true }"},
    {{"--temperature", "0.5"}, "extension { attention_temperature: 0.5 }"},
    {{"--calibration"}, "extension { attention_calibration {} }"},
    {{"--calibration=0.25"}, "extension { attention_calibration { strength: 0.25 } }"},
    {{"--always"}, "extension { when: ALWAYS }"},
    {{"--recommended"}, "extension { recommended {} }"},
    {{"--profile", "archive"}, "extension { profile: 'archive' }"},
    {{"--vectors", "one"}, "output: ONE_VECTOR"},
    {{"--vectors", "sparse"}, "output: SPARSE"},
    {{"--vectors", "token"}, "output: TOKEN_VECTORS"},
    {{"--vectors", "sparse", "--max-terms", "64"}, "output: SPARSE max_terms: 64"},
    {{"--vectors", "token", "--token-pooling", "3"}, "output: TOKEN_VECTORS token_pooling: 3"},
    {{"--vectors", "window"}, "output: WINDOW_VECTORS"},
    {{"--vectors", "span"}, "output: SPAN_VECTORS"},
    {{"--spans", "sentences"}, "output: SPAN_VECTORS spans { sentences {} }"},
    {{"--spans", "ranges"}, "output: SPAN_VECTORS spans { ranges {} }"},
    {{"--spans", "64"}, "output: SPAN_VECTORS spans { every_tokens { tokens: 64 } }"},
    {{"--vectors", "span", "--spans", "64"}, "output: SPAN_VECTORS spans { every_tokens { tokens: 64 } }"},
    {{"--dimensions", "64"}, "dimensions: 64"},
    {{"--dimensions", "0"}, "dimensions: 0"},
    {{"--force-dimensions"}, "force_dimensions: true"},
    {{"--no-normalize"}, "normalize: false"},
    {{"--encoding", "float32"}, ""},
    {{"--encoding", "float16"}, "encoding: FLOAT16"},
    {{"--encoding", "bfloat16"}, "encoding: BFLOAT16"},
    {{"--encoding", "int8"}, "encoding: INT8"},
    {{"--encoding", "binary"}, "encoding: BINARY"},
    {{"--priority", "interactive"}, ""},
    {{"--priority", "bulk"}, "priority: BULK"},
};

const std::vector<Row> kTokenizeRows{
    {{}, "texts: 'abc'"},
    {{"--model", "small"}, "model: 'small' texts: 'abc'"},
};

const std::vector<Row> kHealthRows{
    {{}, ""},
    {{"--service", "longembed.v1.EmbeddingService"}, "service: 'longembed.v1.EmbeddingService'"},
};

// Flags of each command, with their choices, that have their own tests below.
const std::vector<Row> kOwnTests{
    {kCommands, "--server"},
    {kCommands, "--tls"},
    {kCommands, "--root-certificates"},
    {kCommands, "--client-certificate"},
    {kCommands, "--client-key"},
    {kCommands, "--api-key-file"},
    {kCommands, "--timeout"},
    {kCommands, "--output json"},
    {kCommands, "--output text"},
    {kTextCommands, "--text"},
    {kTextCommands, "--format json"},
    {kTextCommands, "--format text"},
    {kTextCommands, "files"},
    {{"embed"}, "--partial"},    // CommandLineTest.PartialWritesALineForEachError
    {{"embed"}, "--in-flight"},  // CommandLineTest.ATextThatTakesLongHoldsUpTheOthers
    {{"embed"}, "--out"},        // CommandLineTest.ResumeSkipsTextsThatTheFileAnswers
    {{"embed"}, "--resume"},
};

class WiringTest : public ::testing::Test {
 protected:
  // Runs a command over the text "abc". Returns the calls that the server gets.
  std::vector<Call> CallsOf(const std::string& command, const Words& flags) {
    Words words{command, "--server", server_.address()};
    if (command != "models" && command != "health") words = Join(words, {"--text", "abc"});
    const Outcome outcome = Longembed(Join(words, flags));
    EXPECT_EQ(outcome.status, kExitOk) << outcome.err;
    return server_.TakeCalls();
  }

  // Checks that one call reaches the server, with these messages in text format.
  void ExpectRequests(const Words& words, const std::string& input, const Words& expected) {
    const std::string what = absl::StrJoin(words, " ");
    const Outcome outcome =
        Longembed(Join({words[0], "--server", server_.address()}, {words.begin() + 1, words.end()}), input);
    EXPECT_EQ(outcome.status, kExitOk) << what << ": " << outcome.err;
    const std::vector<Call> calls = server_.TakeCalls();
    ASSERT_EQ(calls.size(), 1u) << what;
    ASSERT_EQ(calls[0].requests.size(), expected.size()) << what;
    for (size_t i = 0; i < expected.size(); ++i) {
      const Message& request = *calls[0].requests[i];
      const std::unique_ptr<Message> wanted(request.New());
      ASSERT_TRUE(TextFormat::ParseFromString(expected[i], wanted.get())) << expected[i];
      EXPECT_TRUE(MessageDifferencer::Equals(request, *wanted))
          << what << "\nsends   " << request.ShortDebugString() << "\nnot     " << wanted->ShortDebugString();
    }
  }

  RecordingServer server_{grpc::InsecureServerCredentials()};
};

TEST_F(WiringTest, OptionsOfEmbed) {
  for (const auto& [flags, options] : kOptionRows) {
    ExpectRequests(Join({"embed", "--text", "abc"}, flags), "",
                   {absl::StrCat("id: '0' options { ", options, " } input { text: 'abc' }")});
  }
}

TEST_F(WiringTest, OptionsOfExplain) {
  for (const auto& [flags, options] : kOptionRows) {
    ExpectRequests(Join({"explain", "--text", "abc"}, flags), "",
                   {absl::StrCat("options { ", options, " } inputs { text: 'abc' }")});
  }
}

TEST_F(WiringTest, Tokenize) {
  for (const auto& [flags, request] : kTokenizeRows) {
    ExpectRequests(Join({"tokenize", "--text", "abc"}, flags), "", {request});
  }
}

TEST_F(WiringTest, Models) { ExpectRequests({"models"}, "", {""}); }

TEST_F(WiringTest, Health) {
  for (const auto& [flags, request] : kHealthRows) ExpectRequests(Join({"health"}, flags), "", {request});
}

// Returns the expected requests. The first message of a stream carries the options.
std::vector<std::string> Requests(const std::string& command, const Words& inputs) {
  if (command == "tokenize") {
    std::string texts;
    for (const std::string& input : inputs)
      absl::StrAppend(&texts, absl::StrReplaceAll(input, {{"text:", "texts:"}}), " ");
    return {texts};
  }
  if (command == "explain") return {absl::StrCat("options {} inputs { ", absl::StrJoin(inputs, " } inputs { "), " }")};
  std::vector<std::string> messages;
  for (size_t i = 0; i < inputs.size(); ++i) {
    messages.push_back(absl::StrCat(i == 0 ? "options {} " : "", "id: '", i, "' input { ", inputs[i], " }"));
  }
  return messages;
}

TEST_F(WiringTest, Texts) {
  const std::string first = ::testing::TempDir() + "/wiring_first.jsonl";
  const std::string second = ::testing::TempDir() + "/wiring_second.jsonl";
  std::ofstream(first) << "{\"text\": \"a\"}\n";
  std::ofstream(second) << "{\"text\": \"b\"}\n{\"text\": \"c\"}\n";
  for (const std::string& command : kTextCommands) {
    ExpectRequests({command, "--text", "a", "--text", "b"}, "", Requests(command, {"text: 'a'", "text: 'b'"}));
    ExpectRequests({command}, "{\"text\": \"a\"}\n", Requests(command, {"text: 'a'"}));
    ExpectRequests({command, "--format", "json"}, "{\"text\": \"a\"}\n", Requests(command, {"text: 'a'"}));
    ExpectRequests({command, "--format", "text"}, "{a}\nb\n", Requests(command, {"text: '{a}'", "text: 'b'"}));
    ExpectRequests({command, first, second}, "", Requests(command, {"text: 'a'", "text: 'b'", "text: 'c'"}));
    EXPECT_EQ(Longembed({command, "--text", "x", first}).status, kExitUsage);
  }
  for (const char* command : {"embed", "explain"}) {
    ExpectRequests({command}, "{\"text\": \"abc\", \"ranges\": [[0, 1], [1, 3]]}\n",
                   Requests(command, {"text: 'abc' ranges { end: 1 } ranges { start: 1 end: 3 }"}));
  }
}

// Only the first part carries the options, and only the last part carries the ranges.
TEST_F(WiringTest, PartsOfALongText) {
  const std::string part(1 << 20, 'x');
  ExpectRequests({"embed", "--model", "small"},
                 absl::StrCat("{\"text\": \"", part, part, "y\", \"ranges\": [[0, 2]]}\n"),
                 {absl::StrCat("id: '0' options { model: 'small' } input { text: '", part, "' } more_parts: true"),
                  absl::StrCat("id: '0' input { text: '", part, "' } more_parts: true"),
                  "id: '0' input { text: 'y' ranges { end: 2 } }"});
}

TEST_F(WiringTest, ApiKey) {
  const std::string file = ::testing::TempDir() + "/wiring_key";
  std::ofstream(file) << "secret\r\nnot this\n";
  for (const std::string& command : kCommands) {
    EXPECT_EQ(CallsOf(command, {}).at(0).authorization, "") << command;
    EXPECT_EQ(CallsOf(command, {"--api-key-file", file}).at(0).authorization, "Bearer secret") << command;
  }
  std::ofstream(file) << "\nsecret\n";
  EXPECT_THAT(Longembed({"models", "--api-key-file", file}).err, HasSubstr("--api-key-file: the first line of"));
  std::ofstream(file) << "secr\x01t\n";
  EXPECT_THAT(Longembed({"models", "--server", server_.address(), "--api-key-file", file}).err,
              HasSubstr("api_key: must be printable ASCII"));
}

TEST_F(WiringTest, Timeout) {
  for (const std::string command : {"explain", "tokenize", "models", "health"}) {
    const absl::Time before = absl::Now();
    const absl::Time deadline = CallsOf(command, {"--timeout", "10000"}).at(0).deadline;
    EXPECT_LE(deadline, absl::Now() + absl::Seconds(10200)) << command;
    EXPECT_GE(deadline, before + absl::Seconds(9000)) << command;
    const absl::Duration by_default = CallsOf(command, {}).at(0).deadline - absl::Now();
    EXPECT_LE(by_default, absl::Seconds(command == "health" ? 10 : 310)) << command;
  }
  // A stream may take long, so its timeout limits the time between answers. See
  // CommandLineTest.ATextThatTakesLongHoldsUpTheOthers.
  EXPECT_GE(CallsOf("embed", {"--timeout", "10"}).at(0).deadline, absl::Now() + absl::Hours(24));
}

TEST_F(WiringTest, Server) {
  for (const std::string& command : kCommands) {
    const Words words = command == "models" || command == "health" ? Words{command} : Words{command, "--text", "abc"};
    setenv("LONGEMBED_SERVER", server_.address().c_str(), 1);
    EXPECT_EQ(Longembed(words).status, kExitOk);
    EXPECT_EQ(server_.TakeCalls().size(), 1u);
    setenv("LONGEMBED_SERVER", "127.0.0.1:1", 1);
    EXPECT_EQ(Longembed(Join(words, {"--server", server_.address()})).status, kExitOk);
    EXPECT_EQ(server_.TakeCalls().size(), 1u);
    unsetenv("LONGEMBED_SERVER");
  }
}

TEST_F(WiringTest, Output) {
  for (const std::string& command : kCommands) {
    Words words{command, "--server", server_.address()};
    if (command != "models" && command != "health") words = Join(words, {"--text", "abc"});
    const std::string text = Longembed(Join(words, {"--output", "text"})).out;
    const std::string json = Longembed(Join(words, {"--output", "json"})).out;
    EXPECT_EQ(Longembed(words).out, json) << command;
    if (command == "health") continue;  // `health` prints one word with or without the flag.
    EXPECT_THAT(json, StartsWith("{\"")) << command;
    EXPECT_THAT(text, Not(StartsWith("{"))) << command;
  }
}

// The files of a key and its self-signed certificate.
struct Identity {
  explicit Identity(const std::string& name)
      : certificate_file(::testing::TempDir() + "/" + name + ".pem"), key_file(certificate_file + ".key") {
    const std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)> key_pair(EVP_EC_gen("P-256"), &EVP_PKEY_free);
    const std::unique_ptr<X509, decltype(&X509_free)> x509(X509_new(), &X509_free);
    X509_set_version(x509.get(), X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x509.get()), 1);
    X509_gmtime_adj(X509_getm_notBefore(x509.get()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x509.get()), 3600);
    X509_set_pubkey(x509.get(), key_pair.get());
    X509_NAME* const subject = X509_get_subject_name(x509.get());
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1,
                               -1, 0);
    X509_set_issuer_name(x509.get(), subject);
    char san[] = "IP:127.0.0.1";
    const std::unique_ptr<X509_EXTENSION, decltype(&X509_EXTENSION_free)> extension(
        X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, san), &X509_EXTENSION_free);
    X509_add_ext(x509.get(), extension.get(), -1);
    X509_sign(x509.get(), key_pair.get(), EVP_sha256());
    certificate = Write(certificate_file, [&](BIO* bio) { PEM_write_bio_X509(bio, x509.get()); });
    key = Write(key_file, [&](BIO* bio) {
      PEM_write_bio_PrivateKey(bio, key_pair.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
  }

  static std::string Write(const std::string& file, const std::function<void(BIO*)>& write) {
    const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), &BIO_free);
    write(bio.get());
    char* data = nullptr;
    const long size = BIO_get_mem_data(bio.get(), &data);
    std::ofstream(file) << std::string(data, static_cast<size_t>(size));
    return {data, static_cast<size_t>(size)};
  }

  const std::string certificate_file, key_file;
  std::string certificate, key;
};

TEST_F(WiringTest, Tls) {
  const Identity server("wiring_server"), client("wiring_client");
  grpc::SslServerCredentialsOptions with_tls;
  with_tls.pem_key_cert_pairs = {{server.key, server.certificate}};
  RecordingServer tls(grpc::SslServerCredentials(with_tls));
  grpc::SslServerCredentialsOptions with_mutual(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  with_mutual.pem_root_certs = client.certificate;
  with_mutual.pem_key_cert_pairs = {{server.key, server.certificate}};
  RecordingServer mutual(grpc::SslServerCredentials(with_mutual));
  for (const std::string& command : kCommands) {
    const Words words = command == "models" || command == "health" ? Words{command} : Words{command, "--text", "abc"};
    const auto reaches = [&](RecordingServer& at, const Words& flags) {
      const Outcome outcome = Longembed(Join(Join(words, {"--timeout", "2", "--server", at.address()}), flags));
      return outcome.status == kExitOk && at.TakeCalls().size() == 1;
    };
    EXPECT_TRUE(reaches(tls, {"--root-certificates", server.certificate_file})) << command;
    EXPECT_TRUE(reaches(mutual, {"--root-certificates", server.certificate_file, "--client-certificate",
                                 client.certificate_file, "--client-key", client.key_file}))
        << command;
    if (command != "health") continue;  // `health` fails without retries. The other commands use the same code.
    EXPECT_FALSE(reaches(tls, {}));
    const auto told = [&](RecordingServer& at, const Words& flags) {
      return Longembed(Join(Join(words, {"--timeout", "2", "--server", at.address()}), flags)).err;
    };
    const std::string closed = " closed the connection: ";
    EXPECT_EQ(told(tls, {}),
              absl::StrCat("longembed: the server ", tls.address(), closed, "if it speaks TLS, add --tls\n"));
    EXPECT_EQ(told(tls, {"--tls"}), absl::StrCat("longembed: the server ", tls.address(),
                                                 " shows a certificate that is not trusted: give its authority as "
                                                 "--root-certificates FILE\n"));
    EXPECT_THAT(told(server_, {"--tls"}), HasSubstr(" does not speak TLS: leave out --tls"));
    EXPECT_THAT(told(mutual, {"--root-certificates", server.certificate_file}),
                HasSubstr(closed + "it may ask for --client-certificate and --client-key"));
    EXPECT_THAT(told(tls, {"--root-certificates", server.key_file}), HasSubstr("holds no PEM that can be used"));
    EXPECT_FALSE(reaches(tls, {"--tls"}));  // Without root certificates, a self-signed certificate is not trusted.
    EXPECT_FALSE(reaches(server_, {"--tls"}));
    EXPECT_FALSE(reaches(server_, {"--client-certificate", client.certificate_file, "--client-key", client.key_file}));
    EXPECT_FALSE(reaches(mutual, {"--root-certificates", server.certificate_file}));
  }
  EXPECT_EQ(Longembed({"health", "--client-certificate", client.certificate_file}).status, kExitUsage);
}

// Returns "--flag", "--flag choice" or "files" for everything that a command's help lists.
std::set<std::string> Listed(const std::string& command) {
  std::set<std::string> listed;
  const Words lines = absl::StrSplit(Longembed({command, "--help"}).out, '\n');
  for (const std::string& line : lines) {
    const Words words = absl::StrSplit(line, absl::ByAnyChar(" {"), absl::SkipEmpty());
    const bool is_flag = line.starts_with("  ") && !words.empty() && words[0].starts_with("--");
    const bool is_positional = line.starts_with("  files ");
    if (!is_flag && !is_positional) continue;
    const size_t open = line.find("TEXT:{");
    if (open == std::string::npos) {
      listed.insert(words[0]);
      continue;
    }
    const Words choices = absl::StrSplit(line.substr(open + 6, line.find('}', open) - open - 6), ',');
    for (const std::string& choice : choices) listed.insert(words[0] + " " + choice);
  }
  return listed;
}

// Adds the flags of rows, each alone and with the word after it.
void Cover(const std::vector<Row>& rows, std::set<std::string>& covered) {
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.flags.size(); ++i) {
      const std::string flag = row.flags[i].substr(0, row.flags[i].find('='));
      covered.insert(flag);
      if (i + 1 < row.flags.size()) covered.insert(flag + " " + row.flags[i + 1]);
    }
  }
}

// All three are generated from one description.
TEST(WiringCompletenessTest, ManPageAndCompletionHaveEveryFlagOfTheHelp) {
  const std::string man = absl::StrReplaceAll(Longembed({"man"}).out, {{"\\-", "-"}, {"\\fB", ""}, {"\\fR", ""}});
  const std::string bash = Longembed({"completion", "bash"}).out, zsh = Longembed({"completion", "zsh"}).out;
  for (const std::string& command : kCommands) {
    const std::string section = man.substr(man.find(absl::StrCat(".SH ", absl::AsciiStrToUpper(command), "\n")));
    for (const std::string& flag : Listed(command)) {
      const Words words = absl::StrSplit(flag, ' ');
      if (words[0] == "files") continue;
      EXPECT_THAT(section.substr(0, section.find(".SH ", 1)), HasSubstr(words[0])) << command;
      EXPECT_THAT(bash, HasSubstr(words[0])) << command;
      EXPECT_THAT(zsh, HasSubstr(absl::StrCat("'*", words[0]))) << command;
      if (words.size() == 1) continue;
      EXPECT_THAT(section.substr(section.find(words[0])), HasSubstr(words[1])) << flag;
      const std::string values = bash.substr(bash.find(absl::StrCat("\"", command, " ", words[0], "\"")));
      EXPECT_THAT(values.substr(0, values.find('\n')), HasSubstr(words[1])) << flag;
    }
  }
  EXPECT_THAT(Longembed({"completion", "fish"}).err, HasSubstr("fish not in {bash,zsh}"));
}

TEST(WiringCompletenessTest, EveryFlagHasARow) {
  const std::string help = Longembed({"--help"}).out;
  const Words lines = absl::StrSplit(help.substr(help.find("Subcommands:\n") + 13), '\n', absl::SkipEmpty());
  Words commands;
  for (const std::string& line : lines) {
    if (line.starts_with("  ") && line[2] != ' ') commands.push_back(line.substr(2, line.find(' ', 2) - 2));
  }
  EXPECT_EQ(commands, Join(kCommands, {"completion", "man"}));
  for (const std::string& command : kCommands) {
    std::set<std::string> covered;
    for (const auto& [of, flag] : kOwnTests) {
      if (std::count(of.begin(), of.end(), command) > 0) covered.insert(flag);
    }
    if (command == "embed" || command == "explain") Cover(kOptionRows, covered);
    if (command == "tokenize") Cover(kTokenizeRows, covered);
    if (command == "health") Cover(kHealthRows, covered);
    const std::set<std::string> listed = Listed(command);
    EXPECT_GE(listed.size(), 9u) << command;
    for (const std::string& flag : listed) EXPECT_TRUE(covered.contains(flag)) << command << " " << flag;
  }
}

}  // namespace
}  // namespace longembed::client
