// Encodes and decodes the messages of a call, in protobuf's wire format or in a JSON dialect.
#ifndef LONGEMBED_SERVER_RPC_CODEC_H_
#define LONGEMBED_SERVER_RPC_CODEC_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>

#include "absl/status/status.h"

namespace longembed {

// The codec of one call, or of all calls if it is stateless. Not thread-safe. Parse is called before Serialize.
class Codec {
 public:
  virtual ~Codec() = default;

  // Returns the memory in bytes that Parse needs besides the request and the message. The bytes may be untrusted.
  virtual int64_t ParsingBytes(const grpc::ByteBuffer&) const { return 0; }
  // Parses `bytes` into `message`. Errors (INVALID_ARGUMENT) name the field as the API does.
  virtual absl::Status Parse(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message) = 0;
  // Reads what can be read of bytes that Parse rejected, so that an error can be returned under the right id.
  virtual void ReadScalars(const grpc::ByteBuffer&, google::protobuf::Message& message) { message.Clear(); }

  // Returns the maximum number of bytes that Serialize makes of a message with `wire_bytes` in protobuf's wire format.
  virtual int64_t MostSerializedBytes(int64_t wire_bytes) const = 0;
  // Bytes by which an answer may exceed `max_bytes` before Serialize finds it too large: those of a vector or two.
  static constexpr int64_t kMaxOvershoot = 1 << 20;
  // Serializes the answer. Errors: INVALID_ARGUMENT if it is larger than `max_bytes`.
  virtual absl::Status Serialize(const google::protobuf::Message& request, const google::protobuf::Message& message,
                                 int64_t max_bytes, grpc::ByteBuffer& bytes) = 0;
};

// Returns the codec of protobuf's wire format (wire.h). Thread-safe.
Codec& WireCodec();

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_CODEC_H_
