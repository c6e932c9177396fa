#include "tests/fuzz/message_mutator.h"

#include <google/protobuf/descriptor.h>

#include <cstdint>
#include <limits>
#include <string>

// Provided by libFuzzer.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace longembed {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kMaxString = 2048;

size_t Draw(std::minstd_rand& random, size_t count) { return random() % count; }

uint64_t Whole(std::minstd_rand& random) {
  static constexpr uint64_t kInteresting[] = {0,  1,  2,   3,     8,         15,         16,
                                              17, 32, 100, 65536, INT32_MAX, UINT32_MAX, UINT64_MAX};
  return Draw(random, 3) == 0 ? Draw(random, 64) : kInteresting[Draw(random, std::size(kInteresting))];
}

double Real(std::minstd_rand& random) {
  static constexpr double kInteresting[] = {0,
                                            1,
                                            1.5,
                                            2,
                                            4,
                                            32,
                                            65536,
                                            1e12,
                                            1e300,
                                            -1,
                                            std::numeric_limits<double>::quiet_NaN(),
                                            std::numeric_limits<double>::infinity()};
  return Draw(random, 3) == 0 ? static_cast<double>(Draw(random, 4096)) / 64
                              : kInteresting[Draw(random, std::size(kInteresting))];
}

std::string Changed(std::string text) {
  const size_t size = std::min(text.size(), kMaxString);
  text.resize(kMaxString);
  text.resize(LLVMFuzzerMutate(reinterpret_cast<uint8_t*>(text.data()), size, text.size()));
  return text;
}

void SetSingular(Message& message, const FieldDescriptor& field, std::minstd_rand& random) {
  const auto* reflection = message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection->SetUInt32(&message, &field, static_cast<uint32_t>(Whole(random)));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(&message, &field, Real(random));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(&message, &field, Draw(random, 2) == 0);
    case FieldDescriptor::CPPTYPE_ENUM:  // Some of the drawn values are unknown to the enum.
      return reflection->SetEnumValue(&message, &field, static_cast<int>(Draw(random, 5)));
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection->SetString(&message, &field, Changed(reflection->GetString(message, &field)));
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return MutateMessage(*reflection->MutableMessage(&message, &field), random);
    default:
      return;  // Requests have no fields of other types.
  }
}

void AddRepeated(Message& message, const FieldDescriptor& field, std::minstd_rand& random) {
  const auto* reflection = message.GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32) {
    reflection->AddUInt32(&message, &field, static_cast<uint32_t>(Whole(random)));
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    MutateMessage(*reflection->AddMessage(&message, &field), random);
  }
}

void MutateRepeated(Message& message, const FieldDescriptor& field, std::minstd_rand& random) {
  const auto* reflection = message.GetReflection();
  const int size = reflection->FieldSize(message, &field);
  const size_t choice = size == 0 ? 0 : Draw(random, 4);
  if (choice == 0) return AddRepeated(message, field, random);
  if (choice == 1) return reflection->RemoveLast(&message, &field);
  const int index = static_cast<int>(Draw(random, static_cast<size_t>(size)));
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    MutateMessage(*reflection->MutableRepeatedMessage(&message, &field, index), random);
  } else if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT32) {
    reflection->SetRepeatedUInt32(&message, &field, index, static_cast<uint32_t>(Whole(random)));
  }
}

}  // namespace

void MutateMessage(Message& message, std::minstd_rand& random) {
  const auto* descriptor = message.GetDescriptor();
  if (descriptor->field_count() == 0) return;
  const FieldDescriptor& field =
      *descriptor->field(static_cast<int>(Draw(random, static_cast<size_t>(descriptor->field_count()))));
  if (field.is_repeated()) return MutateRepeated(message, field, random);
  if (message.GetReflection()->HasField(message, &field) && Draw(random, 4) == 0) {
    return message.GetReflection()->ClearField(&message, &field);
  }
  SetSingular(message, field, random);
}

}  // namespace longembed
