// A matrix in NumPy's format (.npy, version 1.0) that grows by rows.
#ifndef LONGEMBED_CLIENT_CLI_NPY_FILE_H_
#define LONGEMBED_CLIENT_CLI_NPY_FILE_H_

#include <cstdint>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "longembed/v1/embedding.pb.h"

namespace longembed::client {

// Not thread-safe.
class NpyFile {
 public:
  // Overwrites the file. Errors (INVALID_ARGUMENT): it cannot be written, or the encoding has no type in NumPy: those
  // of FLOAT32, FLOAT16 and BINARY (of bytes, eight components each) are float32, float16 and uint8.
  static absl::StatusOr<NpyFile> Create(const std::string& path, v1::EmbedOptions::Encoding encoding);

  // Appends a row, after which the file is whole. Errors: FAILED_PRECONDITION for a sparse vector and for another
  // length than the first row's, DATA_LOSS.
  absl::Status Append(const v1::Embedding& embedding);

  int64_t rows() const { return rows_; }

 private:
  NpyFile(const std::string& path, v1::EmbedOptions::Encoding encoding);

  absl::Status WriteHeader();

  std::string path_;
  std::ofstream file_;
  std::string type_;  // Such as "<f4".
  int64_t item_bytes_ = 1;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_NPY_FILE_H_
