// The C ABI of the Rust crate in this folder. It wraps Hugging Face `tokenizers`, which converts text to ids and byte
// offsets, and Unicode sentence boundaries.
//
//   LongembedHfTokenizer* tokenizer = NULL;
//   char error[256];
//   if (longembed_hf_open(json, size, 64 << 10, &tokenizer, error, sizeof(error)) != LONGEMBED_HF_OK) puts(error);
//   longembed_hf_encode(tokenizer, text, length, SIZE_MAX, NULL, &Collect, &result, error, sizeof(error));
//   longembed_hf_close(tokenizer);
//
// Multiple threads can use one tokenizer without external synchronization, except for longembed_hf_close, which needs
// exclusive access. No function starts threads, reads the environment or prints.
//
// No input makes a function unwind into the caller or abort: a panic is caught and becomes LONGEMBED_HF_PANICKED, and
// the tokenizer stays usable. (Running out of memory aborts, as everywhere in Rust's standard library, except where
// a function can return LONGEMBED_HF_OUT_OF_MEMORY.)
//
// No memory changes owner. Inputs are borrowed for the call. Results are passed to a sink, which is called once (by
// longembed_hf_sentences, as often as needed) if and only if the status is LONGEMBED_HF_OK, on the calling thread and
// before the function returns. The sink's pointers are valid until it returns. A sink must not throw.
//
// `error` receives NUL-terminated UTF-8, truncated to `error_capacity` bytes, unless the status is LONGEMBED_HF_OK. It
// may be NULL if `error_capacity` is 0.
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
  LONGEMBED_HF_BAD_TOKENIZER = 2,  // Not a tokenizer.json that the crate can read.
  LONGEMBED_HF_INVALID_UTF8 = 3,
  // A text of more than 4 GiB, which 32-bit offsets cannot address, or a piece that cannot be cut and may take more
  // than half a gigabyte of memory.
  LONGEMBED_HF_TOO_LONG = 4,
  LONGEMBED_HF_NO_SUCH_TOKEN = 5,
  // The text cannot be encoded. For example, it has an unknown word, and the vocabulary has no unknown token.
  LONGEMBED_HF_ENCODE_FAILED = 6,
  LONGEMBED_HF_PANICKED = 7,  // A bug in the crate. `error` may quote the text.
  // The memory for tokenizing a piece of the text cannot be allocated.
  LONGEMBED_HF_OUT_OF_MEMORY = 8,
  LONGEMBED_HF_MEMORY_REFUSED = 9  // LongembedHfHoldMemory returned false.
} LongembedHfStatus;

typedef struct LongembedHfTokenizer LongembedHfTokenizer;

// Asks whether a call may take `bytes` of memory at once, for the piece that it tokenizes next and the tokens so far.
// Is called before the memory is allocated, on the calling thread. Must not throw.
typedef bool (*LongembedHfHoldMemory)(void* context, size_t bytes);

// Three arrays of `count` elements. Token i has id ids[i] and covers the bytes [begins[i], ends[i]) of the text, where
// begins[i] <= ends[i] <= length.
typedef void (*LongembedHfTokenSink)(void* context, const int32_t* ids, const uint32_t* begins, const uint32_t* ends,
                                     size_t count);

// UTF-8 without a NUL at its end.
typedef void (*LongembedHfTextSink)(void* context, const char* text, size_t length);

// Opens a tokenizer from the contents of a tokenizer.json. Its truncation and padding are disabled. `*tokenizer` is set
// if and only if the status is LONGEMBED_HF_OK; release it with longembed_hf_close.
//
// Tokenizing takes up to 200 bytes of memory per byte of letters, and up to 1,000 per byte of anything else, which may
// be a word of its own. If the tokenizer's parts allow it (src/pieces.rs), texts are therefore cut, where that
// changes no token, into pieces of `piece_bytes` or slightly more.
LongembedHfStatus longembed_hf_open(const char* json, size_t size, size_t piece_bytes, LongembedHfTokenizer** tokenizer,
                                    char* error, size_t error_capacity);

// Releases a tokenizer. Accepts NULL.
void longembed_hf_close(LongembedHfTokenizer* tokenizer);

// Returns one more than the largest token id, added tokens included.
int32_t longembed_hf_vocabulary_size(const LongembedHfTokenizer* tokenizer);

// Tokenizes a text, without the special tokens that the tokenizer's template puts around it. A special token spelled
// out in the text is converted to that token, as in every Hugging Face tokenizer. If the text has more than `enough`
// tokens, its end is checked for UTF-8 but not tokenized: the result then consists of its first tokens, and has more
// than `enough`. `hold` may be NULL; it gets the same context as `sink`.
LongembedHfStatus longembed_hf_encode(const LongembedHfTokenizer* tokenizer, const char* text, size_t length,
                                      size_t enough, LongembedHfHoldMemory hold, LongembedHfTokenSink sink,
                                      void* context, char* error, size_t error_capacity);

// Return a place where the text, which is UTF-8, can be cut so that its two parts together have the tokens of the
// whole. longembed_hf_cut_after returns the first place at byte `at` or later, or `length` if there is none.
// longembed_hf_cut_before returns the last place at byte `at` or earlier, or 0 if there is none.
size_t longembed_hf_cut_after(const LongembedHfTokenizer* tokenizer, const char* text, size_t length, size_t at);
size_t longembed_hf_cut_before(const LongembedHfTokenizer* tokenizer, const char* text, size_t length, size_t at);

// Gives the token as spelled in the vocabulary ("##ing", "Ġthe").
LongembedHfStatus longembed_hf_token_text(const LongembedHfTokenizer* tokenizer, int32_t id, LongembedHfTextSink sink,
                                          void* context, char* error, size_t error_capacity);

// Gives the text of `count` tokens.
LongembedHfStatus longembed_hf_decode(const LongembedHfTokenizer* tokenizer, const uint32_t* ids, size_t count,
                                      bool skip_special_tokens, LongembedHfTextSink sink, void* context, char* error,
                                      size_t error_capacity);

// Two arrays of `count` elements: sentence i covers the bytes [begins[i], ends[i]).
typedef void (*LongembedHfRangeSink)(void* context, const uint32_t* begins, const uint32_t* ends, size_t count);

// Splits text at the sentence boundaries of Unicode Standard Annex 29. The sentences cover the text without gaps. Calls
// the sink with a thousand of them at a time, in order; not at all for an empty text.
LongembedHfStatus longembed_hf_sentences(const char* text, size_t length, LongembedHfRangeSink sink, void* context,
                                         char* error, size_t error_capacity);

#ifdef __cplusplus
}  // extern "C"
#endif

#endif  // LONGEMBED_MODEL_TEXT_HF_TOKENIZERS_HF_TOKENIZERS_H_
