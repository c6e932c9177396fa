// The contents of a model directory's longembed-model.yaml. The exporter (model/export) writes it; README.md there
// describes every key.
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
  kNone,  // No pooled vectors: the model gives others.
};

// The way sparse_head.pt makes weights of vocabulary entries.
enum class SparseHeadKind {
  kNone,          // There is none.
  kSpladeMax,     // Masked-language-model logits, the maximum over tokens.
  kSpladeSum,     // The same, summed over tokens.
  kTokenWeights,  // A weight for each token of the text, the maximum over equal ones.
};

// Queries and documents of a model with a vector for each token (ColBERT).
struct TokenVectorSettings {
  int query_tokens = 0;                 // The most tokens of a query.
  int expansion_tokens = 0;             // Shorter queries are lengthened to so many tokens; 0 = they are not.
  int32_t expansion_token = 0;          // By this token,
  bool expansion_attended = false;      // which all tokens attend to, or none.
  std::vector<int32_t> skipped_tokens;  // Ascending. In documents they get no vector.
};

// Rotary frequencies that a checkpoint scales pair by pair: Llama 3.1's, YaRN's (arXiv 2309.00071), LongRoPE's (arXiv
// 2402.13753).
struct RotaryScaling {
  std::string kind;                  // "llama3", "yarn" or "longrope".
  std::vector<double> factors;       // [rotary_dim / 2] Divide the frequencies.
  std::vector<double> long_factors;  // LongRoPE: those of sequences of more than long_from tokens. Else empty.
  int long_from = 0;
  double amplitude = 1;  // Multiplies cos and sin.
};

// A plain value: copy it, share it between threads.
struct ModelManifest {
  std::string name;
  std::string architecture;
  Family family = Family::kApe;
  int vocabulary_size = 0;
  int hidden_size = 0;
  int vector_size = 0;  // Of pooled vectors: hidden_size, unless Dense layers after pooling change it.
  int layers = 0;
  int local_layers = 0;  // Of these, with attention within local_window tokens to either side.
  int local_window = 0;
  int intermediate_size = 0;
  int attention_heads = 0;
  int key_value_heads = 0;  // Grouped-query attention has fewer of them than attention_heads.
  int head_dim = 0;
  bool gated = false;       // The feed-forward layer has a gate: three matrices instead of two.
  int position_rows = 0;    // APE: rows of the position table.
  int position_stride = 1;  // APE: rows a trained position; more than 1 in a tuned, expanded table.
  int rotary_dim = 0;       // RoPE: components of a head that are rotated; even.
  double rotary_base = 0;   // RoPE: b of theta_j = b^(-2j / rotary_dim) / rotary_factor.
  int trained_window = 0;   // Lo, tokens.
  int plain_limit = 0;      // The most tokens of one sequence without an extension.
  // RoPE: divides all plain frequencies, as gte's published code and linear scaling do.
  double rotary_factor = 1;
  std::optional<RotaryScaling> rotary_scaling;  // RoPE, on top of rotary_factor.
  bool causal = false;
  Pooling pooling = Pooling::kMean;
  SparseHeadKind sparse_head = SparseHeadKind::kNone;
  std::optional<TokenVectorSettings> token_vectors;
  std::vector<int32_t> special_prefix;             // Ids before prompt and content.
  std::vector<int32_t> special_suffix;             // Ids after the content.
  bool add_eos_token = false;                      // special_suffix ends with the tokenizer's EOS token.
  std::map<std::string, std::string> prompts;      // Name -> text put before the input.
  std::string default_prompt_name;                 // Of requests that name no prompt; a name of `prompts`, or empty.
  std::map<std::string, std::string> input_types;  // "QUERY", "DOCUMENT" -> a name of `prompts`.
  std::vector<int> trained_dimensions;             // Ascending; the last one is vector_size.
  std::string similarity_function;                 // "cosine", "dot", "euclidean", "manhattan"; empty = unknown.
  std::string trained_window_source;               // The source of trained_window: a file, an option or a table.
  std::string recommended_extension;               // JSON of longembed.v1.Extension; empty = none.
  std::string recommended_multi_vector_extension;  // The same, for a vector a window: it has `windows`.
  // Evidence for the recommendations: data set, date, figures.
  std::map<std::string, std::string> recommendation_evidence;
  std::string precision;  // Of the weights in encoder.pt.
  std::string source;
  std::string license;
  std::map<std::string, std::string> file_sha256;  // File name -> lower-case hex.
};

// Reads and validates `directory`/longembed-model.yaml. Unknown keys are errors, as are values that contradict each
// other.
absl::StatusOr<ModelManifest> ReadManifest(const std::string& directory);

// The same from YAML text; `origin` names it in errors. Takes untrusted text.
absl::StatusOr<ModelManifest> ParseManifest(const std::string& yaml, const std::string& origin);

// Compares the files of `directory` with the manifest's sums. Calls `on_progress` with the fraction that is read, 0
// to 1.
absl::Status VerifyFiles(const ModelManifest& manifest, const std::string& directory,
                         const std::function<void(double)>& on_progress = {});

}  // namespace longembed

#endif  // LONGEMBED_MODEL_MANIFEST_MANIFEST_H_
