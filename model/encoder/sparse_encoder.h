// Adds a sparse head to an encoder of any engine.
#ifndef LONGEMBED_MODEL_ENCODER_SPARSE_ENCODER_H_
#define LONGEMBED_MODEL_ENCODER_SPARSE_ENCODER_H_

#include <memory>

#include "model/encoder/encoder.h"
#include "model/encoder/sparse_head.h"

namespace longembed {

// Returns an encoder that runs `head` over the token vectors of `encoder`. The head processes groups of a few rows,
// which helpers share.
std::unique_ptr<Encoder> WithSparseHead(std::unique_ptr<Encoder> encoder, std::unique_ptr<SparseHead> head);

}  // namespace longembed

#endif  // LONGEMBED_MODEL_ENCODER_SPARSE_ENCODER_H_
