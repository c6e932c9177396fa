// Mutates a protobuf message field by field, so that most inputs pass the parser. Used by LLVMFuzzerCustomMutator.
#ifndef LONGEMBED_TESTS_FUZZ_MESSAGE_MUTATOR_H_
#define LONGEMBED_TESTS_FUZZ_MESSAGE_MUTATOR_H_

#include <google/protobuf/message.h>

#include <random>

namespace longembed {

// Sets, clears, adds or changes one field of `message` or of a nested message. Strings are changed by libFuzzer, which
// knows the dictionary.
void MutateMessage(google::protobuf::Message& message, std::minstd_rand& random);

}  // namespace longembed

#endif  // LONGEMBED_TESTS_FUZZ_MESSAGE_MUTATOR_H_
