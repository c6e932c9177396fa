#include "server/http/session.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/errors/errors.h"
#include "server/http/byte_chain.h"
#include "server/http/peer.h"
#include "server/http/request_target.h"
#include "server/http/response_text.h"
#include "server/rpc/unary_host.h"

namespace longembed {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr uint32_t kMaxHeaderBytes = 16 << 10;
// No route that is a GET needs a body. GET /health needs no key either, and its body finds room beyond the ledger's
// limit (admission/ledger.h).
constexpr int64_t kMaxBodyBytesOfGet = 16 << 10;
// A client is cut off if this many bytes of a body take longer than HttpTimeouts::receive to arrive, or if it takes
// longer than HttpTimeouts::send to read this many bytes of an answer.
constexpr size_t kStep = 16 << 10;
constexpr size_t kBufferBytes = 64 << 10;
// A connection that ends is closed once its client has been silent for this long.
constexpr absl::Duration kSilence = absl::Seconds(1);
constexpr char kJson[] = "application/json";
constexpr char kAnyMethod[] = "GET, HEAD, POST, OPTIONS";  // Of the server as a whole.
// The policy for pages: they load nothing from other sites, and no other page may frame them.
constexpr char kContentPolicy[] =
    "default-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'";

std::string Text(boost::beast::string_view text) { return {text.data(), text.size()}; }

// Returns whether what the client sent is not HTTP. Other errors mean that it went away.
bool IsMalformed(error_code error) {
  return error && error.category() == http::make_error_code(http::error::bad_method).category() &&
         error != http::error::end_of_stream && error != http::error::partial_message;
}

template <typename Stream>
class Connection final : public HttpSession, public std::enable_shared_from_this<Connection<Stream>> {
  static constexpr bool kTls = !std::is_same_v<Stream, tcp::socket>;

 public:
  Connection(Stream stream, Peer peer, std::shared_ptr<asio::ssl::context> tls, const HttpContext& context)
      : context_(context),
        tls_(std::move(tls)),
        stream_(std::move(stream)),
        timer_(stream_.get_executor()),
        peer_(std::move(peer)),
        opened_(context.host.clock.Now()) {}

  void Run() {
    OnStrand([](Connection& self) {
      if constexpr (kTls) {
        self.Handshake();
      } else {
        self.AwaitRequest();
      }
    });
  }

  void EndAfterNextAnswer() override {
    OnStrand([](Connection& self) { self.last_request_ = true; });
  }
  void Drain() override {
    OnStrand([](Connection& self) {
      self.last_request_ = self.draining_ = true;
      self.linger_ends_ = std::min(self.linger_ends_, self.context_.host.clock.Now() + kSilence);
      if (self.state_ == State::kIdle) self.EndIfSilent();
    });
  }
  void Close() override {
    OnStrand([](Connection& self) { self.End(); });
  }

 private:
  enum class State {
    kIdle,     // Between requests.
    kReading,  // Reading a request's header or body.
    kServing,  // A call is in progress.
    kWriting,
    kLingering,  // The last answer has been sent; what the client still sends is discarded.
    kEnded,
  };

  template <typename Action>
  void OnStrand(Action action) {
    asio::post(stream_.get_executor(), [self = this->shared_from_this(), action] { action(*self); });
  }
  // Returns a completion handler that calls the member and keeps this connection alive.
  template <typename... Arguments>
  auto Then(void (Connection::*member)(Arguments...)) {
    return [self = this->shared_from_this(), member](Arguments... arguments) { ((*self).*member)(arguments...); };
  }

  tcp::socket& socket() {
    if constexpr (kTls) {
      return stream_.next_layer();
    } else {
      return stream_;
    }
  }

  // --- Time ----------------------------------------------------------------------------------------------------------

  void Expect(absl::Duration within) {
    timer_.expires_after(absl::ToChronoNanoseconds(std::min(within, absl::Hours(24 * 365))));
    timer_.async_wait(Then(&Connection::OnTime));
  }
  void OnTime(error_code error) {
    if (error || timer_.expiry() > std::chrono::steady_clock::now()) return;
    if (state_ != State::kReading) return End();
    error_code ignored;
    socket().cancel(ignored);  // Cancels the pending read. Its parser stays until the connection ends.
    Refuse(RequestTooSlow(context_.timeouts.receive));
  }

  // --- Reading -------------------------------------------------------------------------------------------------------

