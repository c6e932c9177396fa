// The C ABI of the Rust crate in this folder: Hugging Face `tokenizers`, text in, ids and byte offsets out; and Unicode
// sentence boundaries.
//
//   LongembedHfTokenizer* tokenizer = NULL;
//   char error[256];
//   if (longembed_hf_open(json, size, 64 << 10, &tokenizer, error, sizeof(error)) != LONGEMBED_HF_OK) puts(error);
//   longembed_hf_encode(tokenizer, text, length, SIZE_MAX, &Collect, &result, error, sizeof(error));
//   longembed_hf_close(tokenizer);
//
// Any number of threads may use one tokenizer at once; only longembed_hf_close needs the tokenizer to itself. No call
// starts threads, reads the environment or prints.
//
// No call unwinds into the caller or aborts because of its input: a panic inside is caught and becomes
// LONGEMBED_HF_PANICKED, after which the tokenizer is still usable. (Running out of memory aborts, as everywhere in
// Rust's standard library.)
//
// No memory changes owner. Inputs are borrowed for the call. Results are handed to a sink, which is called once, on the
// calling thread and before the call returns, if and only if the status is LONGEMBED_HF_OK; what its pointers point to
// is valid until the sink returns, so it copies what it keeps. A sink must not throw.
//
// `error` receives NUL-terminated UTF-8, cut to `error_capacity` bytes, unless the status is LONGEMBED_HF_OK; it may be
// NULL when `error_capacity` is 0.
//
// src/lib.rs implements this header by hand: change both together.
#ifndef LONGEMBED_MODEL_TEXT_HF_TOKENIZERS_HF_TOKENIZERS_H_
#define LONGEMBED_MODEL_TEXT_HF_TOKENIZERS_HF_TOKENIZERS_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum LongembedHfStatus {
  LONGEMBED_HF_OK = 0,
  LONGEMBED_HF_NULL_ARGUMENT = 1,
  LONGEMBED_HF_BAD_TOKENIZER = 2,  // Not a tokenizer.json that the crate reads.
  LONGEMBED_HF_INVALID_UTF8 = 3,
  LONGEMBED_HF_TOO_LONG = 4,  // Text beyond 4 GiB, which 32-bit offsets cannot reach; or 8 MiB of it in one piece.
  LONGEMBED_HF_NO_SUCH_TOKEN = 5,
  LONGEMBED_HF_ENCODE_FAILED = 6,  // For example: an unknown word, and the vocabulary lacks the unknown token.
  LONGEMBED_HF_PANICKED = 7        // A bug in the crate. `error` may quote the text.
} LongembedHfStatus;

typedef struct LongembedHfTokenizer LongembedHfTokenizer;

// Three arrays of `count` elements. Token i has id ids[i] and covers the bytes [begins[i], ends[i]) of the text, where
// begins[i] <= ends[i] <= length.
typedef void (*LongembedHfTokenSink)(void* context, const int32_t* ids, const uint32_t* begins, const uint32_t* ends,
                                     size_t count);

// UTF-8 without a NUL at its end.
typedef void (*LongembedHfTextSink)(void* context, const char* text, size_t length);

// Reads the bytes of a tokenizer.json. Its truncation and padding are switched off. `*tokenizer` is set if
// and only if the status is LONGEMBED_HF_OK; give it to longembed_hf_close once.
//
// Tokenizing takes some 64 bytes of memory for a byte of text. Where the tokenizer's parts allow it (src/pieces.rs),
// texts are therefore cut, at the first place where that changes nothing, into pieces of `piece_bytes` or a little
// more.
LongembedHfStatus longembed_hf_open(const char* json, size_t size, size_t piece_bytes, LongembedHfTokenizer** tokenizer,
                                    char* error, size_t error_capacity);

// Accepts NULL.
void longembed_hf_close(LongembedHfTokenizer* tokenizer);

// One more than the largest token id, added tokens included.
int32_t longembed_hf_vocabulary_size(const LongembedHfTokenizer* tokenizer);

// Tokens of the text, without the special tokens that the tokenizer's template puts around it. A special token spelt
// out in the text counts as that token, as in every Hugging Face tokenizer. A text that has more than `enough` tokens
// is not looked at to its end: there are more than `enough` then, and they are those of its beginning.
LongembedHfStatus longembed_hf_encode(const LongembedHfTokenizer* tokenizer, const char* text, size_t length,
                                      size_t enough, LongembedHfTokenSink sink, void* context, char* error,
                                      size_t error_capacity);

// A place where the text, which is UTF-8, can be cut so that its two parts have the tokens of the whole: the first one
// at byte `at` or after it, `length` where there is none; the last one at byte `at` or before it, 0 where there is
// none.
size_t longembed_hf_cut_after(const LongembedHfTokenizer* tokenizer, const char* text, size_t length, size_t at);
size_t longembed_hf_cut_before(const LongembedHfTokenizer* tokenizer, const char* text, size_t length, size_t at);

// About how many bytes of memory longembed_hf_encode will take for a text.
size_t longembed_hf_memory(const LongembedHfTokenizer* tokenizer, size_t length, size_t enough);

// The token as the vocabulary spells it ("##ing", "Ġthe").
LongembedHfStatus longembed_hf_token_text(const LongembedHfTokenizer* tokenizer, int32_t id, LongembedHfTextSink sink,
                                          void* context, char* error, size_t error_capacity);

// The text that `count` tokens stand for.
LongembedHfStatus longembed_hf_decode(const LongembedHfTokenizer* tokenizer, const uint32_t* ids, size_t count,
                                      bool skip_special_tokens, LongembedHfTextSink sink, void* context, char* error,
                                      size_t error_capacity);

// Two arrays of `count` elements: sentence i covers the bytes [begins[i], ends[i]).
typedef void (*LongembedHfRangeSink)(void* context, const uint32_t* begins, const uint32_t* ends, size_t count);

// Splits text at the sentence boundaries of Unicode Standard Annex 29. The sentences cover the text without gaps.
LongembedHfStatus longembed_hf_sentences(const char* text, size_t length, LongembedHfRangeSink sink, void* context,
                                         char* error, size_t error_capacity);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // LONGEMBED_MODEL_TEXT_HF_TOKENIZERS_HF_TOKENIZERS_H_
