#include "server/process/terminate.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <exception>
#include <new>
#include <system_error>

#include "server/telemetry/log.h"

namespace longembed {
namespace {

// Copies the text without characters that JSON would have to escape.
void CopyPlain(const char* text, char* buffer, size_t size) {
  size_t length = 0;
  for (; text[length] != '\0' && length + 1 < size; ++length) {
    const auto c = static_cast<unsigned char>(text[length]);
    buffer[length] = c == '"' || c == '\\' ? '\'' : c < ' ' || c > '~' ? '?' : text[length];
  }
  buffer[length] = '\0';
}

// Writes a line in the log's format. Does not allocate, because memory may have run out.
void WriteFatal(const char* problem, const char* remedy) {
  char why[512], day_and_time[32] = "";
  CopyPlain(problem, why, sizeof(why));
  if (CurrentLogFormat() == LogFormat::kText) {
    std::fprintf(stderr, "longembed-server: %s%s\n", why, remedy);
    return;
  }
  timespec now{};
  tm utc{};
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  std::strftime(day_and_time, sizeof(day_and_time), "%Y-%m-%dT%H:%M:%S", &utc);
  std::fprintf(stderr, "{\"time\":\"%s.%03ldZ\",\"level\":\"error\",\"event\":\"terminated\",\"why\":\"%s%s\"}\n",
               day_and_time, now.tv_nsec / 1'000'000, why, remedy);
}

[[noreturn]] void Terminate() {
  try {
    if (const std::exception_ptr thrown = std::current_exception()) std::rethrow_exception(thrown);
  } catch (const std::bad_alloc&) {
    WriteFatal("out of memory", "; raise its memory limit, or serve fewer or smaller models");
    _exit(EXIT_FAILURE);
  } catch (const std::system_error& error) {
    char problem[128];
    std::snprintf(problem, sizeof(problem), "the system refuses a thread or a lock (error %d)", error.code().value());
    WriteFatal(problem, "; raise the limits of processes (ulimit -u, pids.max) and of memory");
    _exit(EXIT_FAILURE);
  } catch (const std::exception& error) {
    WriteFatal(error.what(), " (a bug)");
  } catch (...) {
    WriteFatal("an exception of unknown type", " (a bug)");
  }
  std::abort();
}

}  // namespace

void InstallTerminateHandler() { std::set_terminate(Terminate); }

}  // namespace longembed
