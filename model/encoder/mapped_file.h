// A file mapped into memory for reading. A page is read when it is first accessed, and the operating system may drop it
// again.
#ifndef LONGEMBED_MODEL_ENCODER_MAPPED_FILE_H_
#define LONGEMBED_MODEL_ENCODER_MAPPED_FILE_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace longembed {

// A mapped file. Immutable, so any thread can use it. The file must not shrink while it is mapped.
class MappedFile {
 public:
  // Maps a file. Errors: FAILED_PRECONDITION (MODEL_DIRECTORY) if the file cannot be opened or mapped.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

  // Drops the pages that lie completely within [data, data + size) from the process's memory. They are read again on
  // the next access. A range outside the file is ignored.
  void DropPages(const std::byte* data, size_t size) const;

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  const std::span<const std::byte> bytes_;
};

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_MAPPED_FILE_H_
