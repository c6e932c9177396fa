// A view of the rows of a matrix, which all kernels use.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ROWS_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ROWS_H_

#include <cstddef>
#include <cstdint>

namespace longembed::cpu {

enum class Element : uint8_t { kFloat32, kBfloat16 };

constexpr ptrdiff_t SizeOf(Element element) { return element == Element::kFloat32 ? 4 : 2; }

// A view of rows that does not own its memory. Row r begins at data + r * stride, and its columns are contiguous.
struct Rows {
  std::byte* data = nullptr;
  ptrdiff_t stride = 0;  // In bytes.
  Element element = Element::kFloat32;

  Rows from(ptrdiff_t row, ptrdiff_t column = 0) const {
    return {data + row * stride + column * SizeOf(element), stride, element};
  }
};

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ROWS_H_
