// Tests the HTTP server with bytes on a connection, over the real hosts and a fake model.
#include "server/http/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/api/http/routes.h"
#include "server/http/byte_chain.h"
#include "tests/server/api/service_test.h"
#include "tests/server/http/raw_connection.h"

namespace longembed {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kHello[] = R"({"input": "a", "model": "fake"})";

std::string Post(const std::string& path, const std::string& body, const std::string& headers = "") {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n", headers,
                      "Content-Length: ", body.size(), "\r\n\r\n", body);
}
std::string Get(const std::string& path, const std::string& verb = "GET") {
  return absl::StrCat(verb, " ", path, " HTTP/1.1\r\nHost: x\r\n\r\n");
}

class HttpServerTest : public ServiceTest {
 protected:
  HttpServerTest() {
    config_.limits = Options(absl::Minutes(10)).config.limits;
    config_.connections.handshake_timeout = absl::Milliseconds(500);
    server_.health().SetServing(true);
    Start();
  }
  ~HttpServerTest() override {
    encoder_.OpenGate();
    http_.reset();
    // Waits until every charge of the test has been released.
    for (int i = 0; i < 500 && server_.ledger().bytes() > 0; ++i) absl::SleepFor(absl::Milliseconds(10));
    EXPECT_EQ(server_.ledger().bytes(), 0);
    EXPECT_EQ(server_.metrics().in_flight(), 0);
  }

  void Start(const AcceptorOptions& options = {.silence = absl::Seconds(10)}) {
    http_ = std::make_unique<HttpServer>(config_, server_.host(),
                                         MakeRoutes(server_.apis(), config_.http, server_.health()),
                                         *Acceptor::Listen("127.0.0.1:0", options), nullptr);
  }

  // Sends one request on its own connection.
  std::string Ask(const std::string& request) {
    RawConnection connection(http_->port());
    connection.Send(request);
    return connection.ReadResponse();
  }

  ServerConfig config_;
  std::unique_ptr<HttpServer> http_;
};

TEST_F(HttpServerTest, AnswersOneRequestAfterTheOtherOnAConnection) {
  RawConnection connection(http_->port());
  for (int i = 0; i < 3; ++i) {
    connection.Send(Post("/v1/embeddings", kHello));
    EXPECT_THAT(connection.ReadResponse(),
                AllOf(StartsWith("HTTP/1.1 200 OK\r\n"), HasSubstr("Content-Type: application/json\r\n"),
                      Not(HasSubstr("Connection: close")), HasSubstr(R"("object":"embedding","index":0)")));
  }
  connection.Send(Get("/v1/models"));
  EXPECT_THAT(connection.ReadResponse(), HasSubstr(R"("id":"fake")"));
}

TEST_F(HttpServerTest, CountsItsConnectionsAndThoseThatItRefuses) {
  Start({.max_connections = 2, .max_client_share = 1, .silence = absl::Seconds(10)});
  RawConnection first(http_->port()), second(http_->port());
  for (RawConnection* connection : {&first, &second}) {
    connection->Send(Get("/health"));
    EXPECT_THAT(connection->ReadResponse(), StartsWith("HTTP/1.1 200"));
  }
  RawConnection third(http_->port());
  bool closed = false;
  EXPECT_EQ(third.ReadToEnd(closed), "");
  EXPECT_TRUE(closed);
  EXPECT_THAT(server_.metrics().Scrape(), HasSubstr("longembed_connections_accepted_total 2\n"));
  EXPECT_THAT(server_.metrics().Scrape(), HasSubstr("longembed_connections_refused_total{reason=\"limit\"} 1\n"));
}

TEST_F(HttpServerTest, OpenaiRequestsWithoutAPromptHaveTheConfiguredOne) {
  config_.http.openai_prompt = "query";
  Start();
  const auto body = [this](const std::string& more) {
    const std::string response = Ask(Post("/v1/embeddings", R"({"input": "a", "model": "fake")" + more + "}"));
    EXPECT_THAT(response, StartsWith("HTTP/1.1 200"));
    return response.substr(response.find("\r\n\r\n"));
  };
  const std::string query = body(R"(, "prompt_name": "query")");
  EXPECT_EQ(body(""), query);
  for (const char* other : {R"(, "prompt_name": "passage")", R"(, "prompt": "")", R"(, "input_type": "DOCUMENT")"}) {
    EXPECT_NE(body(other), query) << other;
  }
}

