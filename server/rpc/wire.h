// Parses and serializes messages. gRPC's own parsing would answer a malformed message with UNIMPLEMENTED and no
// explanation, so the services take raw bytes.
#ifndef LONGEMBED_SERVER_RPC_WIRE_H_
#define LONGEMBED_SERVER_RPC_WIRE_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>

#include "absl/status/status.h"

namespace longembed {

// Maximum elements of one repeated field, summed over the whole message: two bytes on the wire may take a hundred in
// memory.
inline constexpr int64_t kMaxElements = 1 << 17;

// Maximum numbers of one repeated field, summed over the whole message.
inline constexpr int64_t kMaxNumbers = 1 << 22;

// Parses `bytes` into `message`. Errors (INVALID_ARGUMENT): REQUEST_TOO_LARGE; TOO_MANY_ELEMENTS and UNKNOWN_FIELD,
// which are found before memory is allocated (protobuf would keep unknown fields, at a hundred bytes each, and the
// answer would ignore them; it would cut numbers beyond their type to 32 bits); MALFORMED_REQUEST; and INVALID_UTF8,
// which names the field and the byte.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message);

// Reads flags and short strings at the top level of bytes that ParseMessage rejected, and leaves all other fields
// empty. So an error can be returned under the message's id. Leaves the whole message empty if the bytes are not
// well-formed up to their end: an id without its more_parts would be misleading.
void ReadScalars(const grpc::ByteBuffer& bytes, google::protobuf::Message& message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_WIRE_H_
