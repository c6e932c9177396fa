// Encodes and decodes the messages of a call: protobuf's wire format, or a dialect of JSON.
#ifndef LONGEMBED_SERVER_RPC_CODEC_H_
#define LONGEMBED_SERVER_RPC_CODEC_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include <cstdint>

#include "absl/status/status.h"

namespace longembed {

// Of one call, or of all calls where it keeps nothing. Not thread-safe; Parse comes before Serialize.
class Codec {
 public:
  virtual ~Codec() = default;

  // Bytes of memory that Parse takes beside the request and the message, until it returns. Takes untrusted bytes.
  virtual int64_t ParsingBytes(const grpc::ByteBuffer&) const { return 0; }
  // Fills `message`. Errors (INVALID_ARGUMENT) name the field in the terms of the front.
  virtual absl::Status Parse(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message) = 0;
  // Of bytes that Parse refused, what can be read all the same, so that an error finds the id it belongs to.
  virtual void ReadScalars(const grpc::ByteBuffer&, google::protobuf::Message& message) { message.Clear(); }

  // At most how many bytes Serialize makes of a message that has `wire_bytes` in protobuf's wire format.
  virtual int64_t MostSerializedBytes(int64_t wire_bytes) const = 0;
  // Errors: INVALID_ARGUMENT, the answer is larger than `max_bytes`.
  virtual absl::Status Serialize(const google::protobuf::Message& request, const google::protobuf::Message& message,
                                 int64_t max_bytes, grpc::ByteBuffer& bytes) = 0;
};

// Protobuf's wire format (wire.h). Thread-safe.
Codec& WireCodec();

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_CODEC_H_
