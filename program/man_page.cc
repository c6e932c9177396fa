#include "program/man_page.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"

namespace longembed {
namespace {

// Escapes text for roff, so that a hyphen is rendered as ASCII "-" and no line is read as a roff request.
std::string Escape(const std::string& text) {
  const std::string escaped = absl::StrReplaceAll(text, {{"\\", "\\e"}, {"-", "\\-"}, {"\n", " "}});
  return escaped.starts_with('.') || escaped.starts_with('\'') ? "\\&" + escaped : escaped;
}

std::string Bold(const std::string& text) { return absl::StrCat("\\fB", Escape(text), "\\fR"); }
std::string Italic(const std::string& text) { return absl::StrCat("\\fI", Escape(text), "\\fR"); }

std::string Signature(const ProgramOption& option) {
  const std::string names = absl::StrJoin(
      option.names, ", ", [](std::string* out, const std::string& name) { absl::StrAppend(out, Bold(name)); });
  if (option.value.empty()) return names;
  const std::string value = option.choices.empty() ? Italic(option.value) : Escape(absl::StrJoin(option.choices, "|"));
  return option.value_optional ? absl::StrCat(names, "[=", value, "]") : absl::StrCat(names, " ", value);
}

void AppendOptions(const std::vector<ProgramOption>& options, std::string& page) {
  for (const ProgramOption& option : options) {
    absl::StrAppend(&page, ".TP\n", Signature(option), "\n", Escape(option.help), "\n");
  }
}

// Returns the command's options without those that the program itself has, such as --help.
std::vector<ProgramOption> OwnOptions(const ProgramCommand& command, const ProgramDescription& program) {
  std::vector<ProgramOption> own = command.options;
  std::erase_if(own, [&program](const ProgramOption& option) {
    return std::ranges::find(program.options, option.names, &ProgramOption::names) != program.options.end();
  });
  return own;
}

std::string Synopsis(const ProgramDescription& program) {
  if (program.commands.empty()) {
    return absl::StrCat(Bold(program.name), " [", Italic("OPTIONS"), "]", program.needed.empty() ? "" : " ",
                        Escape(program.needed), "\n");
  }
  std::string synopsis;
  for (const ProgramCommand& command : program.commands) {
    absl::StrAppend(&synopsis, synopsis.empty() ? "" : ".br\n", Bold(absl::StrCat(program.name, " ", command.name)));
    if (!command.options.empty()) absl::StrAppend(&synopsis, " [", Italic("OPTIONS"), "]");
    if (!command.operands.empty()) absl::StrAppend(&synopsis, " ", Italic(command.operands));
    absl::StrAppend(&synopsis, "\n");
  }
  return synopsis;
}

}  // namespace

std::string ManPage(const ProgramDescription& program) {
  std::string page =
      absl::StrCat(".TH ", absl::AsciiStrToUpper(Escape(program.name)), " ", program.manual_section, " \"\" \"",
                   program.name, " ", program.version, "\"\n.SH NAME\n", Escape(program.name), " \\- ",
                   Escape(program.summary), "\n.SH SYNOPSIS\n", Synopsis(program));
  if (!program.options.empty()) absl::StrAppend(&page, ".SH OPTIONS\n");
  AppendOptions(program.options, page);
  for (const ProgramCommand& command : program.commands) {
    absl::StrAppend(&page, ".SH ", absl::AsciiStrToUpper(Escape(command.name)), "\n", Escape(command.summary), "\n");
    AppendOptions(OwnOptions(command, program), page);
  }
  for (const ProgramSection& section : program.sections) {
    absl::StrAppend(&page, ".SH ", Escape(section.title), "\n");
    for (const std::string& paragraph : section.paragraphs) absl::StrAppend(&page, ".PP\n", Escape(paragraph), "\n");
  }
  return page;
}

}  // namespace longembed
