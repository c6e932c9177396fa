// Measures how far a precision moves the vectors of a model.
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

// Cosines between the vectors of one text from the two encoders, over the sample.
struct PrecisionReport {
  double lowest_cosine = 1;
  double mean_cosine = 1;
  int texts = 0;
};

// One vector a text, normalized: the pooled one, or of models without one the sparse one or all token vectors as one.
using SampleVectors = std::vector<std::vector<float>>;

// Embeds built-in English texts of about 10 to 500 tokens, each as the model's trained window takes it, as one batch;
// of a model of billions of weights fewer and shorter ones, for some seconds. Errors: of the encoder.
absl::StatusOr<SampleVectors> EmbedSample(const Model& model, Encoder& encoder, int threads);

PrecisionReport ComparePrecision(const SampleVectors& expected, const SampleVectors& actual);

// The same of two encoders that are there at the same time.
absl::StatusOr<PrecisionReport> ComparePrecision(const Model& model, Encoder& reference, Encoder& encoder, int threads);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_PRECISION_CHECK_H_
