#include "server/process/terminate.h"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <system_error>

namespace longembed {
namespace {

// Allocates nothing: there may be no memory.
[[noreturn]] void Terminate() {
  try {
    if (const std::exception_ptr thrown = std::current_exception()) std::rethrow_exception(thrown);
  } catch (const std::bad_alloc&) {
    std::fputs("longembed-server: out of memory; raise its memory limit, or serve fewer or smaller models\n", stderr);
    _exit(EXIT_FAILURE);
  } catch (const std::system_error& error) {
    std::fprintf(stderr,
                 "longembed-server: the system refuses a thread or a lock (error %d); raise the limits of processes "
                 "(ulimit -u, pids.max) and of memory\n",
                 error.code().value());
    _exit(EXIT_FAILURE);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "longembed-server: defect: %s\n", error.what());
  } catch (...) {
    std::fputs("longembed-server: defect: an exception of unknown type\n", stderr);
  }
  std::abort();
}

}  // namespace

void InstallTerminateHandler() { std::set_terminate(Terminate); }

}  // namespace longembed
