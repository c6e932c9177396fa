#include "system/watched_files.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"

namespace longembed {

bool WatchedFiles::Changed(SteadyTime now) {
  is_second_try_ = now >= second_try_at_;
  return Look(now) || is_second_try_;
}

bool WatchedFiles::TryAgain(const absl::Status& read, SteadyTime now) {
  second_try_at_ = SteadyTime::max();
  const bool was_second_try = std::exchange(is_second_try_, false);
  if (read.ok() || was_second_try) return false;
  second_try_at_ = now + interval_;
  return true;
}

bool WatchedFiles::Look(SteadyTime now) {
  if (looked_.has_value() && now - *looked_ < interval_) return false;
  looked_ = now;
  std::string state;
  for (const std::string& path : paths_) {
    struct stat file {};
    if (stat(path.c_str(), &file) != 0) file = {};
    // The ctime also changes with owner and mode, by which a file may become readable.
    absl::StrAppend(&state, file.st_dev, ":", file.st_ino, ":", file.st_size, ":", file.st_mtim.tv_sec, ".",
                    file.st_mtim.tv_nsec, ":", file.st_ctim.tv_sec, ".", file.st_ctim.tv_nsec, ";");
  }
  return std::exchange(seen_, state) != state;
}

bool WatchedFiles::ShouldReport(const absl::Status& read) {
  const absl::Status failure = absl::IsNotFound(read) ? read : absl::OkStatus();
  if (!failure.ok()) seen_.clear();
  return std::exchange(failure_, failure) != failure || failure.ok();
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  // Opening a pipe blocks until something writes to it, and a device may never end.
  if (std::error_code error; std::filesystem::exists(path, error) && !std::filesystem::is_regular_file(path, error) &&
                             !std::filesystem::is_directory(path, error)) {
    return absl::NotFoundError(absl::StrCat(path, " cannot be read: it is neither a file nor a link to one"));
  }
  std::error_code unknown;
  if (const uintmax_t size = std::filesystem::file_size(path, unknown); !unknown && size > kMaxWholeFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", size, " bytes; at most ", kMaxWholeFileBytes, " are read"));
  }
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  const bool empty = file && file.peek() == EOF && !file.bad();  // operator<< fails on an empty file.
  if (!empty && (!file || !(content << file.rdbuf()))) {
    return absl::NotFoundError(absl::StrCat(path, " cannot be read: ", std::strerror(errno)));
  }
  return content.str();
}

}  // namespace longembed
