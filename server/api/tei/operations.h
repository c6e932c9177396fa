// The methods of tei.v1, apart from how they travel.
#ifndef LONGEMBED_SERVER_API_TEI_OPERATIONS_H_
#define LONGEMBED_SERVER_API_TEI_OPERATIONS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "model/plan/extension.h"
#include "server/api/api_context.h"
#include "server/core/operation.h"
#include "server/core/served_model.h"

namespace longembed {

// Dependencies of every operation. All must outlive it.
struct TeiContext : ApiContext {
  ServedModel& model;
  std::string default_prompt;  // Put before inputs of requests that name no prompt.
  // Of every text, checked against the model. Absent: texts are plain.
  std::optional<Extension> extension;
  std::string version;
};

// TEI's map: what its backend or its tokenizer fails at is FAILED_PRECONDITION; the rest keeps its code.
absl::Status ToTeiStatus(const absl::Status& status);

// The prompt of a request that names this one, or none (empty). Errors (INVALID_ARGUMENT): UNKNOWN_PROMPT.
absl::StatusOr<std::string> TeiPrompt(const TeiContext& context, const std::string& prompt_name);

// `context` must outlive the method. If the model lacks the output of a method, the method is not offered.
ApiMethod TeiInfoMethod(const TeiContext& context);
ApiMethod TeiEmbedMethod(const char* name, const TeiContext& context);
ApiMethod TeiEmbedAllMethod(const char* name, const TeiContext& context);
ApiMethod TeiEmbedSparseMethod(const char* name, const TeiContext& context);
ApiMethod TeiTokenizeMethod(const char* name, const TeiContext& context);
ApiMethod TeiDecodeMethod(const char* name, const TeiContext& context);
ApiMethod TeiDecodeInputsMethod(const char* name, const TeiContext& context);  // Of tei/v1/http.proto.
// A method that this server does not offer, because `what` is missing.
ApiMethod TeiLacks(const char* name, const char* what);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_TEI_OPERATIONS_H_
