// The unary methods of longembed.v1, independent of the transport.
#ifndef LONGEMBED_SERVER_API_LONGEMBED_OPERATIONS_H_
#define LONGEMBED_SERVER_API_LONGEMBED_OPERATIONS_H_

#include "server/api/api_context.h"
#include "server/api/longembed/extension_converter.h"
#include "server/core/operation.h"

namespace longembed {

// The objects that operations use. All of them must outlive the operations.
struct LongembedContext : ApiContext {
  const Profiles& profiles;
};

// `context` must outlive the methods.
ApiMethod EmbedMethod(const LongembedContext& context);
// Also embeds a text without tokens, of which only the special tokens remain.
ApiMethod EmbedBlankTooMethod(const LongembedContext& context);
// Gives a vector for each token of the sequence, special tokens and prompt included, not normalized. Embeds texts
// without tokens, too.
ApiMethod EmbedEveryTokenMethod(const LongembedContext& context);
ApiMethod ExplainMethod(const LongembedContext& context);
ApiMethod TokenizeMethod(const LongembedContext& context);
ApiMethod ListModelsMethod(const LongembedContext& context);
ApiMethod GetModelMethod(const LongembedContext& context);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_LONGEMBED_OPERATIONS_H_