// The config's prompt is one for all models.
TEST_F(HttpServerTest, AModelWithoutPromptsIgnoresTheConfiguredOne) {
  FakeServer::Options options = Options(absl::Minutes(10));
  options.manifest->prompts = {};
  FakeServer server(options);
  config_.http.openai_prompt = "query";
  HttpServer http(config_, server.host(), MakeRoutes(server.apis(), config_.http, server.health()),
                  *Acceptor::Listen("127.0.0.1:0", {.silence = absl::Seconds(10)}), nullptr);
  RawConnection connection(http.port());
  connection.Send(Post("/v1/embeddings", kHello));
  EXPECT_THAT(connection.ReadResponse(), HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, TakesOptionsThatClientsSendToEveryServer) {
  EXPECT_THAT(Ask(Post("/v1/embeddings", R"({"input": "a", "drop_params": true})")), HasSubstr(" 200 "));
  const std::string options =
      R"({"inputs": "a", "options": {"wait_for_model": true, "use_gpu": false, "use_cache": 0}})";
  EXPECT_THAT(Ask(Post("/embed", options)), AllOf(HasSubstr(" 422 "), HasSubstr("use_cache: must be true or false")));
  EXPECT_THAT(Ask(Post("/", R"({"inputs": ["a"], "options": {"wait_for_model": true, "use_cache": true}})")),
              HasSubstr(" 200 "));
  EXPECT_THAT(Ask(Post("/embed", R"({"inputs": "a", "options": {"wait": true}})")), HasSubstr("UNKNOWN_FIELD"));
}

// As TEI does, and tei.v1 over gRPC.
TEST_F(HttpServerTest, TeiEmbedsABlankText) {
  for (const char* path : {"/embed", "/embed_all"}) {
    EXPECT_THAT(Ask(Post(path, R"({"inputs": [" ", "a"]})")), HasSubstr(" 200 ")) << path;
    EXPECT_THAT(Ask(Post(path, R"({"inputs": ["a", ""]})")),
                AllOf(HasSubstr(" 422 "), HasSubstr("EMPTY_INPUT"), HasSubstr(R"("field":"inputs[1]")")));
  }
  EXPECT_THAT(Ask(Post("/v1/embeddings", R"({"input": " "})")), HasSubstr("EMPTY_INPUT"));
}

// Cohere's `truncate` is END by default.
TEST_F(HttpServerTest, CohereCutsTextsThatAreTooLongForWindows) {
  std::string text = "a";
  for (int i = 0; i < 150; ++i) text += " a";
  const auto ask = [&](const std::string& more) {
    return Ask(Post("/v2/embed", R"({"texts": [")" + text + R"("])" + more + "}"));
  };
  const std::string windows = R"(, "extension": {"windows": {"tokens": 16}})";
  EXPECT_THAT(ask(windows), HasSubstr(" 200 "));
  EXPECT_THAT(ask(R"(, "model": "fake:highest")"), HasSubstr("would take 25 windows"));  // Those of 100 tokens.
  EXPECT_THAT(ask(windows + R"(, "truncate": "NONE")"), HasSubstr(" 400 "));
  EXPECT_THAT(ask(""), HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, ClosesAConnectionThatIsIdleForTooLong) {
  config_.connections.max_idle = absl::Milliseconds(200);
  Start();
  RawConnection connection(http_->port());
  connection.Send(Get("/health"));
  EXPECT_THAT(connection.ReadResponse(), StartsWith("HTTP/1.1 200"));
  bool closed = false;
  EXPECT_EQ(connection.ReadToEnd(closed), "");
  EXPECT_TRUE(closed);
}

TEST_F(HttpServerTest, AnOldConnectionEndsWithItsNextAnswer) {
  config_.connections.max_age = absl::Milliseconds(200);
  Start();
  RawConnection connection(http_->port());
  connection.Send(Get("/health"));
  EXPECT_THAT(connection.ReadResponse(), Not(HasSubstr("Connection: close")));
  absl::SleepFor(absl::Milliseconds(250));
  connection.Send(Get("/health"));
  bool closed = false;
  EXPECT_THAT(connection.ReadToEnd(closed), AllOf(StartsWith("HTTP/1.1 200"), HasSubstr("Connection: close\r\n")));
  EXPECT_TRUE(closed);
}

TEST_F(HttpServerTest, ClosesWhenTheClientAsksForIt) {
  RawConnection connection(http_->port());
  connection.Send(Post("/v1/embeddings", kHello, "Connection: close\r\n"));
  bool closed = false;
  EXPECT_THAT(connection.ReadToEnd(closed), HasSubstr("Connection: close\r\n"));
  EXPECT_TRUE(closed);
}

TEST_F(HttpServerTest, ServesHttp10) {
  RawConnection connection(http_->port());
  connection.Send("GET /health HTTP/1.0\r\n\r\n");
  bool closed = false;
  EXPECT_THAT(connection.ReadToEnd(closed), HasSubstr(" 200 "));
  EXPECT_TRUE(closed);
}

TEST_F(HttpServerTest, HeadHasTheHeaderOfGet) {
  RawConnection connection(http_->port());
  connection.Send(Get("/v1/models", "HEAD"));
  EXPECT_THAT(connection.ReadHeader(), AllOf(HasSubstr(" 200 "), Not(HasSubstr("Content-Length: 0\r\n"))));
  connection.Send(Get("/health"));  // The response before it has no body.
  EXPECT_THAT(connection.ReadResponse(), StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, NamesTheMethodsOfAPath) {
  EXPECT_THAT(Ask(Get("/v1/embeddings", "OPTIONS")), AllOf(HasSubstr(" 204 "), HasSubstr("Allow: POST, OPTIONS\r\n")));
  EXPECT_THAT(Ask(Get("/v1/models", "OPTIONS")), HasSubstr("Allow: GET, HEAD, OPTIONS\r\n"));
  EXPECT_THAT(Ask(Get("/v1/embeddings")), AllOf(HasSubstr(" 405 "), HasSubstr("Allow: POST, OPTIONS\r\n")));
  EXPECT_THAT(Ask(Get("/v1/embeddings", "DELETE")), AllOf(HasSubstr(" 405 "), HasSubstr("METHOD_NOT_ALLOWED")));
  EXPECT_THAT(Ask(Get("/v1/embedding")), AllOf(HasSubstr(" 404 "), HasSubstr("UNKNOWN_PATH")));
  EXPECT_THAT(Ask(Get("/v1/models/")), HasSubstr(" 404 "));
  EXPECT_THAT(Ask(Get("*", "OPTIONS")), AllOf(HasSubstr(" 204 "), HasSubstr("Allow: GET, HEAD, POST, OPTIONS\r\n")));
  EXPECT_THAT(Ask(Get("*")), AllOf(HasSubstr(" 400 "), HasSubstr("MALFORMED_HTTP")));
}

TEST_F(HttpServerTest, TakesWholeAddresses) {
  EXPECT_THAT(Ask(Get("http://127.0.0.1/v1/models?x=1")), HasSubstr(" 200 "));
  EXPECT_THAT(Ask(Post("http://x:80/v1/embeddings", kHello)), HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, CrossOriginIsOffByDefault) {
  EXPECT_THAT(Ask(Get("/v1/models")), Not(HasSubstr("Access-Control")));
  config_.http.allowed_origin = "https://example.org";
  http_.reset();
  Start();
  EXPECT_THAT(Ask(Get("/v1/models")), HasSubstr("Access-Control-Allow-Origin: https://example.org\r\n"));
  EXPECT_THAT(Ask(Get("/v1/embeddings", "OPTIONS")),
              AllOf(HasSubstr("Access-Control-Allow-Headers: authorization, content-type, x-api-key, "
                              "x-request-timeout, *\r\n"),
                    HasSubstr("Access-Control-Expose-Headers: retry-after, retry-after-ms\r\n")));
}

TEST_F(HttpServerTest, RefusesCompressedBodiesAndOtherTypesThanJson) {
  const std::string form = "POST /v1/embeddings HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}";
  EXPECT_THAT(Ask(form), AllOf(HasSubstr(" 415 "), HasSubstr("NOT_JSON"), HasSubstr("text/plain")));
  EXPECT_THAT(Ask(Post("/v1/embeddings", kHello, "Content-Encoding: gzip\r\n")),
              AllOf(HasSubstr(" 415 "), HasSubstr("COMPRESSED_REQUEST")));
}

TEST_F(HttpServerTest, RefusesABodyThatIsTooLargeBeforeItIsSent) {
  RawConnection connection(http_->port());
  connection.Send("POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 65537\r\n\r\n");
  EXPECT_THAT(connection.ReadResponse(), AllOf(HasSubstr(" 413 "), HasSubstr("has 65537 bytes; the limit is 65536"),
                                               HasSubstr("Connection: close")));
}

// Closing at once would reset the connection, and the client would see a broken pipe instead of the answer.
TEST_F(HttpServerTest, AClientMaySendOnAfterItsBodyWasRefused) {
  RawConnection connection(http_->port());
  connection.Send("POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 90000000\r\n\r\n");
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(connection.Send(std::string(1000, ' '))) << i;
    absl::SleepFor(absl::Milliseconds(200));
  }
  EXPECT_THAT(connection.ReadResponse(), AllOf(StartsWith("HTTP/1.1 413"), HasSubstr("REQUEST_TOO_LARGE")));
  bool closed = false;
  EXPECT_EQ(connection.ReadToEnd(closed), "");
  EXPECT_TRUE(closed);
}

// As signed numbers these lengths would be negative, and so would the bytes on the ledger.
TEST_F(HttpServerTest, RefusesLengthsBeyondTheSignedNumbers) {
  for (const char* length : {"9223372036854775808", "18446744073709551615"}) {
    RawConnection connection(http_->port());
    connection.Send(absl::StrCat(
        "POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: ", length, "\r\n\r\n"));
    EXPECT_THAT(connection.ReadResponse(),
                AllOf(HasSubstr(" 413 "), HasSubstr(absl::StrCat("has ", length, " bytes; the limit is 65536"))));
    EXPECT_GE(server_.ledger().bytes(), 0);
  }
}

// Health needs no key, and the bodies of checks find room where those of calls do not.
TEST_F(HttpServerTest, RefusesALargeBodyOfAGet) {
  for (const char* path : {"/health", "/v1/models", "/info", "/longembed/v1/models/fake"}) {
    const std::string head = absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: x\r\n");
    EXPECT_THAT(Ask(absl::StrCat(head, "Content-Length: 16385\r\n\r\n")),
                AllOf(HasSubstr(" 413 "), HasSubstr("has 16385 bytes; the limit is 16384")))
        << path;
    const std::string chunk = absl::StrCat("4000\r\n", std::string(0x4000, ' '), "\r\n");
    EXPECT_THAT(Ask(absl::StrCat(head, "Transfer-Encoding: chunked\r\n\r\n", chunk, chunk)),
                AllOf(HasSubstr(" 413 "), HasSubstr("the limit is 16384")))
        << path;
    EXPECT_THAT(Ask(absl::StrCat(head, "Content-Length: 2\r\n\r\n{}")), HasSubstr(" 200 ")) << path;
  }
}

TEST_F(HttpServerTest, RefusesChunksThatBecomeTooLarge) {
  RawConnection connection(http_->port());
  connection.Send(
      "POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
  const std::string chunk = absl::StrCat("4000\r\n", std::string(0x4000, ' '), "\r\n");
  for (int i = 0; i < 5; ++i) connection.Send(chunk);
  EXPECT_THAT(connection.ReadResponse(), AllOf(HasSubstr(" 413 "), HasSubstr("REQUEST_TOO_LARGE")));
}

TEST_F(HttpServerTest, TakesChunks) {
  EXPECT_THAT(
      Ask(absl::StrCat("POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n5\r\n",
                       std::string(kHello).substr(0, 5), "\r\n1a\r\n", std::string(kHello).substr(5), "\r\n0\r\n\r\n")),
      HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, RefusesBodiesThatAreNotChunks) {
  const std::string head = "POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: ";
  EXPECT_THAT(Ask(absl::StrCat(head, "chunked\r\n\r\nzz\r\n", kHello)),
              AllOf(HasSubstr(" 400 "), HasSubstr("MALFORMED_HTTP"), HasSubstr("Connection: close")));
  // The bytes of the body must not be taken for another request.
  for (const char* encoding : {"gzip", "gzip, chunked", "chunked, gzip", "xchunked", "identity", "",
                               "\r\nTransfer-Encoding: gzip", "\r\nTransfer-Encoding: chunked"}) {
    EXPECT_THAT(Ask(absl::StrCat(head, encoding, "\r\n\r\n", Get("/health"))),
                AllOf(HasSubstr(" 400 "), HasSubstr("only chunked is taken"), HasSubstr("Connection: close")))
        << encoding;
  }
  EXPECT_THAT(Ask(absl::StrCat(head, "Chunked\r\n\r\n0\r\n\r\n")), HasSubstr("MISSING_FIELD"));
}

TEST_F(HttpServerTest, NoErrorOfAHeadHasABody) {
  for (const char* request : {"HEAD /health HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", "HEAD * HTTP/1.1\r\n\r\n",
                              "HEAD /nothing HTTP/1.1\r\nConnection: close\r\n\r\n"}) {
    RawConnection connection(http_->port());
    connection.Send(request);
    bool closed = false;
    EXPECT_THAT(connection.ReadToEnd(closed), AllOf(StartsWith("HTTP/1.1 4"), EndsWith("\r\n\r\n"))) << request;
    EXPECT_TRUE(closed);
  }
}

TEST_F(HttpServerTest, ContinuesWhereTheClientWaitsForIt) {
  RawConnection connection(http_->port());
  const std::string request = Post("/v1/embeddings", kHello, "Expect: 100-continue\r\n");
  connection.Send(request.substr(0, request.size() - std::string(kHello).size()));
  EXPECT_EQ(connection.ReadHeader(), "HTTP/1.1 100 Continue\r\n\r\n");
  connection.Send(kHello);
  EXPECT_THAT(connection.ReadResponse(), HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, SendsNoContinueToHttp10) {
  const std::string request = absl::StrCat(
      "POST /v1/embeddings HTTP/1.0\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: ",
      std::string(kHello).size(), "\r\n\r\n", kHello);
  EXPECT_THAT(Ask(request), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpServerTest, RefusesMalformedHttp) {
  for (const char* bytes : {"\x16\x03\x01\x02 TLS\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n",
                            "GET /health HTTP/1.1\r\nContent-Length: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                            "GET health HTTP/1.1\r\n\r\n"}) {
    EXPECT_THAT(Ask(bytes), AllOf(HasSubstr(" 400 "), HasSubstr("MALFORMED_HTTP"))) << bytes;
  }
  EXPECT_THAT(Ask(absl::StrCat("GET / HTTP/1.1\r\nX: ", std::string(17000, 'x'), "\r\n\r\n")),
              AllOf(HasSubstr(" 431 "), HasSubstr("HEADER_TOO_LARGE")));
}

// An error quotes what it refuses. Paths and headers may hold any bytes.
TEST_F(HttpServerTest, RefusesPathsAndHeadersThatAreNotUtf8) {
  std::vector<std::string> requests{Get("/%ff"), Get("/\xff"), Get("/%c3"), Get("/v1/models/gpt%ff")};
  for (const char* path : {"/v1/embeddings", "/embed", "/tokenize", "/v2/embed"}) {
    requests.push_back(Post(path, kHello, "Content-Encoding: \xff\r\n"));
    requests.push_back(Post(path, kHello, "X-Request-Timeout: \xff\r\n"));
    requests.push_back(absl::StrCat("POST ", path, " HTTP/1.1\r\nContent-Type: \xff\r\nContent-Length: 2\r\n\r\n{}"));
  }
  for (const std::string& request : requests) {
    EXPECT_THAT(Ask(request), AllOf(StartsWith("HTTP/1.1 4"), HasSubstr("\xef\xbf\xbd"))) << request;
  }
  for (const char* path : {"/longembed/v1/models/%ff", "/longembed/v1/embed%ff"}) {
    EXPECT_THAT(Ask(Get(path)), HasSubstr(" 404 ")) << path;
  }
}

TEST_F(HttpServerTest, RefusesFieldsThatProtobufsReaderWouldDrop) {
  const std::string path = "/longembed/v1/embed";
  EXPECT_THAT(Ask(Post(path, R"({"inputs": [{"text": "a"}, null]})")),
              AllOf(HasSubstr(" 400 "), HasSubstr("inputs[1]: must be an object; it is null")));
  EXPECT_THAT(Ask(Post("/longembed/v1/tokenize", R"({"texts": [null, "a"]})")),
              AllOf(HasSubstr(" 400 "), HasSubstr("texts[0]: must be a string; it is null")));
  const std::string twice = R"({"inputs": [{"text": "a"}], "partialResults": true, "partial_results": false})";
  EXPECT_THAT(Ask(Post(path, twice)), AllOf(HasSubstr(" 400 "), HasSubstr("partialResults: appears twice")));
}

TEST_F(HttpServerTest, ListsTheValuesOfAnEnum) {
  for (const char* value : {R"("bulk")", R"("LOW")", "true", R"("")", R"("99")", "1.5", "1e10", "4294967297"}) {
    EXPECT_THAT(Ask(Post("/embed", absl::StrCat(R"({"inputs": "a", "priority": )", value, "}"))),
                AllOf(HasSubstr(" 422 "), HasSubstr("priority: must be one of INTERACTIVE, BULK; it is "),
                      HasSubstr(R"("field":"priority")")));
  }
  for (const char* value : {R"("BULK")", "1", R"("1")", "null"}) {
    EXPECT_THAT(Ask(Post("/embed", absl::StrCat(R"({"inputs": "a", "priority": )", value, "}"))), HasSubstr(" 200 "));
  }
}

TEST_F(HttpServerTest, NamesTwoFieldsOfWhichAtMostOneMayBeSet) {
  EXPECT_THAT(Ask(Post("/v1/embeddings", R"({"input": "a", "prompt_name": "query", "prompt": "b"})")),
              AllOf(HasSubstr(" 400 "), HasSubstr("prompt: cannot be set beside prompt_name"),
                    HasSubstr(R"("param":"prompt")")));
  EXPECT_THAT(Ask(Post("/longembed/v1/embed", R"({"inputs": [{"text": "a"}, {"text": "a", "tokenIds": {}}]})")),
              AllOf(HasSubstr(" 400 "), HasSubstr("inputs[1].text: cannot be set beside tokenIds")));
  EXPECT_THAT(Ask(Post("/longembed/v1/embed", R"({"inputs": [{"text": "a", "tokenIds": null}]})")), HasSubstr(" 200 "));
}

// Errors name remedies that the dialect has.
TEST_F(HttpServerTest, TellsClientsOfTeiToSetTruncate) {
  const std::string answer = Ask(Post("/embed", R"({"inputs": "a a a a a a a a a a a a a a a a a a a a a a a a"})"));
  EXPECT_THAT(answer, AllOf(HasSubstr(" 422 "), HasSubstr("set truncate"), Not(HasSubstr("END or START"))));
}

// Nothing tells the ids of such a model from those of another tokenizer.
TEST_F(HttpServerTest, RefusesTokenIdsOfAModelWithoutSpecialTokens) {
  FakeServer::Options options = Options(absl::Minutes(10));
  options.manifest = FakeManifest();
  options.manifest->special_prefix = options.manifest->special_suffix = {};
  FakeServer server(options);
  HttpServer http(config_, server.host(), MakeRoutes(server.apis(), config_.http, server.health()),
                  *Acceptor::Listen("127.0.0.1:0", {.silence = absl::Seconds(10)}), nullptr);
  RawConnection connection(http.port());
  connection.Send(Post("/v1/embeddings", R"({"input": [[50, 51]]})"));
  EXPECT_THAT(connection.ReadResponse(), AllOf(HasSubstr(" 400 "), HasSubstr("FOREIGN_TOKENS")));
  connection.Send(Post("/v1/embeddings", kHello));
  EXPECT_THAT(connection.ReadResponse(), HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, TakesTokenIdsOfTheModelAndNamesFieldsAsTheDialectDoes) {
  EXPECT_THAT(Ask(Post("/v1/embeddings", R"({"input": [1, 50, 2]})")), HasSubstr(" 200 "));
  EXPECT_THAT(Ask(Post("/v1/embeddings", R"({"input": [[50, 2]]})")),
              AllOf(HasSubstr("FOREIGN_TOKENS"), HasSubstr("check_embedding_ctx_length=False")));
  const std::string many = R"({"input": [[1, 9,9,9,9, 9,9,9,9, 9,9,9,9, 9,9,9,9, 2]]})";
  EXPECT_THAT(Ask(Post("/v1/embeddings", many)), AllOf(HasSubstr(" 400 "), HasSubstr(R"("param":"input[0]")")));
  const std::string unknown = R"({"inputs": [1, 100, 2]})";
  EXPECT_THAT(Ask(Post("/embed", unknown)), AllOf(HasSubstr(" 422 "), HasSubstr(R"("field":"inputs[1]")")));
  EXPECT_THAT(Ask(Post("/v2/embed", R"({"texts": [50, 2]})")), HasSubstr(R"("field":"texts")"));
  EXPECT_THAT(Ask(Post("/v2/embed", R"({"texts": [1, 100, 2]})")), HasSubstr(R"("field":"texts[1]")"));
}

TEST_F(HttpServerTest, NamesATokenIdThatCannotBeDecoded) {
  EXPECT_THAT(Ask(Post("/decode", R"({"ids": [1, 100, 2]})")),
              AllOf(HasSubstr(" 422 "), HasSubstr("ids: no token has id 100"), HasSubstr("TOKEN_ID_OUT_OF_RANGE")));
  EXPECT_THAT(Ask(Post("/decode", R"({"ids": [[1, 50, 2], [100]]})")), HasSubstr("ids[1]: no token has id 100"));
  EXPECT_THAT(Ask(Post("/decode", R"({"ids": [[1, 50, 2], []]})")), HasSubstr("ids[1]: is empty"));
}

TEST_F(HttpServerTest, AnEmptyListHasTeisError) {
  for (const char* path : {"/embed", "/embed_all", "/tokenize"}) {
    EXPECT_THAT(Ask(Post(path, R"({"inputs": []})")),
                AllOf(HasSubstr(" 400 "), HasSubstr(R"("error_type":"Empty")"), HasSubstr("NO_INPUTS")))
        << path;
  }
  EXPECT_THAT(Ask(Post("/decode", R"({"ids": []})")), AllOf(HasSubstr(" 400 "), HasSubstr(R"("error_type":"Empty")")));
  EXPECT_THAT(Ask(Post("/embed", R"({"inputs": [""]})")),
              AllOf(HasSubstr(" 422 "), HasSubstr(R"("error_type":"Validation")")));
}

TEST_F(HttpServerTest, SparseVectorsOfADenseModelHaveTeisError) {
  EXPECT_THAT(Ask(Post("/embed_sparse", R"({"inputs": "a"})")),
              AllOf(HasSubstr(" 424 "), HasSubstr(R"("error_type":"Backend")"), HasSubstr("OUTPUT_NOT_AVAILABLE")));
}

TEST_F(HttpServerTest, RefusesAPromptBesideTokenIds) {
  EXPECT_THAT(Ask(Post("/v1/embeddings", R"({"input": [[1, 50, 2], "a"], "prompt": "b"})")),
              AllOf(HasSubstr(" 400 "), HasSubstr("MISPLACED_FIELD"), HasSubstr(R"("param":"prompt")")));
  EXPECT_THAT(Ask(Post("/v1/embeddings", R"({"input": [1, 50, 2], "prompt": ""})")), HasSubstr(" 200 "));
  EXPECT_THAT(Ask(Post("/v2/embed", R"({"texts": [[1, 50, 2]], "input_type": "search_query"})")),
              AllOf(HasSubstr(" 400 "), HasSubstr("MISPLACED_FIELD"), HasSubstr(R"("field":"input_type")")));
  EXPECT_THAT(Ask(Post("/v2/embed", R"({"texts": [[1, 50, 2]], "input_type": "clustering"})")), HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, RefusesTwoLengths) {
  const std::string both = Post("/v1/embeddings", kHello, "Transfer-Encoding: chunked\r\n");
  EXPECT_THAT(Ask(both), Not(HasSubstr(" 200 ")));
  EXPECT_THAT(Ask(Post("/v1/embeddings", kHello, "Content-Length: 3\r\n")), Not(HasSubstr(" 200 ")));
}

TEST_F(HttpServerTest, AnswersTheFirstOfTwoRequestsAtOnceAndCloses) {
  RawConnection connection(http_->port());
  connection.Send(Post("/v1/embeddings", kHello) + Post("/v1/embeddings", kHello));
  bool closed = false;
  const std::string all = connection.ReadToEnd(closed);
  EXPECT_TRUE(closed);
  EXPECT_THAT(all, AllOf(HasSubstr(" 200 "), HasSubstr("Connection: close")));
  EXPECT_EQ(all.find("HTTP/1.1", 1), std::string::npos);
}

TEST_F(HttpServerTest, GivesUpOnAHeaderThatDoesNotArrive) {
  RawConnection connection(http_->port());
  connection.Send("POST /v1/embeddings HTTP/1.1\r\n");
  EXPECT_THAT(connection.ReadResponse(), AllOf(HasSubstr(" 408 "), HasSubstr("REQUEST_TOO_SLOW")));
}

TEST_F(HttpServerTest, TheAnswerToAHeaderThatDoesNotArriveHasABodyEvenAfterAHead) {
  RawConnection connection(http_->port());
  connection.Send(Get("/health", "HEAD"));
  EXPECT_THAT(connection.ReadHeader(), HasSubstr(" 200 "));
  connection.Send("POST /v1/embeddings HTTP/1.1\r\n");
  EXPECT_THAT(connection.ReadResponse(), AllOf(HasSubstr(" 408 "), HasSubstr("REQUEST_TOO_SLOW")));
}

TEST_F(HttpServerTest, GivesUpOnABodyThatDoesNotArrive) {
  RawConnection connection(http_->port());
  connection.Send("POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{");
  EXPECT_THAT(connection.ReadResponse(), AllOf(HasSubstr(" 408 "), HasSubstr("REQUEST_TOO_SLOW")));
}

TEST_F(HttpServerTest, GivesUpOnABodyOfNothingButChunkExtensions) {
  RawConnection connection(http_->port());
  connection.Send(
      "POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1;");
  std::jthread trickle([&connection](const std::stop_token& stop) {
    for (int i = 0; i < 100 && !stop.stop_requested() && connection.Send("a"); ++i)
      absl::SleepFor(absl::Milliseconds(50));
  });
  EXPECT_THAT(connection.ReadResponse(), HasSubstr(" 408 "));
  trickle.request_stop();
}

TEST_F(HttpServerTest, ABodyIsOnTheLedgerWhileItArrives) {
  RawConnection connection(http_->port());
  connection.Send("POST /v1/embeddings HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n{");
  for (int i = 0; i < 200 && server_.ledger().held().at("requests") < 60000; ++i) absl::SleepFor(absl::Milliseconds(2));
  EXPECT_GE(server_.ledger().held().at("requests"), 60000);
}

TEST_F(HttpServerTest, ACallWhoseClientGoesAwayIsCancelled) {
  encoder_.CloseGate();
  {
    RawConnection connection(http_->port());
    connection.Send(Post("/v1/embeddings", kHello));
    encoder_.AwaitCalls(1);
  }
  for (int i = 0; i < 500 && encoder_.given_up() == 0; ++i) absl::SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(encoder_.given_up(), 1);
}

// Returns what a dialect writes, as a share of what it announces to the ledger.
double ShareOfAnnounced(const Routes& routes, const std::string& path, const std::string& body,
                        const google::protobuf::Message& response) {
  constexpr int64_t kMost = 1 << 20;
  const auto route = std::ranges::find(routes.calls, path, &Route::path);
  const std::unique_ptr<Dialect> dialect = route->dialect("");
  const std::unique_ptr<google::protobuf::Message> request(route->method.request->New());
  grpc::ByteBuffer bytes;
  EXPECT_EQ(dialect->Parse(ToBytes(body), kMost, *request), absl::OkStatus());
  EXPECT_EQ(dialect->Serialize(*request, response, kMost, bytes), absl::OkStatus());
  const auto announced = static_cast<double>(dialect->MostSerializedBytes(response.ByteSizeLong()));
  return static_cast<double>(bytes.Length()) / announced;
}

TEST_F(HttpServerTest, NoAnswerIsLargerThanItsDialectAnnounces) {
  const Routes routes = MakeRoutes(server_.apis(), config_.http, server_.health());
  v1::EmbedResponse dense, sparse;
  v1::Embedding &vector = *dense.add_results()->add_embeddings(), &weights = *sparse.add_results()->add_embeddings();
  for (uint32_t i = 0; i < 300; ++i) {
    vector.add_values(-1.2345678e-5f);
    weights.mutable_indices()->add_ids(30000 + i);
    weights.add_values(1.2345678e-5f);
  }
  const std::string text(5000, 'a');
  const std::string types = R"("embedding_types": ["float", "int8", "uint8", "binary", "ubinary", "base64"])";
  EXPECT_LE(ShareOfAnnounced(routes, "/v2/embed", absl::StrCat(R"({"texts": [")", text, R"("], )", types, "}"), dense),
            1);
  EXPECT_LE(ShareOfAnnounced(routes, "/v1/embeddings", R"({"input": "a"})", dense), 1);
  EXPECT_LE(ShareOfAnnounced(routes, "/embed", R"({"inputs": "a"})", dense), 1);
  EXPECT_LE(ShareOfAnnounced(routes, "/embed_sparse", R"({"inputs": "a"})", sparse), 1);
  v1::TokenizeResponse tokens;
  v1::TokenizedText& one = *tokens.add_results();
  for (uint32_t i = 0; i < 100; ++i) {
    v1::Token& token = *one.add_tokens();
    token.set_id(5);
    token.set_text("a");
    token.mutable_range()->set_start(i);
    token.mutable_range()->set_end(i + 1);
  }
  EXPECT_LE(ShareOfAnnounced(routes, "/tokenize", R"({"inputs": ")" + std::string(100, 'a') + R"("})", tokens), 1);
}

TEST_F(HttpServerTest, ATimeoutIsADeadline) {
  encoder_.CloseGate();
  EXPECT_THAT(Ask(Post("/v1/embeddings", kHello, "X-Request-Timeout: 0.1\r\n")),
              AllOf(HasSubstr(" 504 "), HasSubstr("DEADLINE_EXCEEDED")));
  EXPECT_THAT(Ask(Post("/v1/embeddings", kHello, "X-Request-Timeout: soon\r\n")),
              AllOf(HasSubstr(" 400 "), HasSubstr("BAD_TIMEOUT")));
}

TEST_F(HttpServerTest, OverloadHasRetryAfter) {
  encoder_.CloseGate();
  std::vector<std::future<std::string>> calls;
  const auto call = [&] {
    calls.push_back(std::async(std::launch::async,
                               [this] { return Ask(Post("/v1/embeddings", R"({"input": "a a a a a a a a a a"})")); }));
  };
  call();
  encoder_.AwaitCalls(1);  // This request is alone in its batch.
  for (int i = 0; i < 12; ++i) call();
  // There is no room for all requests. Refused ones are answered while the others wait.
  std::string refused;
  for (int i = 0; i < 5000 && refused.empty(); ++i) {
    absl::SleepFor(absl::Milliseconds(1));
    const auto done = std::ranges::find_if(
        calls, [](auto& call) { return call.wait_for(std::chrono::seconds(0)) == std::future_status::ready; });
    if (done != calls.end()) refused = done->get();
  }
  encoder_.OpenGate();
  EXPECT_THAT(refused, AllOf(HasSubstr(" 429 "), HasSubstr("Retry-After: "), HasSubstr("rate_limit_error")));
}

TEST_F(HttpServerTest, HealthFollowsTheServer) {
  for (const char* path : {"/health", "/ping"}) EXPECT_THAT(Ask(Get(path)), HasSubstr(" 200 ")) << path;
  server_.health().SetServing(false);
  for (const char* path : {"/health", "/ping"}) {
    EXPECT_THAT(Ask(Get(path)), AllOf(HasSubstr(" 503 "), HasSubstr("NOT_SERVING"))) << path;
  }
}

TEST_F(HttpServerTest, HealthIsAnsweredEvenIfTheLedgerHasNoRoom) {
  const std::unique_ptr<Charge> others = server_.host().ledger.BeginMessage("another client");
  others->Correct(Memory::kAnswers, 64 << 20);
  EXPECT_THAT(Ask(Get("/v1/models")), HasSubstr(" 429 "));
  EXPECT_THAT(Ask(Get("/health")), HasSubstr(" 200 "));
}

TEST_F(HttpServerTest, ADrainFinishesCallsAndClosesIdleConnections) {
  RawConnection idle(http_->port()), busy(http_->port());
  idle.Send(Get("/health"));
  idle.ReadResponse();
  encoder_.CloseGate();
  busy.Send(Post("/v1/embeddings", kHello));
  encoder_.AwaitCalls(1);
  std::jthread drain([this] { http_->Shutdown(absl::Seconds(10)); });
  bool closed = false;
  idle.ReadToEnd(closed);
  EXPECT_TRUE(closed);
  encoder_.OpenGate();
  EXPECT_THAT(busy.ReadToEnd(closed), AllOf(HasSubstr(" 200 "), HasSubstr("Connection: close")));
  EXPECT_TRUE(closed);
}

// Clients then connect to another replica before this one closes its connections.
TEST_F(HttpServerTest, AnAnnouncedShutdownEndsConnectionsWithTheirNextAnswer) {
  RawConnection old(http_->port());
  old.Send(Get("/health"));
  EXPECT_THAT(old.ReadResponse(), Not(HasSubstr("Connection: close")));
  http_->AnnounceShutdown();
  RawConnection later(http_->port());
  for (RawConnection* connection : {&old, &later}) {
    connection->Send(Get("/health"));
    bool closed = false;
    EXPECT_THAT(connection->ReadToEnd(closed), AllOf(HasSubstr(" 200 "), HasSubstr("Connection: close")));
    EXPECT_TRUE(closed);
  }
}

// Otherwise a client whose request was on its way would see a reset connection.
TEST_F(HttpServerTest, ADrainAnswersRequestsThatHaveArrived) {
  std::vector<std::unique_ptr<RawConnection>> connections;
  for (int i = 0; i < 50; ++i) {
    connections.push_back(std::make_unique<RawConnection>(http_->port()));
    connections.back()->Send(Get("/health"));
    connections.back()->ReadResponse();
  }
  for (const auto& connection : connections) connection->Send(Get("/health"));
  http_->Shutdown(absl::Seconds(10));
  for (const auto& connection : connections) {
    bool closed = false;
    EXPECT_THAT(connection->ReadToEnd(closed), HasSubstr(" 200 "));
    EXPECT_TRUE(closed);
  }
}

TEST_F(HttpServerTest, CutsOffCallsThatDoNotEndInTime) {
  encoder_.CloseGate();
  RawConnection busy(http_->port());
  busy.Send(Post("/v1/embeddings", kHello));
  encoder_.AwaitCalls(1);
  http_->Shutdown(absl::Milliseconds(50));
  bool closed = false;
  EXPECT_EQ(busy.ReadToEnd(closed), "");
  EXPECT_TRUE(closed);
}

}  // namespace
}  // namespace longembed
