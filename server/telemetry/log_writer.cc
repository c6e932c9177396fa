#include "server/telemetry/log_writer.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <string_view>
#include <utility>

#include "absl/time/clock.h"

namespace longembed {
namespace {

int64_t CountLines(std::string_view text) { return std::count(text.begin(), text.end(), '\n'); }

// Returns as many whole lines as a pipe accepts atomically, or the first line if it alone is longer.
std::string_view FirstPiece(std::string_view lines) {
  if (lines.size() <= PIPE_BUF) return lines;
  const size_t last_end = lines.rfind('\n', PIPE_BUF - 1);
  return lines.substr(0, (last_end == std::string_view::npos ? lines.find('\n') : last_end) + 1);
}

}  // namespace

LogWriter::LogWriter(int descriptor, size_t capacity, DroppedReport dropped_report)
    : descriptor_(descriptor),
      capacity_(capacity),
      dropped_report_(std::move(dropped_report)),
      thread_([this] { Run(); }) {}

LogWriter::~LogWriter() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  added_.NotifyOne();
  thread_.join();
}

void LogWriter::Add(const std::string& line) {
  {
    const MutexLock lock(mutex_);
    if (waiting_.size() + line.size() > capacity_) return CountDropped(1);
    waiting_ += line;
  }
  added_.NotifyOne();
}

bool LogWriter::Flush(absl::Duration timeout) {
  MutexLock lock(mutex_);
  return written_.WaitFor(lock, timeout,
                          [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return waiting_.empty() && !writing_; });
}

int64_t LogWriter::dropped() const {
  const MutexLock lock(mutex_);
  return dropped_;
}

void LogWriter::CountDropped(int64_t lines) {
  dropped_ += lines;
  unreported_ += lines;
}

void LogWriter::Run() {
  MutexLock lock(mutex_);
  while (true) {
    added_.Wait(lock, [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const std::string lines = std::exchange(waiting_, "");
    const int64_t reported = std::exchange(unreported_, 0);
    writing_ = true;
    lock.unlock();
    const int64_t lost = WriteLines(lines);
    const bool written = reported == 0 || WriteLines(dropped_report_(reported)) == 0;
    lock.lock();
    CountDropped(lost);
    if (!written) unreported_ += reported;
    writing_ = false;
    if (waiting_.empty()) written_.NotifyAll();
  }
}

int64_t LogWriter::WriteLines(std::string_view lines) {
  int64_t lost = 0;
  while (!lines.empty()) {
    const std::string_view piece = FirstPiece(lines);
    std::string text = within_line_ ? "\n" : "";
    text += piece;
    if (!WritePiece(text)) lost += CountLines(piece);
    lines.remove_prefix(piece.size());
  }
  return lost;
}

bool LogWriter::WritePiece(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(descriptor_, text.data(), text.size());
    if (written > 0) {
      within_line_ = text[static_cast<size_t>(written) - 1] != '\n';
      text.remove_prefix(static_cast<size_t>(written));
    } else if (written < 0 && errno == EAGAIN) {  // Another process with the same pipe made it non-blocking.
      pollfd room{.fd = descriptor_, .events = POLLOUT, .revents = 0};
      poll(&room, 1, /*timeout=*/-1);
    } else if (written < 0 && errno != EINTR) {
      return false;
    }
  }
  return true;
}

}  // namespace longembed
