// Kernels for the operations between the matrix products of a layer. They are compiled at run time for the GPU in use
// (fused_kernels.h), once per element type. Each block processes one row and computes in float32. Tensors are
// contiguous unless stated otherwise.
//
// NVRTC compiles this file without headers. Tests compile it for the CPU after a few definitions.
//   ELEMENT  0: float32, 1: float16, 2: bfloat16
//   BLOCK    threads of a block, a power of two

#ifdef __CUDACC_RTC__
#define KERNEL extern "C" __global__ void
__device__ inline float HalfToFloat(unsigned short bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
__device__ inline unsigned short FloatToHalf(float value) {
  unsigned short bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}
#endif

#if ELEMENT == 0
typedef float Element;
__device__ inline float Load(float value) { return value; }
__device__ inline float Store(float value) { return value; }
#elif ELEMENT == 1
typedef unsigned short Element;
__device__ inline float Load(unsigned short bits) { return HalfToFloat(bits); }
__device__ inline unsigned short Store(float value) { return FloatToHalf(value); }
#else
typedef unsigned short Element;
__device__ inline float Load(unsigned short bits) { return __uint_as_float((unsigned int)bits << 16); }
// Converts a float32 to bfloat16, rounding to nearest even. NaN stays NaN.
__device__ inline unsigned short Store(float value) {
  const unsigned int bits = __float_as_uint(value);
  if (value != value) return (unsigned short)(bits >> 16 | 0x40);
  return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
#endif

// Returns the sum of `value` over the threads of a block, to every thread.
__device__ inline float BlockSum(float value) {
  __shared__ float sums[BLOCK];
  __syncthreads();  // Ensures that the previous sum has been read.
  sums[threadIdx.x] = value;
  for (int half = BLOCK / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
  }
  __syncthreads();
  return sums[0];
}

// Sets out [rows, width] = LayerNorm(x + residual). `residual` may be null. If `sum` [rows, width] is not null, it
// receives x + residual.
KERNEL AddLayerNorm(const Element* x, const Element* residual, const Element* weight, const Element* bias,
                    float epsilon, Element* sum, Element* out, int width) {
  const long long first = (long long)blockIdx.x * width;
  float total = 0;
  for (int i = threadIdx.x; i < width; i += BLOCK) {
    const float value = Load(x[first + i]) + (residual ? Load(residual[first + i]) : 0.0f);
    if (sum) sum[first + i] = Store(value);
    total += value;
  }
  const float mean = BlockSum(total) / width;
  float squares = 0;
  for (int i = threadIdx.x; i < width; i += BLOCK) {
    const float value = Load(x[first + i]) + (residual ? Load(residual[first + i]) : 0.0f) - mean;
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(BlockSum(squares) / width + epsilon);
  for (int i = threadIdx.x; i < width; i += BLOCK) {
    const float value = Load(x[first + i]) + (residual ? Load(residual[first + i]) : 0.0f);
    out[first + i] = Store((value - mean) * scale * Load(weight[i]) + Load(bias[i]));
  }
}

// Sets out [rows, width] = RmsNorm(x + residual). `residual` and `sum` are as above.
KERNEL AddRmsNorm(const Element* x, const Element* residual, const Element* weight, float epsilon, Element* sum,
                  Element* out, int width) {
  const long long first = (long long)blockIdx.x * width;
  float squares = 0;
  for (int i = threadIdx.x; i < width; i += BLOCK) {
    const float value = Load(x[first + i]) + (residual ? Load(residual[first + i]) : 0.0f);
    if (sum) sum[first + i] = Store(value);
    squares += value * value;
  }
  const float scale = 1.0f / sqrtf(BlockSum(squares) / width + epsilon);
  for (int i = threadIdx.x; i < width; i += BLOCK) {
    const float value = Load(x[first + i]) + (residual ? Load(residual[first + i]) : 0.0f);
    out[first + i] = Store(value * scale * Load(weight[i]));
  }
}

// Rotates the first `rotated` heads of x [tokens, stride] in place: components j and j + half of a head form a pair,
// with cos and sin [tokens, half]. Then multiplies the first `queries` heads by scale [tokens], which may be null.
KERNEL Rotate(Element* x, const float* cos, const float* sin, const float* scale, int queries, int rotated,
              int head_dim, int half, int stride) {
  Element* const row = x + (long long)blockIdx.x * stride;
  const float* const row_cos = cos + (long long)blockIdx.x * half;
  const float* const row_sin = sin + (long long)blockIdx.x * half;
  const float query_scale = scale ? scale[blockIdx.x] : 1.0f;
  const int rest = head_dim - 2 * half;
  const int items = half + rest;  // Items of a head: pairs, then components that are not rotated.
  for (int i = threadIdx.x; i < rotated * items; i += BLOCK) {
    const int head = i / items, j = i % items;
    Element* const own = row + head * head_dim;
    const float factor = head < queries ? query_scale : 1.0f;
    if (j >= half) {
      if (factor != 1.0f) own[half + j] = Store(Load(own[half + j]) * factor);
      continue;
    }
    const float a = Load(own[j]), b = Load(own[j + half]);
    own[j] = Store((a * row_cos[j] - b * row_sin[j]) * factor);
    own[j + half] = Store((b * row_cos[j] + a * row_sin[j]) * factor);
  }
}

__device__ inline float Gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }

// Sets out [rows, inner] = activation(gate) * value, where x [rows, 2 inner] is gate and value side by side.
//   activation  0: SiLU, 1: exact GELU, 2: GELU approximated by tanh
KERNEL GatedActivation(const Element* x, Element* out, int inner, int activation) {
  const Element* const gate = x + (long long)blockIdx.x * 2 * inner;
  for (int i = threadIdx.x; i < inner; i += BLOCK) {
    const float g = Load(gate[i]);
    float activated;
    if (activation == 0) {
      activated = g / (1.0f + expf(-g));
    } else if (activation == 1) {
      activated = Gelu(g);
    } else {
      activated = 0.5f * g * (1.0f + tanhf(0.79788456080286536f * (g + 0.044715f * g * g * g)));
    }
    out[(long long)blockIdx.x * inner + i] = Store(activated * Load(gate[inner + i]));
  }
}

// Replaces x [rows, width] by the exact GELU(x + bias).
KERNEL BiasGelu(Element* x, const Element* bias, int width) {
  Element* const row = x + (long long)blockIdx.x * width;
  for (int i = threadIdx.x; i < width; i += BLOCK) row[i] = Store(Gelu(Load(row[i]) + Load(bias[i])));
}

// Sets row p of out [spans, width] to the mean of the rows [spans[2 p], spans[2 p + 1]) of x [rows, width]. Sums over
// runs of rows are added up: one running sum over many rows would lose precision.
KERNEL SpanMean(const Element* x, const int* spans, Element* out, int width) {
  const int run = 128;  // Rows.
  const int start = spans[2 * blockIdx.x], end = spans[2 * blockIdx.x + 1];
  for (int i = threadIdx.x; i < width; i += BLOCK) {
    float total = 0;
    for (int first = start; first < end; first += run) {
      const int last = first + run < end ? first + run : end;
      float sum = 0;
      for (int row = first; row < last; ++row) sum += Load(x[(long long)row * width + i]);
      total += sum;
    }
    out[(long long)blockIdx.x * width + i] = Store(total / (end - start));
  }
}
