#include "server/http/byte_chain.h"

#include <memory>
#include <utility>

namespace longembed {

grpc::ByteBuffer ToBytes(std::string text) {
  auto owned = std::make_unique<std::string>(std::move(text));
  std::string* const held = owned.release();
  const grpc::Slice slice(
      held->data(), held->size(), [](void* user_data) { delete static_cast<std::string*>(user_data); }, held);
  return {&slice, 1};
}

ByteChain ByteChain::Of(std::string_view text) {
  ByteChain chain;
  chain.slices_.emplace_back(text.data(), text.size(), grpc::Slice::STATIC_SLICE);
  return chain;
}

size_t ByteChain::size() const {
  size_t bytes = 0;
  for (const grpc::Slice& slice : slices_) bytes += slice.size();
  return bytes;
}

void ByteChain::AppendTo(std::vector<boost::asio::const_buffer>& buffers) const {
  for (const grpc::Slice& slice : slices_) {
    if (slice.size() > 0) buffers.emplace_back(slice.begin(), slice.size());
  }
}

}  // namespace longembed
