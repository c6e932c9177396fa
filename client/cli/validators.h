// Checks of flags' values that CLI11 does not make.
#ifndef LONGEMBED_CLIENT_CLI_VALIDATORS_H_
#define LONGEMBED_CLIENT_CLI_VALIDATORS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "absl/strings/str_cat.h"

namespace longembed::client {

// Returns a validator for whole numbers. CLI11 reads 010 as 8, and takes 0x10.
inline CLI::Validator Decimal() {
  const auto check = [](const std::string& text) {
    const bool is_decimal =
        text.find_first_not_of("0123456789") == std::string::npos && (text == "0" || text[0] != '0');
    return is_decimal ? "" : absl::StrCat(text, " is not a decimal number");
  };
  return CLI::Validator(check, "");
}

}  // namespace longembed::client

#endif  // LONGEMBED_CLIENT_CLI_VALIDATORS_H_
