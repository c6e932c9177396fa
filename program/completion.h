// Shell completion of a program. Pure functions that any thread can call.
#ifndef LONGEMBED_PROGRAM_COMPLETION_H_
#define LONGEMBED_PROGRAM_COMPLETION_H_

#include <string>

#include "absl/status/statusor.h"
#include "program/program.h"

namespace longembed {

// Returns a script for "bash" or "zsh" that completes commands, options, option values and files. Errors:
// INVALID_ARGUMENT for another shell.
absl::StatusOr<std::string> CompletionScript(const ProgramDescription& program, const std::string& shell);

}  // namespace longembed

#endif  // LONGEMBED_PROGRAM_COMPLETION_H_