  void Handshake() {
    Expect(context_.timeouts.receive);
    if constexpr (kTls) stream_.async_handshake(asio::ssl::stream_base::server, Then(&Connection::OnHandshake));
  }
  void OnHandshake(error_code error) {
    if (state_ == State::kEnded) return;
    if (error) return End();
    if constexpr (kTls) peer_.certificate = CertificateNameOf(stream_.native_handle());
    AwaitRequest();
  }

  void AwaitRequest() {
    state_ = State::kIdle;
    if (draining_) return End();
    if (buffer_.size() > 0) return ReadHeader();
    Expect(context_.timeouts.idle);
    Watch();
  }

  // Ends an idle connection, unless a request has arrived that has not been read yet.
  void EndIfSilent() {
    error_code error;
    // The pending read ends the connection, or goes on if it has bytes.
    if (socket().available(error) == 0) socket().cancel(error);
  }

  // Waits for bytes. While a call is in progress none are expected, so this notices when the client goes away.
  void Watch() {
    if (watching_) return;
    watching_ = true;
    constexpr size_t kFirst = 4 << 10;
    stream_.async_read_some(buffer_.prepare(kFirst), Then(&Connection::OnBytes));
  }
  void OnBytes(error_code error, size_t bytes) {
    watching_ = false;
    buffer_.commit(bytes);
    if (state_ == State::kEnded) return;
    if (error) return End();
    if (state_ == State::kIdle) return ReadHeader();
    // The client did not wait for its answer (pipelining), which is not supported. While an answer is being written,
    // the client may have read it already, so that is allowed.
    if (state_ == State::kServing) last_request_ = unread_ = true;
  }

  void ReadHeader() {
    state_ = State::kReading;
    is_head_ = unread_ = false;
    parser_.emplace();
    parser_->header_limit(kMaxHeaderBytes);
    parser_->body_limit(std::numeric_limits<uint64_t>::max());  // The host has its own limit.
    Expect(context_.timeouts.receive);
    http::async_read_header(stream_, buffer_, *parser_, Then(&Connection::OnHeader));
  }
  void OnHeader(error_code error, size_t) {
    if (state_ != State::kReading) return;
    if (error == http::error::header_limit) return Refuse(HeaderTooLarge(kMaxHeaderBytes));
    if (IsMalformed(error)) return Refuse(MalformedHttp(error.message()));
    if (error) return End();
    is_head_ = parser_->get().method() == http::verb::head;
    if (const absl::Status status = CheckTransferEncoding(); !status.ok()) return Refuse(status);
    const bool old =
        parser_->get().version() < 11;  // HTTP/1.0 handles keep-alive differently; clients use HTTP/1.1 since 1997.
    if (old || !parser_->keep_alive() || context_.host.clock.Now() - opened_ > context_.timeouts.max_age)
      last_request_ = true;
    Dispatch();
  }

  // Checks every Transfer-Encoding: Beast takes a body of any other encoding, an empty one included, for no body, and
  // its bytes for the next request.
  absl::Status CheckTransferEncoding() const {
    const auto [first, last] = parser_->get().equal_range(http::field::transfer_encoding);
    for (auto field = first; field != last; ++field) {
      const std::string encoding = Text(field->value());
      if (!absl::EqualsIgnoreCase(encoding, "chunked")) {
        return MalformedHttp(absl::StrCat("Transfer-Encoding is \"", encoding, "\"; only chunked is taken"));
      }
    }
    return absl::OkStatus();
  }

  void Dispatch() {
    const auto& request = parser_->get();
    const http::verb verb = request.method();
    const bool is_get = is_head_ || verb == http::verb::get;
    if (verb == http::verb::options && request.target() == "*") return Answer(204, "", {}, {{"Allow", kAnyMethod}});
    const std::optional<std::string> path = PathOf(std::string_view(request.target().data(), request.target().size()));
    if (!path.has_value()) return Refuse(MalformedHttp("its target is not a path"));
    Match match = FindRoute(context_.routes, *path, is_get);
    if (match.allowed.empty()) return Refuse(UnknownPath(*path));
    if (verb == http::verb::options) return Answer(204, "", {}, {{"Allow", match.allowed}});
    const bool known = is_get || verb == http::verb::post;
    if (match.file != nullptr) return AnswerFile(*match.file);
    if (match.route == nullptr || !known) {
      const absl::Status status = MethodNotAllowed(Text(request.method_string()), *path, match.allowed);
      return Refuse(status, {{"Allow", match.allowed}});
    }
    BeginCall(*match.route, match.parameter);
  }

