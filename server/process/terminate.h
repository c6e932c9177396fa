// Ends the process with a sentence where it lacks memory or threads.
#ifndef LONGEMBED_SERVER_PROCESS_TERMINATE_H_
#define LONGEMBED_SERVER_PROCESS_TERMINATE_H_

namespace longembed {

// Handles exceptions that nothing catches: std::bad_alloc and std::system_error end the process with exit status 1 and
// a line on stderr, every other one aborts it, as before. There is no unwinding, which could wait forever for threads
// of an object that is half made.
void InstallTerminateHandler();

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_TERMINATE_H_
