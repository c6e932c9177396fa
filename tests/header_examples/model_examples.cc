#include <atomic>
#include <cstdio>

#include "model/embed/embedder.h"
#include "model/embed/precision_check.h"
#include "model/encoder/load_encoder.h"
#include "model/errors/errors.h"
#include "model/text/hf_tokenizers/hf_tokenizers.h"
#include "model/yaml/yaml_mapping.h"
#include "system/return_if_error.h"

namespace longembed {

void EmbedInProcess() {
#include "examples/model/embed/embedder.h"
}

void CheckPrecision(const Model& model, Encoder& reference, Encoder& encoder, int threads) {
#include "examples/model/embed/precision_check.h"
}

void Encode(Encoder& encoder, const Sequence& first, const Sequence& second) {
#include "examples/model/encoder/encoder.h"
}

void ShareWork(int count, float* rows, const std::atomic<bool>& work_waits){
#include "examples/model/encoder/team.h"
}

absl::Status NameErrors(const std::vector<int32_t>& ids, const absl::Status& status) {
#include "examples/model/errors/errors.h"
}

void Collect(void* context, const int32_t* ids, const uint32_t* begins, const uint32_t* ends, size_t count);

void Tokenize(const char* json, size_t size, const char* text, size_t length, TokenizedText& result){
#include "examples/model/text/hf_tokenizers/hf_tokenizers.h"
}

absl::Status CheckPath(const std::string& path);
absl::StatusOr<std::string> ReadAll(const std::string& path);

absl::StatusOr<std::string> PassErrorsOn(const std::string& path) {
#include "examples/system/return_if_error.h"
}

void ReadLimits(const std::string& text) {
#include "examples/model/yaml/yaml_mapping.h"
}

}  // namespace longembed
