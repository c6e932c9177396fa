// Changes a protobuf message field by field, so that most inputs get past the parser. For LLVMFuzzerCustomMutator.
#ifndef LONGEMBED_TESTS_FUZZ_MESSAGE_MUTATOR_H_
#define LONGEMBED_TESTS_FUZZ_MESSAGE_MUTATOR_H_

#include <google/protobuf/message.h>

#include <random>

namespace longembed {

// Sets, clears, adds or changes one field of `message` or of a message below it. Strings are changed by libFuzzer,
// which knows the dictionary.
void MutateMessage(google::protobuf::Message& message, std::minstd_rand& random);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_FUZZ_MESSAGE_MUTATOR_H_