  // --- A call --------------------------------------------------------------------------------------------------------

  void BeginCall(const Route& route, const std::string& parameter) {
    std::unique_ptr<Dialect> dialect = route.dialect(parameter);
    if (const absl::Status status = CheckType(route); !status.ok()) return Refuse(status, {}, dialect.get());
    absl::StatusOr<Arrival> arrival = MakeArrival(route);
    if (!arrival.ok()) return Refuse(arrival.status(), {}, dialect.get());
    dialect_ = dialect.get();
    host_ = std::make_unique<UnaryHost>(
        route.method, *std::move(arrival), route.needs_key ? context_.host : context_.host_without_keys,
        [self = this->shared_from_this()](UnaryHost::Outcome outcome) { self->OnOutcome(std::move(outcome)); },
        std::move(dialect));
    step_at_ = 0;
    max_body_bytes_ = context_.host.max_request_bytes;
    if (route.is_get) max_body_bytes_ = std::min(max_body_bytes_, kMaxBodyBytesOfGet);
    const auto length = parser_->content_length();
    if (!Receive(length ? *length : 0)) return;
    const auto& request = parser_->get();
    // A client of HTTP/1.0 would take "100 Continue" for its answer.
    const bool waits =
        request.version() >= 11 && absl::EqualsIgnoreCase(Text(request[http::field::expect]), "100-continue");
    if (waits) return Continue();
    ReadBody();
  }

  // Called when `bytes` bytes of the body have arrived or are announced. Returns false if the call has ended. A client
  // may announce any number of 64 bits: as a signed one, it could be negative.
  bool Receive(uint64_t bytes) {
    unread_ = true;  // In case the request ends here.
    state_ = State::kServing;
    if (bytes > static_cast<uint64_t>(max_body_bytes_)) {
      host_->Abandon(RequestTooLarge(bytes, max_body_bytes_));
      return false;
    }
    if (!host_->Receive(static_cast<int64_t>(bytes))) return false;
    unread_ = false;
    state_ = State::kReading;
    return true;
  }

  absl::Status CheckType(const Route& route) const {
    const auto& request = parser_->get();
    if (!request[http::field::content_encoding].empty()) {
      return CompressedRequest(Text(request[http::field::content_encoding]));
    }
    const std::string type = Text(request[http::field::content_type]);
    if (route.is_get || IsJsonType(type)) return absl::OkStatus();
    return NotJson(type);
  }

  absl::StatusOr<Arrival> MakeArrival(const Route& route) const {
    const auto& request = parser_->get();
    Arrival arrival{.address = peer_.address,
                    .certificate = peer_.certificate,
                    .authorization = Text(request[http::field::authorization]),
                    .api_key = Text(request["x-api-key"]),
                    .traceparent = Text(request["traceparent"]),
                    .http_method = route.is_get ? "GET" : "POST",
                    .http_route = route.path};
    const std::string timeout = Text(request["x-request-timeout"]);
    if (timeout.empty()) return arrival;
    const std::optional<absl::Duration> seconds = ParseSeconds(timeout);
    if (!seconds.has_value()) return BadTimeout(timeout);
    arrival.time_left = *seconds;
    return arrival;
  }

  void Continue() {
    static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    asio::async_write(stream_, asio::buffer(kContinue.data(), kContinue.size()), Then(&Connection::OnContinued));
  }
  void OnContinued(error_code error, size_t) {
    if (state_ != State::kReading) return;
    if (error) return End();
    ReadBody();
  }

  void ReadBody() {
    if (parser_->is_done()) return StartCall();
    const size_t read = parser_->get().body().size();
    if (read >= step_at_) {
      step_at_ = read + kStep;
      Expect(context_.timeouts.receive);
    }
    http::async_read_some(stream_, buffer_, *parser_, Then(&Connection::OnBody));
  }
  void OnBody(error_code error, size_t) {
    if (state_ != State::kReading) return;
    if (IsMalformed(error)) return Refuse(MalformedHttp(error.message()));
    if (error) return End();
    if (!parser_->content_length() && !Receive(parser_->get().body().size())) return;
    ReadBody();
  }

  void StartCall() {
    state_ = State::kServing;
    timer_.expires_at(std::chrono::steady_clock::time_point::max());  // Also disables an expiry that is under way.
    if (buffer_.size() > 0) {
      last_request_ = unread_ = true;  // Pipelining is not supported.
    } else {
      Watch();
    }
    host_->Start(ToBytes(std::move(parser_->get().body())));
  }

