// The man page of a program. Pure functions that any thread can call.
#ifndef LONGEMBED_PROGRAM_MAN_PAGE_H_
#define LONGEMBED_PROGRAM_MAN_PAGE_H_

#include <string>

#include "program/program.h"

namespace longembed {

// Returns the man page in roff, for man(1): "longembed man | man -l -".
std::string ManPage(const ProgramDescription& program);

}  // namespace longembed

#endif  // LONGEMBED_PROGRAM_MAN_PAGE_H_
