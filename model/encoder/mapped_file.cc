#include "model/encoder/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"

namespace longembed {

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  const auto refuse = [&path] { return ModelDirectoryError(path, absl::StrCat("cannot be read: ", strerror(errno))); };
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return refuse();
  struct stat about {};
  void* data = MAP_FAILED;
  // mmap fails for empty files and special files.
  if (fstat(descriptor, &about) == 0) {
    data = mmap(nullptr, static_cast<size_t>(about.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
  }
  const absl::Status status = data == MAP_FAILED ? refuse() : absl::OkStatus();
  close(descriptor);
  if (!status.ok()) return status;
  const auto size = static_cast<size_t>(about.st_size);
  madvise(data, size, MADV_SEQUENTIAL);  // Increases readahead; failure is harmless.
  return std::shared_ptr<const MappedFile>(new MappedFile({static_cast<const std::byte*>(data), size}));
}

MappedFile::~MappedFile() { munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

void MappedFile::DropPages(const std::byte* data, size_t size) const {
  static const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<uintptr_t>(data), file = reinterpret_cast<uintptr_t>(bytes_.data());
  if (start < file || start + size > file + bytes_.size()) return;
  const uintptr_t first = (start + page - 1) / page * page, last = (start + size) / page * page;
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

}  // namespace longembed
