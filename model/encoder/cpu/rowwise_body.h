// Kernels that process each row independently between the matrix products. For kernels_*.cc, which include it after the
// set's vectors.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ROWWISE_BODY_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ROWWISE_BODY_H_

#include <type_traits>

#include "model/encoder/cpu/rows.h"
#include "model/encoder/cpu/simd_math.h"

namespace longembed::cpu {
namespace {

LONGEMBED_INLINE const float* FloatRow(Rows rows, ptrdiff_t row) { return RowOf<const float>(rows, row); }

// Computes and stores the sum a + b, then the variance around its mean, which avoids cancellation, then the norm.
template <bool kResidual>
void LayerNormRow(const float* a, const float* b, float* out, int width, const float* weight, const float* bias,
                  float epsilon) {
  const auto count = static_cast<float>(width);
  Floats total = Repeat(0);
  ForVectors(width, [&](int j, auto lanes) {
    Floats sum = LoadFirst(a + j, lanes);
    if constexpr (kResidual) sum = sum + LoadFirst(b + j, lanes);
    StoreFirst(out + j, lanes, sum);
    total = total + sum;
  });
  const Floats mean = Repeat(SumOf(total) / count);
  Floats squares = Repeat(0);
  ForVectors(width, [&](int j, auto lanes) {
    const Floats centered = Select(FirstLanes(lanes), LoadFirst(out + j, lanes) - mean, Repeat(0));
    squares = Fma(centered, centered, squares);
  });
  const float variance = SumOf(squares) / count;
  const Floats inverse = Repeat(1.0f / __builtin_sqrtf(variance + epsilon));
  ForVectors(width, [&](int j, auto lanes) {
    const Floats normal = (LoadFirst(out + j, lanes) - mean) * inverse;
    StoreFirst(out + j, lanes, Fma(normal, LoadFirst(weight + j, lanes), LoadFirst(bias + j, lanes)));
  });
}

template <typename T>
void RmsNormRow(const float* in, T* out, int width, const float* weight, float epsilon) {
  Floats squares = Repeat(0);
  ForVectors(width, [&](int j, auto lanes) {
    const Floats x = LoadFirst(in + j, lanes);
    squares = Fma(x, x, squares);
  });
  const float mean = SumOf(squares) / static_cast<float>(width);
  const Floats inverse = Repeat(1.0f / __builtin_sqrtf(mean + epsilon));
  ForVectors(width, [&](int j, auto lanes) {
    StoreFirst(out + j, lanes, LoadFirst(in + j, lanes) * inverse * LoadFirst(weight + j, lanes));
  });
}

void LayerNormRows(Rows a, Rows b, Rows out, int rows, int width, const float* weight, const float* bias,
                   float epsilon) {
  for (int r = 0; r < rows; ++r) {
    if (b.data == nullptr) {
      LayerNormRow<false>(FloatRow(a, r), nullptr, RowOf<float>(out, r), width, weight, bias, epsilon);
    } else {
      LayerNormRow<true>(FloatRow(a, r), FloatRow(b, r), RowOf<float>(out, r), width, weight, bias, epsilon);
    }
  }
}

void RmsNormRows(Rows in, Rows out, int rows, int width, const float* weight, float epsilon) {
  for (int r = 0; r < rows; ++r) RmsNormRow(FloatRow(in, r), RowOf<float>(out, r), width, weight, epsilon);
}

void HeadNormRows(Rows in, Rows out, int rows, int heads, int key_value_heads, int head_dim, const float* query,
                  const float* key, float epsilon) {
  WithElement(out.element, [&](auto* element) {
    using T = std::remove_pointer_t<decltype(element)>;
    for (int r = 0; r < rows; ++r) {
      const float* from = FloatRow(in, r);
      T* to = RowOf<T>(out, r);
      for (int head = 0; head < heads + key_value_heads; ++head, from += head_dim, to += head_dim) {
        RmsNormRow(from, to, head_dim, head < heads ? query : key, epsilon);
      }
      ForVectors(key_value_heads * head_dim,
                 [&](int j, auto lanes) { StoreFirst(to + j, lanes, LoadFirst(from + j, lanes)); });
    }
  });
}

void AddRows(Rows a, Rows b, Rows out, int rows, int width) {
  for (int r = 0; r < rows; ++r) {
    ForVectors(width, [&](int j, auto lanes) {
      StoreFirst(RowOf<float>(out, r) + j, lanes,
                 LoadFirst(FloatRow(a, r) + j, lanes) + LoadFirst(FloatRow(b, r) + j, lanes));
    });
  }
}

void InterpolateRows(const float* table, int table_rows, const float* positions, Rows out, int rows, int width) {
  const auto last = static_cast<float>(table_rows - 1);
  for (int r = 0; r < rows; ++r) {
    const float place = positions[r] < 0 ? 0 : positions[r] > last ? last : positions[r];
    const int lower = static_cast<int>(place);
    const int upper = Min(lower + 1, table_rows - 1);
    const Floats share = Repeat(place - static_cast<float>(lower));
    const float* const below = table + static_cast<ptrdiff_t>(lower) * width;
    const float* const above = table + static_cast<ptrdiff_t>(upper) * width;
    ForVectors(width, [&](int j, auto lanes) {
      const Floats from = LoadFirst(below + j, lanes);
      const Floats step = LoadFirst(above + j, lanes) - from;
      StoreFirst(RowOf<float>(out, r) + j, lanes, Fma(share, step, from));
    });
  }
}

void GatherRows(const float* table, const int32_t* ids, Rows out, int rows, int width) {
  for (int r = 0; r < rows; ++r) {
    const float* const from = table + static_cast<ptrdiff_t>(ids[r]) * width;
    ForVectors(width,
               [&](int j, auto lanes) { StoreFirst(RowOf<float>(out, r) + j, lanes, LoadFirst(from + j, lanes)); });
  }
}

void MeanOfRows(Rows in, int rows, int width, float* out) {
  constexpr int kBlock = 128;  // Sums over blocks are added up: one running sum over many rows would lose precision.
  const Floats share = Repeat(1.0f / static_cast<float>(rows));
  ForVectors(width, [&](int j, auto lanes) {
    Floats total = Repeat(0);
    for (int first = 0; first < rows; first += kBlock) {
      Floats sum = Repeat(0);
      for (int r = first; r < Min(first + kBlock, rows); ++r) sum = sum + LoadFirst(FloatRow(in, r) + j, lanes);
      total = total + sum;
    }
    StoreFirst(out + j, lanes, total * share);
  });
}

}  // namespace
}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ROWWISE_BODY_H_
