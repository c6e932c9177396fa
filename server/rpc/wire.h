// Bytes to messages and back. gRPC's own parsing answers a malformed message with UNIMPLEMENTED and no words; so the
// service takes the raw bytes.
#ifndef LONGEMBED_SERVER_RPC_WIRE_H_
#define LONGEMBED_SERVER_RPC_WIRE_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>

#include "absl/status/status.h"

namespace longembed {

// Elements of one repeated field, wherever in the message they stand: two bytes on the wire may be a hundred in memory.
inline constexpr int64_t kMaxElements = 1 << 17;

// Numbers of one repeated field, wherever they stand.
inline constexpr int64_t kMaxNumbers = 1 << 22;

// Fills `message`. Errors (INVALID_ARGUMENT): REQUEST_TOO_LARGE; before memory is taken for them TOO_MANY_ELEMENTS and
// UNKNOWN_FIELD (protobuf would keep fields that it does not know, at a hundred bytes each, and the answer would ignore
// them); MALFORMED_REQUEST; and INVALID_UTF8, which names the field and the byte.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message);

// Of bytes that ParseMessage refused, the flags and short strings at the top of the message, as far as they can be
// read; everything else is empty. So that an error finds the id that it belongs to.
void ReadScalars(const grpc::ByteBuffer& bytes, google::protobuf::Message& message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_WIRE_H_
