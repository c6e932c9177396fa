#include "server/process/arguments.h"

#include <algorithm>
#include <functional>
#include <set>
#include <span>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "program/completion.h"
#include "program/man_page.h"
#include "program/suggestion.h"

namespace longembed {
namespace {

constexpr char kName[] = "longembed-server";

// The arguments as given on the command line.
struct Words {
  ServerArguments server;
  bool help = false, version = false, man = false, cpu_features = false;
  std::string completion;  // Name of the shell. Empty: not requested.

  bool asks_for_text() const { return help || version || man || cpu_features || !completion.empty(); }
};

struct Argument {
  ProgramOption option;
  std::function<void(Words&, const std::string& value)> set;
};

const std::vector<Argument>& Table() {
  static const auto& table = *new std::vector<Argument>{
      {{.names = {"--config"},
        .value = "FILE",
        .is_path = true,
        .help = "YAML file with the configuration; deploy/config.yaml shows every key with its default"},
       [](Words& words, const std::string& value) { words.server.config_path = value; }},
      {{.names = {"--check-config"},
        .help = "Check the file of --config and all that it names except the weights of models, and exit. Opens no "
                "port"},
       [](Words& words, const std::string&) { words.server.check_config = true; }},
      {{.names = {"--cpu-features"},
        .help = "Print the instruction sets of the server's own kernels that this processor has, fastest first: values "
                "of the config's cpu_kernels"},
       [](Words& words, const std::string&) { words.cpu_features = true; }},
      {{.names = {"--completion"},
        .value = "SHELL",
        .choices = {"bash", "zsh"},
        .help = "Print a script that completes the arguments"},
       [](Words& words, const std::string& value) { words.completion = value; }},
      {{.names = {"--man"}, .help = "Print the man page: longembed-server --man | man -l -"},
       [](Words& words, const std::string&) { words.man = true; }},
      {{.names = {"--version"}, .help = "Print the version"},
       [](Words& words, const std::string&) { words.version = true; }},
      {{.names = {"--help", "-h"}, .help = "Print this help"},
       [](Words& words, const std::string&) { words.help = true; }},
  };
  return table;
}

std::vector<std::string> AllNames() {
  std::vector<std::string> all;
  for (const Argument& argument : Table()) {
    all.insert(all.end(), argument.option.names.begin(), argument.option.names.end());
  }
  return all;
}

// Returns null if the name is unknown.
const Argument* Find(const std::string& name) {
  const auto found = std::ranges::find_if(
      Table(), [&name](const Argument& argument) { return std::ranges::count(argument.option.names, name) > 0; });
  return found == Table().end() ? nullptr : &*found;
}

absl::Status UnknownArgument(const std::string& word) {
  if (!absl::StartsWith(word, "-")) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected argument ", word, "; a config is given as --config ", word));
  }
  const std::string suggestion = Suggest(word, AllNames());
  return absl::InvalidArgumentError(absl::StrCat(
      "unknown argument ", word,
      suggestion.empty() ? "; ports, models and everything else are keys of the config file, or variables such as "
                           "LONGEMBED__LISTEN"
                         : suggestion));
}

std::string HelpText(const ProgramDescription& program) {
  std::string help = absl::StrCat("usage: ", kName, " [OPTIONS] ", program.needed, "\n", program.summary, "\n\n");
  for (const ProgramOption& option : program.options) {
    const std::string names = absl::StrCat(absl::StrJoin(option.names, ", "), option.value.empty() ? "" : " ",
                                           option.choices.empty() ? option.value : absl::StrJoin(option.choices, "|"));
    absl::StrAppendFormat(&help, "  %-24s %s\n", names, option.help);
  }
  for (const ProgramSection& section : program.sections) {
    absl::StrAppend(&help, "\n", section.title, "\n  ", absl::StrJoin(section.paragraphs, "\n  "), "\n");
  }
  return help;
}

// Parses the arguments. Errors (INVALID_ARGUMENT) name the argument.
absl::StatusOr<Words> ReadWords(std::span<char* const> arguments) {
  Words words;
  std::set<std::string> seen;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string argument = arguments[i];
    const size_t equals = absl::StartsWith(argument, "--") ? argument.find('=') : std::string::npos;
    const std::string name = argument.substr(0, equals);
    const Argument* const known = Find(name);
    if (known == nullptr) return UnknownArgument(name);
    const bool takes_value = !known->option.value.empty(), has_value = equals != std::string::npos;
    if (!seen.insert(known->option.names.front()).second) {
      return absl::InvalidArgumentError(absl::StrCat(name, " is given twice"));
    }
    if (!takes_value && has_value) return absl::InvalidArgumentError(absl::StrCat(name, " takes no value"));
    std::string value = has_value ? argument.substr(equals + 1) : "";
    if (takes_value && !has_value && i + 1 < arguments.size()) value = arguments[++i];
    if (takes_value && (value.empty() || Find(value) != nullptr)) {
      return absl::InvalidArgumentError(absl::StrCat(name, " lacks its value: ", name, " ", known->option.value));
    }
    known->set(words, value);
  }
  if (words.server.config_path.empty() && !words.asks_for_text()) {
    return absl::InvalidArgumentError("--config FILE is missing");
  }
  return words;
}

}  // namespace

ProgramDescription DescribeServer(const std::string& version) {
  ProgramDescription program{
      .name = kName,
      .summary = "serves text embeddings over gRPC and HTTP",
      .version = version,
      .manual_section = 8,
      .needed = "--config FILE",
      .sections = {
          {"EXIT STATUS",
           {"0: the server drained after a signal; with --check-config, nothing wrong was found.",
            "1: something that the config names cannot be used (an address, a certificate, a model), or "
            "the server failed.",
            "2: the arguments, the config itself or an environment variable are wrong."}},
          {"ENVIRONMENT",
           {"LONGEMBED__KEY sets a key of the config and takes precedence over the file: LONGEMBED__LISTEN is listen, "
            "LONGEMBED__LIMITS__MAX_QUEUE_WAIT is limits.max_queue_wait. Models and profiles can be "
            "set only in the file."}},
          {"SIGNALS",
           {"SIGTERM, SIGINT and SIGQUIT drain the server; a second one cuts that short. SIGHUP reads log "
            "settings, certificates and API keys again."}},
      }};
  for (const Argument& argument : Table()) program.options.push_back(argument.option);
  return program;
}

std::variant<ServerArguments, int> HandleArguments(int argc, char* const* argv, const std::string& version,
                                                   const MachineFacts& machine, std::ostream& out, std::ostream& err) {
  const auto fail = [&err](const absl::Status& status) {
    err << kName << ": " << std::string(status.message()) << " (see " << kName << " --help)\n";
    return kExitUsage;
  };
  const ProgramDescription program = DescribeServer(version);
  const absl::StatusOr<Words> words = ReadWords(std::span(argv, argc).subspan(argc > 0 ? 1 : 0));
  if (!words.ok()) return fail(words.status());
  if (!words->asks_for_text()) return words->server;
  absl::StatusOr<std::string> text;
  if (words->help) {
    text = HelpText(program);
  } else if (words->version) {
    text = absl::StrCat(kName, " ", version, " (", machine.libraries, ")\n");
  } else if (words->cpu_features) {
    text = absl::StrCat(absl::StrJoin(machine.cpu_kernels, "\n"), machine.cpu_kernels.empty() ? "" : "\n");
  } else {
    text = words->man ? ManPage(program) : CompletionScript(program, words->completion);
  }
  if (!text.ok()) return fail(text.status());
  out << *text << std::flush;
  return out ? 0 : kExitFailure;
}

}  // namespace longembed
