#include "server/batching/job.h"

#include <iterator>
#include <numeric>
#include <utility>

namespace longembed {

Job::Job(std::vector<Sequence> sequences, const JobOptions& options, JobDone done)
    : sequences_(std::move(sequences)),
      options_(options),
      tokens_(std::accumulate(sequences_.begin(), sequences_.end(), int64_t{0},
                              [](int64_t sum, const Sequence& sequence) { return sum + sequence.size(); })),
      unfinished_(sequences_.size()),
      done_(std::move(done)) {
  size_t vectors = 0;
  for (const Sequence& sequence : sequences_) {
    first_vector_.push_back(vectors);
    vectors += sequence.spans.size();
  }
  if (sequences_.front().sparse) {
    result_.sparse.resize(vectors);
  } else {
    result_.vectors.resize(vectors);
  }
}

Job::Payload Job::TakePayload() {
  Payload payload{.result = std::exchange(result_, {})};
  const auto first = sequences_.begin() + static_cast<ptrdiff_t>(next_);
  payload.sequences.assign(std::move_iterator(first), std::move_iterator(sequences_.end()));
  return payload;
}

}  // namespace longembed
