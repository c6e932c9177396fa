#include "server/process/drain.h"

#include <thread>

#include "server/process/terminate.h"
#include "server/telemetry/log.h"

namespace longembed {

void Drain(const ServerConfig& config, ProcessSignals& signals, HealthMonitor& monitor, GrpcServer& server,
           HttpServer* http) {
  constexpr absl::Duration kGrace = absl::Seconds(10);
  ForceExitAfter(config.drain_delay + config.drain_timeout + kGrace,
                 "forced exit: shutdown did not finish within drain.timeout");
  monitor.SetServing(false);
  if (http != nullptr) http->AnnounceShutdown();
  signals.AwaitSecondSignal(config.drain_delay);
  const auto is_forced = [&signals] { return signals.AwaitSecondSignal(absl::ZeroDuration()); };
  std::jthread http_drain;
  if (http != nullptr) http_drain = std::jthread([&] { http->Shutdown(config.drain_timeout, is_forced); });
  server.Shutdown(config.drain_timeout, is_forced);
  if (http_drain.joinable()) http_drain.join();
  Log(LogLevel::kInfo, is_forced() ? "shutdown forced by a second signal" : "drained");
}

}  // namespace longembed
