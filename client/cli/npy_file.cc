#include "client/cli/npy_file.h"

#include <bit>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "system/return_if_error.h"

namespace longembed::client {
namespace {

// Size of the whole header: magic, version, length and dictionary. It has room for any shape.
constexpr size_t kHeaderBytes = 128;

static_assert(std::endian::native == std::endian::little, "float32 values are written as they are in memory");

// Returns the NumPy type of an encoding, or "" if NumPy has none.
std::string TypeOf(v1::EmbedOptions::Encoding encoding) {
  switch (encoding) {
    case v1::EmbedOptions::FLOAT32:
      return "<f4";
    case v1::EmbedOptions::FLOAT16:
      return "<f2";
    case v1::EmbedOptions::BINARY:
      return "|u1";
    default:
      return "";
  }
}

// Returns the bytes of the row.
std::string BytesOf(const v1::Embedding& embedding) {
  if (embedding.values_size() == 0) return embedding.packed();
  return {reinterpret_cast<const char*>(embedding.values().data()), embedding.values_size() * sizeof(float)};
}

}  // namespace

NpyFile::NpyFile(const std::string& path, v1::EmbedOptions::Encoding encoding)
    : path_(path),
      file_(path, std::ios::binary | std::ios::trunc),
      type_(TypeOf(encoding)),
      item_bytes_(type_.empty() ? 1 : type_.back() - '0') {}

absl::StatusOr<NpyFile> NpyFile::Create(const std::string& path, v1::EmbedOptions::Encoding encoding) {
  if (TypeOf(encoding).empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--out: ", path, ": NumPy has no type for --encoding ",
                                                   v1::EmbedOptions::Encoding_Name(encoding),
                                                   "; use float32, float16 or binary, or a file of JSON lines"));
  }
  NpyFile file(path, encoding);
  if (!file.file_) {
    return absl::InvalidArgumentError(absl::StrCat("--out: ", path, " cannot be written: ", std::strerror(errno)));
  }
  RETURN_IF_ERROR(file.WriteHeader());
  return file;
}

absl::Status NpyFile::WriteHeader() {
  std::string header("\x93NUMPY\x01\x00", 8);
  const size_t length = kHeaderBytes - header.size() - 2;
  header += static_cast<char>(length);
  header += '\0';
  absl::StrAppend(&header, "{'descr': '", type_, "', 'fortran_order': False, 'shape': (", rows_, ", ", columns_,
                  "), }");
  header.resize(kHeaderBytes - 1, ' ');
  header += '\n';
  errno = 0;
  if (file_.seekp(0) << header << std::flush) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(path_, " cannot be written: ", std::strerror(errno)));
}

absl::Status NpyFile::Append(const v1::Embedding& embedding) {
  if (embedding.has_indices()) {
    return absl::FailedPreconditionError(
        absl::StrCat("--out: ", path_,
                     " holds dense vectors, but the model answers sparse ones; use --vectors one, or "
                     "a file of JSON lines"));
  }
  const std::string bytes = BytesOf(embedding);
  const int64_t columns = static_cast<int64_t>(bytes.size()) / item_bytes_;
  if (rows_ > 0 && columns != columns_) {
    return absl::FailedPreconditionError(
        absl::StrCat("--out: ", path_, " has rows of ", columns_, ", but a vector has ", columns));
  }
  errno = 0;
  if (!(file_.seekp(0, std::ios::end) << bytes << std::flush)) {
    return absl::DataLossError(absl::StrCat(path_, " cannot be written: ", std::strerror(errno)));
  }
  columns_ = columns;
  ++rows_;
  return WriteHeader();
}

}  // namespace longembed::client
