// EmbedStream of longembed.v1, apart from how it travels: the messages of a stream share the options of the first, and
// a text may come in parts.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_EMBED_STREAM_H_
#define LONGEMBED_SERVER_API_LONGEMBED_EMBED_STREAM_H_

#include "server/api/longembed/operations.h"
#include "server/core/operation.h"

namespace longembed {

// Of one stream.
struct EmbedStreamParts {
  ApiMethod method;
  StreamOptions options;
};

// `context` must outlive the stream.
EmbedStreamParts MakeEmbedStream(const LongembedContext& context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_EMBED_STREAM_H_
