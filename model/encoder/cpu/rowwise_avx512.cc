#include <type_traits>

#include "model/encoder/cpu/rowwise.h"
#include "model/encoder/cpu/simd_avx512.h"

namespace longembed::cpu {
namespace {

// Calls body(column, lanes) for every vector of a row.
template <typename Body>
LONGEMBED_INLINE void ForVectors(int width, const Body& body) {
  int j = 0;
  for (; j + kLanes <= width; j += kLanes) body(j, static_cast<__mmask16>(0xffff));
  if (j < width) body(j, FirstLanes(width - j));
}

LONGEMBED_INLINE const float* FloatRow(Rows rows, ptrdiff_t row) { return RowOf<const float>(rows, row); }

// The sum first, as it will be normalised; then the variance around its mean, which loses no digits; then the norm.
template <bool kResidual>
void LayerNormRow(const float* a, const float* b, float* out, int width, const float* weight, const float* bias,
                  float epsilon) {
  const auto count = static_cast<float>(width);
  __m512 total = _mm512_setzero_ps();
  ForVectors(width, [&](int j, __mmask16 lanes) {
    __m512 sum = Load(a + j, lanes);
    if constexpr (kResidual) sum = _mm512_add_ps(sum, Load(b + j, lanes));
    Store(out + j, lanes, sum);
    total = _mm512_add_ps(total, sum);
  });
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(total) / count);
  __m512 squares = _mm512_setzero_ps();
  ForVectors(width, [&](int j, __mmask16 lanes) {
    const __m512 centred = _mm512_maskz_sub_ps(lanes, Load(out + j, lanes), mean);
    squares = _mm512_fmadd_ps(centred, centred, squares);
  });
  const float variance = _mm512_reduce_add_ps(squares) / count;
  const __m512 inverse = _mm512_set1_ps(1.0f / __builtin_sqrtf(variance + epsilon));
  ForVectors(width, [&](int j, __mmask16 lanes) {
    const __m512 normal = _mm512_mul_ps(_mm512_sub_ps(Load(out + j, lanes), mean), inverse);
    Store(out + j, lanes, _mm512_fmadd_ps(normal, Load(weight + j, lanes), Load(bias + j, lanes)));
  });
}

template <typename T>
void RmsNormRow(const float* in, T* out, int width, const float* weight, float epsilon) {
  __m512 squares = _mm512_setzero_ps();
  ForVectors(width, [&](int j, __mmask16 lanes) {
    const __m512 x = Load(in + j, lanes);
    squares = _mm512_fmadd_ps(x, x, squares);
  });
  const float mean = _mm512_reduce_add_ps(squares) / static_cast<float>(width);
  const __m512 inverse = _mm512_set1_ps(1.0f / __builtin_sqrtf(mean + epsilon));
  ForVectors(width, [&](int j, __mmask16 lanes) {
    Store(out + j, lanes, _mm512_mul_ps(_mm512_mul_ps(Load(in + j, lanes), inverse), Load(weight + j, lanes)));
  });
}

}  // namespace

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
                 [&](int j, __mmask16 lanes) { Store(to + j, lanes, Load(from + j, lanes)); });
    }
  });
}

void AddRows(Rows a, Rows b, Rows out, int rows, int width) {
  for (int r = 0; r < rows; ++r) {
    ForVectors(width, [&](int j, __mmask16 lanes) {
      Store(RowOf<float>(out, r) + j, lanes,
            _mm512_add_ps(Load(FloatRow(a, r) + j, lanes), Load(FloatRow(b, r) + j, lanes)));
    });
  }
}

void InterpolateRows(const float* table, int table_rows, const float* positions, Rows out, int rows, int width) {
  const auto last = static_cast<float>(table_rows - 1);
  for (int r = 0; r < rows; ++r) {
    const float place = positions[r] < 0 ? 0 : positions[r] > last ? last : positions[r];
    const int lower = static_cast<int>(place);
    const int upper = Min(lower + 1, table_rows - 1);
    const __m512 share = _mm512_set1_ps(place - static_cast<float>(lower));
    const float* const below = table + static_cast<ptrdiff_t>(lower) * width;
    const float* const above = table + static_cast<ptrdiff_t>(upper) * width;
    ForVectors(width, [&](int j, __mmask16 lanes) {
      const __m512 from = Load(below + j, lanes);
      const __m512 step = _mm512_sub_ps(Load(above + j, lanes), from);
      Store(RowOf<float>(out, r) + j, lanes, _mm512_fmadd_ps(share, step, from));
    });
  }
}

void GatherRows(const float* table, const int32_t* ids, Rows out, int rows, int width) {
  for (int r = 0; r < rows; ++r) {
    const float* const from = table + static_cast<ptrdiff_t>(ids[r]) * width;
    ForVectors(width, [&](int j, __mmask16 lanes) { Store(RowOf<float>(out, r) + j, lanes, Load(from + j, lanes)); });
  }
}

void MeanOfRows(Rows in, int rows, int width, float* out) {
  constexpr int kBlock = 128;  // Sums of sums: a running sum over many rows would lose digits.
  const __m512 share = _mm512_set1_ps(1.0f / static_cast<float>(rows));
  ForVectors(width, [&](int j, __mmask16 lanes) {
    __m512 total = _mm512_setzero_ps();
    for (int first = 0; first < rows; first += kBlock) {
      __m512 sum = _mm512_setzero_ps();
      for (int r = first; r < Min(first + kBlock, rows); ++r)
        sum = _mm512_add_ps(sum, Load(FloatRow(in, r) + j, lanes));
      total = _mm512_add_ps(total, sum);
    }
    Store(out + j, lanes, _mm512_mul_ps(total, share));
  });
}

}  // namespace longembed::cpu
