// longembed.v1.EmbeddingService.EmbedStream: a corpus, one input a message.
#ifndef LONGEMBED_SERVER_RPC_EMBED_STREAM_H_
#define LONGEMBED_SERVER_RPC_EMBED_STREAM_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "server/rpc/service_context.h"

namespace longembed {

// The reactor deletes itself. `service` must outlive it.
grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StartEmbedStream(const ServiceContext& service,
                                                                              grpc::CallbackServerContext* context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_EMBED_STREAM_H_
