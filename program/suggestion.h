// Suggestions for misspelled words. Pure functions that any thread can call.
//
//   Suggest("--prompt_name", {"--prompt", "--prompt-name"})   // "; did you mean --prompt-name?"
#ifndef LONGEMBED_PROGRAM_SUGGESTION_H_
#define LONGEMBED_PROGRAM_SUGGESTION_H_

#include <string>
#include <string_view>
#include <vector>

namespace longembed {

// Returns the known word with the smallest edit distance to `word`. Case is ignored, and "-" equals "_". Returns "" if
// the distance exceeds a third of the word's length, but a distance of 1 is always accepted.
std::string Nearest(std::string_view word, const std::vector<std::string>& known);

// Returns "; did you mean WORD?", or "" if no known word is near.
std::string Suggest(std::string_view word, const std::vector<std::string>& known);

}  // namespace longembed

#endif  // LONGEMBED_PROGRAM_SUGGESTION_H_
