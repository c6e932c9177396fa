// Runs hosts over gRPC's callback API.
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

// Returns the properties of a call that gRPC's context holds.
Arrival ArrivalOf(const grpc::CallbackServerContext& context);

// Returns the status for gRPC. Adds the retry delay of an overload error to the trailing metadata, where gRPC clients
// with a retry policy use it. Clients that read error details find it in google.rpc.RetryInfo, too.
grpc::Status ToGrpcEnd(grpc::CallbackServerContext& context, const absl::Status& status);

// Serve a call of a service's method. Each returns a reactor that deletes itself. `host` must outlive the server.
// `request` must be the one that gRPC passed to the method; it is emptied once it has been parsed.
grpc::ServerUnaryReactor* ServeUnary(const ApiMethod& method, const HostContext& host,
                                     grpc::CallbackServerContext* context, const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response);
RawStream* ServeStream(const ApiMethod& method, const StreamOptions& options, const HostContext& host,
                       grpc::CallbackServerContext* context);
// Rejects a stream of requests with one answer, which this server does not offer.
grpc::ServerReadReactor<grpc::ByteBuffer>* RefuseReads(const ApiMethod& method, const HostContext& host,
                                                       grpc::CallbackServerContext* context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_REACTORS_H_
