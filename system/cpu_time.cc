#include "system/cpu_time.h"

#include <ctime>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"

namespace longembed {

absl::Duration ProcessCpuTime() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

bool WantsCpu(pid_t thread) {
  std::ifstream stat(absl::StrCat("/proc/self/task/", thread, "/stat"));
  std::string line;
  std::getline(stat, line);
  const size_t name_end = line.rfind(')');  // The thread's name comes before it and may contain anything.
  return name_end != std::string::npos && line.compare(name_end, 3, ") R") == 0;
}

}  // namespace longembed
