// Loads a server with POST requests over HTTP/1.1, in a closed loop on persistent connections. Prints the results as
// one JSON object.
//
//   http_load --port 8080 --path /v1/embeddings --bodies FILE --concurrency 32 --seconds 10 [--warm-up 2]
//
// FILE has one body per line, which the connections use in turn. There is one thread, requests are built only once, and
// answers are read by their Content-Length and discarded, so that the client uses little of the cores that it shares
// with the server.

#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/system/system_error.hpp>
#include <chrono>
#include <deque>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace longembed {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

struct Arguments {
  int port = 0, concurrency = 32;
  std::string path = "/v1/embeddings", bodies;
  double seconds = 10, warm_up = 2;
};

std::vector<std::string> ReadRequests(const Arguments& arguments) {
  std::ifstream file(arguments.bodies);
  if (!file) throw std::runtime_error(absl::StrCat("cannot read ", arguments.bodies));
  std::vector<std::string> requests;
  for (std::string body; std::getline(file, body);) {
    requests.push_back(absl::StrCat("POST ", arguments.path, " HTTP/1.1\r\nHost: 127.0.0.1\r\n",
                                    "Content-Type: application/json\r\nContent-Length: ", body.size(), "\r\n\r\n",
                                    body));
  }
  if (requests.empty()) throw std::runtime_error(absl::StrCat(arguments.bodies, " is empty"));
  return requests;
}

double CpuSeconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

struct Counts {
  bool counting = false;  // True after the warm-up and until the end.
  bool stopping = false;
  size_t next_request = 0;
  int64_t answers = 0, bytes = 0, failures = 0;
  int64_t all = 0;  // Includes calls that are not counted.
  std::vector<double> milliseconds;
  std::string first_failure;
};

// One connection. It sends a request, reads the answer, and repeats.
class Caller {
 public:
  Caller(asio::io_context& io, int port, const std::vector<std::string>& requests, Counts& counts)
      : socket_(io), requests_(requests), counts_(counts) {
    socket_.connect({asio::ip::address_v4::loopback(), static_cast<uint16_t>(port)});
    socket_.set_option(tcp::no_delay(true));
  }

  void Send() {
    if (counts_.stopping) return;
    sent_ = Clock::now();
    const std::string& request = requests_[counts_.next_request++ % requests_.size()];
    asio::async_write(socket_, asio::buffer(request), [this](error_code error, size_t) {
      Check(error);
      Read();
    });
  }

 private:
  static void Check(error_code error) {
    if (error) throw boost::system::system_error(error);
  }

  void Read() {
    socket_.async_read_some(asio::buffer(buffer_), [this](error_code error, size_t bytes) {
      Check(error);
      received_ += bytes;
      if (expected_ == 0) ReadHeader({buffer_.data(), bytes});
      if (expected_ == 0 || received_ < expected_) return Read();
      Answered();
    });
  }

  // Sets `expected_` once the whole header has arrived.
  void ReadHeader(std::string_view bytes) {
    header_ += bytes;
    const size_t end = header_.find("\r\n\r\n");
    if (end == std::string::npos) return;
    constexpr std::string_view kLength = "content-length: ";  // Servers write names of headers in either case.
    const size_t at = absl::AsciiStrToLower(header_.substr(0, end)).find(kLength);
    size_t length = 0;
    const size_t begin = at + kLength.size();
    if (at > end || !absl::SimpleAtoi(header_.substr(begin, header_.find('\r', begin) - begin), &length)) {
      throw std::runtime_error("an answer without Content-Length");
    }
    expected_ = end + 4 + length;
  }

  void Answered() {
    ++counts_.all;
    if (counts_.counting) {
      const bool ok = header_.starts_with("HTTP/1.1 200");
      if (!ok && counts_.first_failure.empty()) counts_.first_failure = header_;
      ++(ok ? counts_.answers : counts_.failures);
      counts_.bytes += static_cast<int64_t>(received_);
      counts_.milliseconds.push_back(std::chrono::duration<double, std::milli>(Clock::now() - sent_).count());
    }
    header_.clear();
    received_ = expected_ = 0;
    Send();
  }

  tcp::socket socket_;
  const std::vector<std::string>& requests_;
  Counts& counts_;
  Clock::time_point sent_;
  std::string header_;  // May include the beginning of the body.
  std::string buffer_ = std::string(64 << 10, '\0');
  size_t received_ = 0, expected_ = 0;  // Bytes of the answer. `expected_` is 0 until its header has arrived.
};

nlohmann::json Run(const Arguments& arguments) {
  const std::vector<std::string> requests = ReadRequests(arguments);
  asio::io_context io(1);
  Counts counts;
  std::deque<Caller> callers;
  for (int i = 0; i < arguments.concurrency; ++i) callers.emplace_back(io, arguments.port, requests, counts);
  for (Caller& caller : callers) caller.Send();
  double cpu = 0, seconds = 0;
  Clock::time_point start;
  asio::steady_timer begin(io), end(io);
  const auto after = [](double time) { return std::chrono::microseconds(static_cast<int64_t>(time * 1e6)); };
  begin.expires_after(after(arguments.warm_up));
  begin.async_wait([&](error_code) {
    counts.counting = true;
    cpu = CpuSeconds();
    start = Clock::now();
  });
  end.expires_after(after(arguments.warm_up + arguments.seconds));
  end.async_wait([&](error_code) {
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
    cpu = CpuSeconds() - cpu;
    counts.counting = false;
    counts.stopping = true;
  });
  io.run();
  std::ranges::sort(counts.milliseconds);
  const auto quantile = [&](double q) {
    const auto count = static_cast<double>(counts.milliseconds.size());
    return counts.milliseconds.empty() ? 0 : counts.milliseconds[static_cast<size_t>(q * (count - 1))];
  };
  return {{"seconds", seconds},
          {"answers", counts.answers},
          {"answers_in_all", counts.all},
          {"failures", counts.failures},
          {"first_failure", counts.first_failure},
          {"per_second", static_cast<double>(counts.answers) / seconds},
          {"bytes", counts.bytes},
          {"client_cpu_seconds", cpu},
          {"latency_ms", {{"p50", quantile(0.5)}, {"p99", quantile(0.99)}}}};
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app("Loads a server with POST requests over HTTP, and prints what came back as one JSON object.");
  app.add_option("--port", arguments.port, "Port on the loopback address")->required();
  app.add_option("--path", arguments.path, "Path of the route");
  app.add_option("--bodies", arguments.bodies, "File with one request body per line")->required();
  app.add_option("--concurrency", arguments.concurrency, "Connections, each with a call")->check(CLI::PositiveNumber);
  app.add_option("--seconds", arguments.seconds, "How long answers are counted")->check(CLI::PositiveNumber);
  app.add_option("--warm-up", arguments.warm_up, "Seconds before counting begins")->check(CLI::NonNegativeNumber);
  CLI11_PARSE(app, argc, argv);
  try {
    std::cout << Run(arguments).dump() << "\n";
  } catch (const std::exception& error) {
    std::cerr << "http_load: " << error.what() << "\n";
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) { return longembed::Main(argc, argv); }
