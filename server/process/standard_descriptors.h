// Keeps the descriptors 0, 1 and 2 from becoming something else.
#ifndef LONGEMBED_SERVER_PROCESS_STANDARD_DESCRIPTORS_H_
#define LONGEMBED_SERVER_PROCESS_STANDARD_DESCRIPTORS_H_

namespace longembed {

// Opens /dev/null for each that is closed: the next file or socket would get its number, and log lines would go to a
// client. Call before anything else is opened.
void OpenStandardDescriptors();

}  // namespace longembed

#endif  // LONGEMBED_SERVER_PROCESS_STANDARD_DESCRIPTORS_H_
