#include "server/rpc/codec.h"

#include "server/rpc/wire.h"

namespace longembed {
namespace {

class ProtobufWire final : public Codec {
 public:
  absl::Status Parse(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message) override {
    return ParseMessage(bytes, max_bytes, message);
  }
  void ReadScalars(const grpc::ByteBuffer& bytes, google::protobuf::Message& message) override {
    longembed::ReadScalars(bytes, message);
  }
  int64_t MostSerializedBytes(int64_t wire_bytes) const override { return wire_bytes; }
  absl::Status Serialize(const google::protobuf::Message&, const google::protobuf::Message& message, int64_t,
                         grpc::ByteBuffer& bytes) override {
    bytes = SerializeMessage(message);
    return absl::OkStatus();
  }
};

}  // namespace

Codec& WireCodec() {
  static ProtobufWire codec;
  return codec;
}

}  // namespace longembed
