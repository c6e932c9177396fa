// How far a precision moves the vectors of a model, measured instead of assumed.
#ifndef LONGEMBED_MODEL_EMBED_PRECISION_CHECK_H_
#define LONGEMBED_MODEL_EMBED_PRECISION_CHECK_H_

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

// Embeds built-in English texts of about 10 to 500 tokens with both encoders, each text as the model's trained window
// takes it. Errors: of the encoders.
absl::StatusOr<PrecisionReport> ComparePrecision(const Model& model, Encoder& reference, Encoder& encoder);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_EMBED_PRECISION_CHECK_H_
