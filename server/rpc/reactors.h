// The hosts over gRPC's callback API.
#ifndef LONGEMBED_SERVER_RPC_REACTORS_H_
#define LONGEMBED_SERVER_RPC_REACTORS_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "server/core/operation.h"
#include "server/rpc/call_record.h"
#include "server/rpc/host_context.h"
#include "server/rpc/stream_host.h"

namespace longembed {

using RawStream = grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>;

// Reads the facts of a call from gRPC's context.
Arrival ArrivalOf(const grpc::CallbackServerContext& context);

// Returns the status for gRPC. Puts the retry delay of an overload error into the trailing metadata, where gRPC's
// clients with a retry policy obey it; google.rpc.RetryInfo says the same to those that read details.
grpc::Status ToGrpcEnd(grpc::CallbackServerContext& context, const absl::Status& status);

// For the methods of a service: each returns a reactor that deletes itself. `host` must outlive the server. The request
// must be the one that gRPC gave the method: it is emptied once it has been parsed.
grpc::ServerUnaryReactor* ServeUnary(const ApiMethod& method, const HostContext& host,
                                     grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response);
RawStream* ServeStream(const ApiMethod& method, const StreamOptions& options, const HostContext& host,
                       grpc::CallbackServerContext* context);
// A stream of requests with one answer, which this server does not offer.
grpc::ServerReadReactor<grpc::ByteBuffer>* RefuseReads(const ApiMethod& method, const HostContext& host,
                                                       grpc::CallbackServerContext* context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_REACTORS_H_
