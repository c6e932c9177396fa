// What happens to each row by itself between the matrix products. Statistics and sums are float32 whatever the rows
// hold. Widths are any number of columns.
#ifndef LONGEMBED_MODEL_ENCODER_CPU_ROWWISE_H_
#define LONGEMBED_MODEL_ENCODER_CPU_ROWWISE_H_

#include <cstdint>

#include "model/encoder/cpu/rows.h"

namespace longembed::cpu {

// out = LayerNorm(a + b) * weight + bias; b.data may be null. `out` may be a or b.
void LayerNormRows(Rows a, Rows b, Rows out, int rows, int width, const float* weight, const float* bias,
                   float epsilon);

// out = in / rms(in) * weight. `out` may be in.
void RmsNormRows(Rows in, Rows out, int rows, int width, const float* weight, float epsilon);

// out = a + b. `out` may be a or b.
void AddRows(Rows a, Rows b, Rows out, int rows, int width);

// RMS norms of single heads: `in` holds heads + 2 * key_value_heads of head_dim columns, queries, keys and values side
// by side. Each query is normed with `query` [head_dim], each key with `key`; values are copied. `out` may be in.
void HeadNormRows(Rows in, Rows out, int rows, int heads, int key_value_heads, int head_dim, const float* query,
                  const float* key, float epsilon);

// out[r] = (1 - share) * table[lower] + share * table[lower + 1], where position = lower + share; clamped to the
// table's ends. A whole position copies its row to the last bit.
void InterpolateRows(const float* table, int table_rows, const float* positions, Rows out, int rows, int width);

// out[r] = table[ids[r]]. Ids have been checked.
void GatherRows(const float* table, const int32_t* ids, Rows out, int rows, int width);

// The mean of `rows` rows (at least one), float32 [width].
void MeanOfRows(Rows in, int rows, int width, float* out);

}  // namespace longembed::cpu

#endif  // LONGEMBED_MODEL_ENCODER_CPU_ROWWISE_H_
