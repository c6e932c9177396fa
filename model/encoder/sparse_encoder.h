// An encoder with a sparse head behind it, whatever engine the encoder is of.
#ifndef LONGEMBED_MODEL_ENCODER_SPARSE_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_SPARSE_ENCODER_H_

#include <memory>

#include "model/encoder/encoder.h"
#include "model/encoder/sparse_head.h"

namespace longembed {

// `encoder` gives the token vectors that `head` takes. The head runs over a few rows at a time, which helpers share.
std::unique_ptr<Encoder> WithSparseHead(std::unique_ptr<Encoder> encoder, std::unique_ptr<SparseHead> head);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_SPARSE_ENCODER_H_
