// Ends the process with a readable error if it lacks memory or threads.
#ifndef LONGEMBED_SERVER_PROCESS_TERMINATE_H_
#define LONGEMBED_SERVER_PROCESS_TERMINATE_H_

namespace longembed {

// Handles uncaught exceptions. std::bad_alloc and std::system_error end the process with exit status 1 and a line on
// stderr. All others abort it, as by default. The stack is not unwound, because that could wait forever for threads of
// an object that is only partly constructed.
void InstallTerminateHandler();

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_TERMINATE_H_
