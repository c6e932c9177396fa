// Keeps other files and sockets from getting the descriptors 0, 1 and 2.
#ifndef LONGEMBED_SERVER_PROCESS_STANDARD_DESCRIPTORS_H_
#define LONGEMBED_SERVER_PROCESS_STANDARD_DESCRIPTORS_H_

namespace longembed {

// Opens /dev/null for each standard descriptor that is closed. Otherwise the next file or socket would get its number,
// and log lines could go to a client. Call this before anything else is opened.
void OpenStandardDescriptors();

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_STANDARD_DESCRIPTORS_H_
