// EmbedStream of longembed.v1, independent of the transport. The messages of a stream share the options of the first
// message, and a text may come in parts.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_EMBED_STREAM_H_
#define LONGEMBED_SERVER_API_LONGEMBED_EMBED_STREAM_H_

#include "server/api/longembed/operations.h"
#include "server/core/operation.h"

namespace longembed {

// The method and the options of one stream.
struct EmbedStreamSetup {
  ApiMethod method;
  StreamOptions options;
};

// Creates the state of one stream. `context` must outlive the stream.
EmbedStreamSetup MakeEmbedStream(const LongembedContext& context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_EMBED_STREAM_H_
