// Ends the service of calls.
#ifndef LONGEMBED_SERVER_PROCESS_DRAIN_H_
#define LONGEMBED_SERVER_PROCESS_DRAIN_H_

#include "server/config/config.h"
#include "server/http/http_server.h"
#include "server/process/health_monitor.h"
#include "server/process/signals.h"
#include "server/rpc/grpc_server.h"

namespace longembed {

// Reports NOT_SERVING, waits for drain.delay, and shuts the servers down within drain.timeout. A second signal cuts it
// short.
void Drain(const ServerConfig& config, ProcessSignals& signals, HealthMonitor& monitor, GrpcServer& server,
           HttpServer* http);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_DRAIN_H_
