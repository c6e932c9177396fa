#include "model/embed/precision_check.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "model/embed/embedder.h"
#include "model/plan/cost.h"

namespace longembed {
namespace {

constexpr const char* kSentences[] = {
    "How do I reset the password of an account whose mail address no longer exists?",
    "The committee postponed its decision because two of the five reports had not arrived in time.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "def mean(values): return sum(values) / len(values)",
    "She bought three tickets for the night train from Vienna to Venice, second class, window seats.",
    "Interest rates rose by 0.25 percentage points in March 2019 and fell again within a year.",
    "The patient reports mild headaches, no fever, and has taken 400 mg of ibuprofen twice.",
    "A binary search halves the interval until the element is found or nothing is left.",
    "Two teaspoons of salt are too much for this soup.",
    "Error: connection refused (port 5432). Is the server running on this host?",
    "The treaty was signed in 1648 and ended thirty years of war in central Europe.",
    "Our warranty covers defects in material for two years; wear and accidents are excluded.",
    "Blue whales are the largest animals that have ever lived.",
    "Please find attached the invoice for October and the signed contract.",
    "The court held that the clause was void because it surprised the weaker party.",
    "In the beginning the river was clear, and the village drank from it.",
};

// Keeps as many of the first texts as linear layers can process in kMostOperations, and at least two.
void KeepAffordable(const ModelManifest& manifest, std::vector<std::string>& texts) {
  constexpr double kMostOperations = 2e12, kTokensPerByte = 0.25;
  const double most_bytes = kMostOperations / kTokensPerByte / LinearOperations(manifest);
  double bytes = 0;
  size_t kept = 0;
  for (; kept < texts.size() && (kept < 2 || bytes + static_cast<double>(texts[kept].size()) <= most_bytes); ++kept) {
    bytes += static_cast<double>(texts[kept].size());
  }
  texts.resize(kept);
}

// Returns every sentence, and concatenations of 2 to 24 sentences.
std::vector<std::string> SampleTexts() {
  std::vector<std::string> texts(std::begin(kSentences), std::end(kSentences));
  const size_t count = texts.size();
  for (const size_t run : {2, 3, 5, 8, 12, 16, 24}) {
    for (size_t first = 0; first < count; first += 5) {
      std::string text;
      for (size_t i = 0; i < run; ++i) text += texts[(first + 3 * i) % count] + " ";
      texts.push_back(std::move(text));
    }
  }
  return texts;
}

// Returns a sparse vector with all components, normalized.
std::vector<float> Dense(const OutputVector& sparse, int size) {
  std::vector<float> dense(static_cast<size_t>(size));
  for (size_t i = 0; i < sparse.indices.size(); ++i) dense[static_cast<size_t>(sparse.indices[i])] = sparse.values[i];
  Normalize(dense).IgnoreError();  // A vector without terms stays zero.
  return dense;
}

// Returns the cosine of two normalized vectors. Two zero vectors, which a text without terms has, are equal.
double Cosine(std::span<const float> a, std::span<const float> b) {
  const auto is_zero = [](std::span<const float> vector) {
    return std::ranges::all_of(vector, [](float x) { return x == 0; });
  };
  if (is_zero(a) && is_zero(b)) return 1;
  double dot = 0;
  for (size_t i = 0; i < a.size(); ++i) dot += static_cast<double>(a[i]) * b[i];
  return dot;
}

}  // namespace

absl::StatusOr<SampleVectors> EmbedSample(const Model& model, Encoder& encoder, int threads) {
  constexpr int kOneBatch = 1 << 16;  // A single batch, because a streamed encoder reads all weights for every batch.
  std::vector<std::string> texts = SampleTexts();
  KeepAffordable(model.manifest, texts);
  const std::vector<Input> inputs(texts.begin(), texts.end());
  const bool tokens = model.manifest.token_vectors.has_value();
  const bool sparse = model.manifest.pooling == Pooling::kNone && !tokens;
  EmbedderOptions options{.plan = {.truncate = Truncate::kEnd}, .sparse = sparse, .max_batch_tokens = kOneBatch};
  if (tokens) options.plan.token_vectors = TokenVectors::kDocument;
  Team team;
  const HelperThreads helpers(team, threads - 1);
  auto embedded = Embedder(model, encoder, team).Embed(inputs, options);
  if (!embedded.ok()) return embedded.status();
  SampleVectors vectors;
  for (auto& outputs : *embedded) {
    OutputVector& output = outputs.front();
    for (size_t i = 1; i < outputs.size(); ++i) {  // Concatenates the token vectors of a text.
      output.values.insert(output.values.end(), outputs[i].values.begin(), outputs[i].values.end());
    }
    if (outputs.size() > 1) Normalize(output.values).IgnoreError();
    vectors.push_back(sparse ? Dense(output, model.manifest.vocabulary_size) : std::move(output.values));
  }
  return vectors;
}

PrecisionReport ComparePrecision(const SampleVectors& expected, const SampleVectors& actual) {
  PrecisionReport report{.texts = static_cast<int>(expected.size())};
  double sum = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double cosine = Cosine(expected[i], actual[i]);
    report.lowest_cosine = std::min(report.lowest_cosine, cosine);
    sum += cosine;
  }
  report.mean_cosine = sum / report.texts;
  return report;
}

absl::StatusOr<PrecisionReport> ComparePrecision(const Model& model, Encoder& reference, Encoder& encoder,
                                                 int threads) {
  const absl::StatusOr<SampleVectors> expected = EmbedSample(model, reference, threads);
  if (!expected.ok()) return expected.status();
  const absl::StatusOr<SampleVectors> actual = EmbedSample(model, encoder, threads);
  if (!actual.ok()) return actual.status();
  return ComparePrecision(*expected, *actual);
}

}  // namespace longembed
