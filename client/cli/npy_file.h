// Writes a matrix in NumPy's format (.npy, version 1.0). The matrix grows row by row.
#ifndef LONGEMBED_CLIENT_CLI_NPY_FILE_H_
#define LONGEMBED_CLIENT_CLI_NPY_FILE_H_

#include <cstdint>
#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "longembed/v1/embedding.pb.h"

namespace longembed::client {

// An open .npy file. Not thread-safe.
class NpyFile {
 public:
  // Creates the file, or overwrites it. FLOAT32, FLOAT16 and BINARY become float32, float16 and uint8; each uint8 holds
  // eight components. Errors: INVALID_ARGUMENT if the file cannot be written, or if NumPy has no type for the encoding.
  static absl::StatusOr<NpyFile> Create(const std::string& path, v1::EmbedOptions::Encoding encoding);

  // Appends a row. The file is valid after each row. Errors: FAILED_PRECONDITION if the vector is sparse or its length
  // differs from that of the first row; DATA_LOSS if writing fails.
  absl::Status Append(const v1::Embedding& embedding);

  int64_t rows() const { return rows_; }

 private:
  NpyFile(const std::string& path, v1::EmbedOptions::Encoding encoding);

  absl::Status WriteHeader();

  std::string path_;
  std::ofstream file_;
  std::string type_;  // For example "<f4".
  int64_t item_bytes_ = 1;
  int64_t rows_ = 0;
  int64_t columns_ = 0;
};

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_NPY_FILE_H_