  // Called on any thread.
  void OnOutcome(UnaryHost::Outcome outcome) {
    auto shared = std::make_shared<UnaryHost::Outcome>(std::move(outcome));
    asio::post(stream_.get_executor(),
               [self = this->shared_from_this(), shared] { self->SendOutcome(std::move(*shared)); });
  }

  void SendOutcome(UnaryHost::Outcome outcome) {
    if (state_ == State::kEnded) {
      host_ = nullptr;
      return;
    }
    last_request_ = last_request_ || unread_;
    if (outcome.status.ok()) return Write(200, kJson, ByteChain(outcome.answer), dialect_->headers());
    Dialect::Error error = dialect_->Describe(outcome.status);
    Write(error.http_status, kJson, ByteChain(std::move(error.body)), ErrorHeaders(outcome.status));
  }

  // --- Writing -------------------------------------------------------------------------------------------------------

  // Answers with an error outside of a call, or ends a call whose request does not arrive.
  void Refuse(const absl::Status& status, const Operation::Headers& headers = {}, const Dialect* dialect = nullptr) {
    last_request_ = unread_ = true;
    if (host_ != nullptr) {  // The host records the outcome and answers.
      state_ = State::kServing;
      return host_->Abandon(status);
    }
    const std::unique_ptr<Dialect> fallback = context_.routes.fallback();
    if (dialect == nullptr) dialect = fallback.get();
    Dialect::Error error = dialect->Describe(status);
    Write(error.http_status, kJson, ByteChain(std::move(error.body)), headers);
  }

  // Sends an answer that needs no call.
  void Answer(int http_status, const std::string& type, ByteChain body, const Operation::Headers& headers) {
    unread_ = !parser_->is_done();
    last_request_ = last_request_ || unread_;
    Write(http_status, type, std::move(body), headers);
  }

  void AnswerFile(const StaticFile& file) {
    Operation::Headers headers{{"Content-Security-Policy", kContentPolicy}};
    if (!file.browsers_to.empty()) {
      headers.emplace_back("Vary", "Accept");
      const bool browser = absl::StrContains(Text(parser_->get()[http::field::accept]), "text/html");
      if (browser) return Answer(302, "", {}, {headers.back(), {"Location", file.browsers_to}});
    }
    Answer(200, file.content_type, ByteChain::Of(file.content), headers);
  }

  void Write(int http_status, const std::string& type, ByteChain body, Operation::Headers headers) {
    state_ = State::kWriting;
    AddCors(headers);
    header_ = ResponseHeader({.status = http_status,
                              .content_type = type,
                              .content_bytes = body.size(),
                              .keep_alive = !last_request_,
                              .headers = headers});
    body_ = std::move(body);
    buffers_ = {asio::buffer(header_)};
    if (!is_head_) body_.AppendTo(buffers_);
    written_ = 0;
    step_at_ = kStep;
    Expect(context_.timeouts.send);
    WriteSome();
  }

  void WriteSome() { stream_.async_write_some(buffers_, Then(&Connection::OnWritten)); }
  void OnWritten(error_code error, size_t bytes) {
    if (state_ != State::kWriting) return;
    if (error) return End();
    for (written_ += bytes; !buffers_.empty() && bytes >= buffers_.front().size();) {
      bytes -= buffers_.front().size();
      buffers_.erase(buffers_.begin());
    }
    if (buffers_.empty()) return OnAnswered();
    buffers_.front() += bytes;
    if (written_ >= step_at_) {
      step_at_ = written_ + kStep;
      Expect(context_.timeouts.send);
    }
    WriteSome();
  }

  void OnAnswered() {
    host_ = nullptr;
    dialect_ = nullptr;
    body_ = ByteChain();
    if (last_request_) return Linger();
    parser_.reset();
    AwaitRequest();
  }

  // Reads on after the last answer: closing while the client still sends would discard an answer that it has not read.
  void Linger() {
    if (!unread_) return CloseGracefully();
    state_ = State::kLingering;
    // Over a slow link, what the client has sent arrives for a while after it has stopped.
    linger_ends_ = context_.host.clock.Now() + (draining_ ? kSilence : absl::Seconds(30));
    error_code ignored;
    socket().shutdown(tcp::socket::shutdown_send, ignored);
    Discard();
  }
  void Discard() {
    Expect(std::min(kSilence, linger_ends_ - context_.host.clock.Now()));
    socket().async_read_some(asio::buffer(discarded_), Then(&Connection::OnDiscarded));
  }
  void OnDiscarded(error_code error, size_t) {
    if (error || state_ != State::kLingering) return End();
    Discard();
  }

