// The body of an HTTP message in the pieces that gRPC's buffers hold. Nothing is copied.
#ifndef LONGEMBED_SERVER_HTTP_BYTE_CHAIN_H_
#define LONGEMBED_SERVER_HTTP_BYTE_CHAIN_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <boost/asio/buffer.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longembed {

// Returns a buffer that owns the text.
grpc::ByteBuffer ToBytes(std::string text);

class ByteChain {
 public:
  ByteChain() = default;
  explicit ByteChain(const grpc::ByteBuffer& bytes) { bytes.Dump(&slices_).ok(); }
  explicit ByteChain(std::string text) : ByteChain(ToBytes(std::move(text))) {}

  // Returns a view of `text`, which must outlive the chain.
  static ByteChain Of(std::string_view text);

  size_t size() const;
  // Appends views of the pieces. They are valid as long as this chain lives.
  void AppendTo(std::vector<boost::asio::const_buffer>& buffers) const;

 private:
  std::vector<grpc::Slice> slices_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_BYTE_CHAIN_H_
