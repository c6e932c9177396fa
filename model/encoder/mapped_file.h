// A file mapped into memory for reading: its pages are read when they are touched, and the kernel may drop them again.
#ifndef LONGEMBED_MODEL_ENCODER_MAPPED_FILE_H_
#define LONGEMBED_MODEL_ENCODER_MAPPED_FILE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace longembed {

// Immutable: any thread. The file must not shrink while it is mapped.
class MappedFile {
 public:
  // Errors: FAILED_PRECONDITION (MODEL_DIRECTORY) when the file cannot be opened or mapped.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

  // Takes the pages within [data, data + size) out of the process's memory. One that is touched again is read again.
  // Addresses outside the file are ignored.
  void DropPages(const std::byte* data, size_t size) const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  const std::span<const std::byte> bytes_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_MAPPED_FILE_H_
