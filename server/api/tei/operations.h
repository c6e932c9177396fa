// The methods of tei.v1, independent of the transport.
#ifndef LONGEMBED_SERVER_API_TEI_OPERATIONS_H_
#define LONGEMBED_SERVER_API_TEI_OPERATIONS_H_

#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "model/plan/extension.h"
#include "server/api/api_context.h"
#include "server/core/operation.h"
#include "server/core/served_model.h"
#include "tei/v1/tei.pb.h"

namespace longembed {

// The objects and settings that operations use. All of them must outlive the operations.
struct TeiContext : ApiContext {
  ServedModel& model;
  std::string default_prompt;  // Added to inputs of requests that name no prompt.
  // The extension for every text, checked against the model. Absent: no extension.
  std::optional<Extension> extension;
  std::string version;
};

// Maps a status to TEI's codes: failures of its backend and of its tokenizer are FAILED_PRECONDITION there. Other codes
// stay.
absl::Status ToTeiStatus(const absl::Status& status);

// Returns the number of code points of a text, as TEI counts characters.
uint32_t CodePoints(std::string_view text);
// Returns the headers in which TEI repeats the metadata of an answer, with times in milliseconds.
Operation::Headers HeadersOf(const TeiContext& context, const tei::v1::Metadata& metadata);

// Returns the prompt named `prompt_name`, or the default prompt if the name is empty. Errors (INVALID_ARGUMENT):
// UNKNOWN_PROMPT.
absl::StatusOr<std::string> TeiPrompt(const TeiContext& context, const std::string& prompt_name);

// `context` must outlive the methods. A method whose output the model lacks is not offered.
ApiMethod TeiInfoMethod(const TeiContext& context);
ApiMethod TeiEmbedMethod(const char* name, const TeiContext& context);
ApiMethod TeiEmbedAllMethod(const char* name, const TeiContext& context);
ApiMethod TeiEmbedSparseMethod(const char* name, const TeiContext& context);
ApiMethod TeiTokenizeMethod(const char* name, const TeiContext& context);
ApiMethod TeiDecodeMethod(const char* name, const TeiContext& context);
ApiMethod TeiDecodeInputsMethod(const char* name, const TeiContext& context);  // Uses tei/v1/http.proto.
// Returns a method that this server does not offer, because `what` is missing.
ApiMethod TeiUnsupported(const char* name, const char* what);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_TEI_OPERATIONS_H_
