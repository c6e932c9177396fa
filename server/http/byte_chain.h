// The body of an HTTP message in pieces, as gRPC's buffers hold bytes; nothing is copied.
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

// Takes the text over.
grpc::ByteBuffer ToBytes(std::string text);

class ByteChain {
 public:
  ByteChain() = default;
  explicit ByteChain(const grpc::ByteBuffer& bytes) { bytes.Dump(&slices_).ok(); }
  explicit ByteChain(std::string text) : ByteChain(ToBytes(std::move(text))) {}

  // A view of `text`, which must outlive it.
  static ByteChain Of(std::string_view text);

  size_t size() const;
  // Views, which live as long as this.
  void AppendTo(std::vector<boost::asio::const_buffer>& buffers) const;

 private:
  std::vector<grpc::Slice> slices_;
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_HTTP_BYTE_CHAIN_H_
