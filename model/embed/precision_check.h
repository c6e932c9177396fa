// Measures how much a precision changes the vectors of a model.
//
//   absl::StatusOr<SampleVectors> expected = EmbedSample(model, reference, threads);   // Free `reference` now.
//   absl::StatusOr<SampleVectors> actual = EmbedSample(model, encoder, threads);
//   PrecisionReport report = ComparePrecision(*expected, *actual);
#ifndef LONGEMBED_MODEL_EMBED_PRECISION_CHECK_H_
#define LONGEMBED_MODEL_EMBED_PRECISION_CHECK_H_

#include <vector>

#include "absl/status/statusor.h"
#include "model/embed/model.h"
#include "model/encoder/encoder.h"

namespace longembed {

// Statistics, over a sample of texts, of the cosine between the vectors that two encoders give for a text.
struct PrecisionReport {
  double lowest_cosine = 1;
  double mean_cosine = 1;
  int texts = 0;
};

// One normalized vector per text: all token vectors concatenated if the model gives token vectors, else the pooled
// vector, or the sparse vector if the model gives no pooled ones.
using SampleVectors = std::vector<std::vector<float>>;

// Embeds built-in English texts of about 10 to 500 tokens, truncated to the plain limit, as one batch. For models
// with billions of weights, fewer and shorter texts are used, so that it takes some seconds. Errors: those of the
// encoder.
absl::StatusOr<SampleVectors> EmbedSample(const Model& model, Encoder& encoder, int threads);

// The cosine of two vectors without terms is 1, and that of one with and one without is 0.
PrecisionReport ComparePrecision(const SampleVectors& expected, const SampleVectors& actual);

// Embeds the sample with two encoders that are in memory at the same time, and compares the vectors.
absl::StatusOr<PrecisionReport> ComparePrecision(const Model& model, Encoder& reference, Encoder& encoder, int threads);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_PRECISION_CHECK_H_