  void CloseGracefully() {
    if constexpr (kTls) {
      state_ = State::kLingering;
      Expect(kSilence);
      stream_.async_shutdown([self = this->shared_from_this()](error_code) { self->End(); });
    } else {
      End();
    }
  }

  void End() {
    if (state_ == State::kEnded) return;
    const State before = std::exchange(state_, State::kEnded);
    timer_.cancel();
    error_code ignored;
    socket().shutdown(tcp::socket::shutdown_both, ignored);
    socket().close(ignored);
    if (before == State::kServing) host_->Cancel();
    if (before == State::kReading && host_ != nullptr) host_->Abandon(CallCancelled());
    if (before == State::kWriting) host_ = nullptr;
  }

  void AddCors(Operation::Headers& headers) const {
    if (context_.allowed_origin.empty()) return;
    headers.emplace_back("Access-Control-Allow-Origin", context_.allowed_origin);
    // Libraries add headers of their own, such as x-stainless-os. The asterisk does not cover authorization.
    headers.emplace_back("Access-Control-Allow-Headers",
                         "authorization, content-type, x-api-key, x-request-timeout, *");
    headers.emplace_back("Access-Control-Expose-Headers", "retry-after, retry-after-ms");
    headers.emplace_back("Access-Control-Allow-Methods", kAnyMethod);
    headers.emplace_back("Vary", "Origin");
  }

  const HttpContext& context_;
  const std::shared_ptr<asio::ssl::context> tls_;  // Outlives the stream.
  Stream stream_;
  asio::steady_timer timer_;
  Peer peer_;
  const absl::Time opened_;
  absl::Time linger_ends_;  // While lingering.

  // Used only on the strand:
  State state_ = State::kIdle;
  bool draining_ = false;
  bool last_request_ = false;  // The connection ends with this answer, or now if it is idle.
  bool watching_ = false;      // A read that Watch began is pending.
  bool is_head_ = false;
  bool unread_ = false;  // The request was rejected before all of it was read.
  boost::beast::flat_buffer buffer_{kBufferBytes};
  std::optional<http::request_parser<http::string_body>> parser_;
  int64_t max_body_bytes_ = 0;
  std::unique_ptr<UnaryHost> host_;
  const Dialect* dialect_ = nullptr;  // Owned by the host.
  std::string header_;
  std::array<char, 4096> discarded_;
  ByteChain body_;
  std::vector<asio::const_buffer> buffers_;  // Still to be written.
  size_t written_ = 0;
  size_t step_at_ = 0;
};

// Lets the kernel ping a peer that has been silent for `keepalive`, and end the connection if it does not answer.
void DetectDeadPeer(int descriptor, absl::Duration keepalive) {
  constexpr int kPingSeconds = 10, kPings = 2;
  const int idle = static_cast<int>(std::clamp<int64_t>(absl::ToInt64Seconds(keepalive), 1, 32767));
  const auto set = [descriptor](int level, int option, int value) {
    setsockopt(descriptor, level, option, &value, sizeof(value));
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, idle);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kPingSeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kPings);
}

}  // namespace

std::shared_ptr<HttpSession> HttpSession::Start(int descriptor, asio::io_context& io,
                                                std::shared_ptr<asio::ssl::context> tls, const HttpContext& context) {
  absl::Cleanup closer = [descriptor] { ::close(descriptor); };
  std::optional<Peer> peer = PeerOf(descriptor);
  if (!peer.has_value()) return nullptr;
  tcp::socket socket(asio::make_strand(io), peer->is_ipv6 ? tcp::v6() : tcp::v4(), descriptor);
  std::move(closer).Cancel();  // The socket owns it now.
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  DetectDeadPeer(descriptor, context.timeouts.keepalive);
  const auto run = [](auto connection) -> std::shared_ptr<HttpSession> {
    connection->Run();
    return connection;
  };
  if (tls == nullptr) {
    return run(std::make_shared<Connection<tcp::socket>>(std::move(socket), *std::move(peer), nullptr, context));
  }
  using TlsStream = asio::ssl::stream<tcp::socket>;
  TlsStream stream(std::move(socket), *tls);
  return run(std::make_shared<Connection<TlsStream>>(std::move(stream), *std::move(peer), tls, context));
}

}  // namespace longembed
