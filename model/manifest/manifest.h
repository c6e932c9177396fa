// The contents of longembed-model.yaml in a model directory. The exporter writes it; model/export/README.md describes
// every key.
#ifndef LONGEMBED_MODEL_MANIFEST_MANIFEST_H_
#define LONGEMBED_MODEL_MANIFEST_MANIFEST_H_

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace longembed {

inline constexpr int kManifestFormatVersion = 1;
inline constexpr char kManifestFile[] = "longembed-model.yaml";
inline constexpr char kEncoderFile[] = "encoder.pt";
inline constexpr char kSparseHeadFile[] = "sparse_head.pt";
inline constexpr char kTokenizerFile[] = "tokenizer.json";

enum class Family {
  kApe,   // Learned absolute positions, looked up in a table.
  kRope,  // Rotary positions.
};

enum class Pooling {
  kMean,
  kCls,
  kLast,
  kNone,  // No pooled vectors; the model gives sparse or token vectors only.
};

// How sparse_head.pt computes the weights of vocabulary entries.
enum class SparseHeadKind {
  kNone,          // No sparse head.
  kSpladeMax,     // Masked-language-model logits; the maximum over tokens.
  kSpladeSum,     // Masked-language-model logits; the sum over tokens.
  kTokenWeights,  // A weight per token of the text; the maximum over equal tokens.
};

// How queries and documents are encoded by a model that gives a vector for each token (ColBERT).
struct TokenVectorSettings {
  int query_tokens = 0;  // Maximum number of tokens of a query.
  // Shorter queries are lengthened to this number of tokens; 0 means they are not.
  int expansion_tokens = 0;
  int32_t expansion_token = 0;          // Token that queries are lengthened with.
  bool expansion_attended = false;      // Whether tokens attend to the expansion tokens.
  std::vector<int32_t> skipped_tokens;  // Tokens that get no vector in documents. Ascending.
};

// A checkpoint's scaling of its rotary frequencies, pair by pair: Llama 3.1's, YaRN's (arXiv 2309.00071) or LongRoPE's
// (arXiv 2402.13753).
struct RotaryScaling {
  std::string kind;             // "llama3", "yarn" or "longrope".
  std::vector<double> factors;  // [rotary_dim / 2] Divisors of the frequencies.
  // LongRoPE: divisors for sequences of more than long_from tokens. Otherwise empty.
  std::vector<double> long_factors;
  int long_from = 0;
  double amplitude = 1;  // Multiplies cos and sin.
};

// A model's properties as a plain value.
struct ModelManifest {
  std::string name;
  std::string architecture;
  Family family = Family::kApe;
  int vocabulary_size = 0;
  int hidden_size = 0;
  int vector_size = 0;  // Size of pooled vectors: hidden_size, unless Dense layers after pooling change it.
  int layers = 0;
  int local_layers = 0;  // Number of layers whose attention is limited to local_window tokens on either side.
  int local_window = 0;
  int intermediate_size = 0;
  int attention_heads = 0;
  int key_value_heads = 0;  // Fewer than attention_heads in grouped-query attention.
  int head_dim = 0;
  bool gated = false;       // The feed-forward layer has a gate: three matrices instead of two.
  int position_rows = 0;    // APE: rows of the position table.
  int position_stride = 1;  // APE: rows per trained position; above 1 in a table expanded by tuning.
  int rotary_dim = 0;       // RoPE: number of rotated components per head; even.
  double rotary_base = 0;   // RoPE: the b in theta_j = b^(-2j / rotary_dim) / rotary_factor.
  int trained_window = 0;   // Lo, in tokens.
  int plain_limit = 0;      // Maximum tokens of one sequence without an extension.
  // RoPE: divisor of all frequencies, as in gte's published code and in linear scaling.
  double rotary_factor = 1;
  std::optional<RotaryScaling> rotary_scaling;  // RoPE: applies in addition to rotary_factor.
  bool causal = false;
  Pooling pooling = Pooling::kMean;
  SparseHeadKind sparse_head = SparseHeadKind::kNone;
  std::optional<TokenVectorSettings> token_vectors;
  std::vector<int32_t> special_prefix;             // Ids before prompt and content.
  std::vector<int32_t> special_suffix;             // Ids after the content.
  bool add_eos_token = false;                      // special_suffix ends with the tokenizer's EOS token.
  std::map<std::string, std::string> prompts;      // Name -> text that precedes the input.
  std::string default_prompt_name;                 // Prompt of requests that name none: a key of `prompts`, or empty.
  std::map<std::string, std::string> input_types;  // "QUERY", "DOCUMENT" -> a key of `prompts`.
  std::vector<int> trained_dimensions;             // Ascending; the last one is vector_size.
  std::string similarity_function;                 // "cosine", "dot", "euclidean", "manhattan"; empty = unknown.
  std::string trained_window_source;               // Source of trained_window: a file, an option or a table.
  std::string recommended_extension;               // JSON of longembed.v1.Extension; empty = none.
  std::string recommended_multi_vector_extension;  // Likewise for one vector per window; has `windows`.
  // Evidence for the recommendations: data set, date, figures.
  std::map<std::string, std::string> recommendation_evidence;
  std::string precision;  // Precision of the weights in encoder.pt.
  std::string source;
  std::string license;
  std::map<std::string, std::string> file_sha256;  // File name -> lower-case hex.
};

// Reads and validates `directory`/longembed-model.yaml. Unknown keys and contradictory values are errors
// (FAILED_PRECONDITION, MODEL_DIRECTORY).
absl::StatusOr<ModelManifest> ReadManifest(const std::string& directory);

// Parses a manifest from YAML text; `origin` names the text in errors. Accepts untrusted text.
absl::StatusOr<ModelManifest> ParseManifest(const std::string& yaml, const std::string& origin);

// Compares the files of `directory` with the manifest's SHA-256 sums. Calls `on_progress` with the fraction of bytes
// read so far, 0 to 1.
absl::Status VerifyFiles(const ModelManifest& manifest, const std::string& directory,
                         const std::function<void(double)>& on_progress = {});

}  // namespace longembed

#endif  // LONGEMBED_MODEL_MANIFEST_MANIFEST_H_
