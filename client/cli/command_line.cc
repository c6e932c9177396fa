#include "client/cli/command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cli/describe_app.h"
#include "client/cli/extension_flags.h"
#include "client/cli/validators.h"
#include "program/completion.h"
#include "program/man_page.h"
#include "system/return_if_error.h"

namespace longembed::client {
namespace {

using v1::EmbedOptions;

constexpr char kFile[] = "FILE";
constexpr double kTimeoutSeconds = 300;
constexpr double kHealthTimeoutSeconds = 5;  // A server that hangs is not healthy.

// Returns a validator for positive numbers. CLI11 takes not-a-number, too.
CLI::Validator PositiveNumber() {
  const auto check = [](const std::string& text) {
    double number = 0;
    return absl::SimpleAtod(text, &number) && number > 0 ? "" : absl::StrCat(text, " is not a number above 0");
  };
  return CLI::Validator(check, "POSITIVE");
}

CLI::Validator ReadableFile() {
  const auto check = [](std::string& file) { return file == kStandardInput ? "" : CLI::ExistingFile(file); };
  return CLI::Validator(check, "", "READABLE");
}

// The values that CLI11 fills. They are converted to Arguments after parsing.
struct Raw {
  std::string server, root_certificates_file, client_certificate_file, client_key_file, api_key_file;
  bool tls = false;
  std::optional<double> timeout_seconds;
  std::string input_type, truncate = "none", encoding = "float32", priority = "interactive";
  ExtensionFlags extension;
  std::string prompt_name, prompt, model, output = "json", format = "json";
  uint32_t dimensions = 0;
  std::optional<uint32_t> max_tokens;
  bool has_prompt = false, has_dimensions = false, force_dimensions = false, no_normalize = false;
};

void AddConnection(CLI::App& command, Raw& raw, double timeout_seconds = kTimeoutSeconds) {
  // CLI11's own envname is not used: all commands share `raw`, and every command that is not called would overwrite the
  // flag.
  command.add_option("--server", raw.server, "HOST:PORT; takes precedence over the variable LONGEMBED_SERVER")
      ->default_str(ClientOptions().server);
  command.add_flag("--tls", raw.tls, "Use TLS");
  command
      .add_option("--root-certificates", raw.root_certificates_file,
                  "PEM file with the authorities to trust; implies --tls")
      ->type_name(kFile);
  auto* certificate =
      command
          .add_option("--client-certificate", raw.client_certificate_file,
                      "PEM file with this client's certificate, for servers that require one; implies --tls")
          ->type_name(kFile);
  auto* key = command.add_option("--client-key", raw.client_key_file, "PEM file with the key of that certificate")
                  ->type_name(kFile);
  certificate->needs(key);
  key->needs(certificate);
  command.add_option("--api-key-file", raw.api_key_file, "File whose first line is the API key")->type_name(kFile);
  command.add_option("--timeout", raw.timeout_seconds, "Maximum seconds without an answer, retries included")
      ->check(PositiveNumber())
      ->default_str(absl::StrCat(timeout_seconds));
  command.add_option("--output", raw.output, "json, or text for people")
      ->check(CLI::IsMember({"json", "text"}))
      ->capture_default_str();
}

void AddTexts(CLI::App& command, Raw& raw, Arguments& arguments) {
  auto* text = command
                   .add_option("--text", arguments.source.texts,
                               "A text to process; may be repeated. Without it, the files or standard input are read")
                   ->allow_extra_args(false);
  command
      .add_option("--format", raw.format,
                  "json: lines of {\"id\":..., \"text\":..., \"ranges\":[[start,end],...]}; text: every line is a text")
      ->check(CLI::IsMember({"json", "text"}))
      ->capture_default_str();
  command.add_option("files", arguments.source.files, "Files to read; - is standard input")
      ->type_name(kFile)
      ->check(ReadableFile())
      ->excludes(text);
}

void AddEmbedOptions(CLI::App& command, Raw& raw) {
  command.add_option("--model", raw.model, "Name of the model; optional if the server has only one");
  auto* prompts = command.add_option_group("prompt", "At most one");
  prompts->add_option("--prompt-name", raw.prompt_name, "A prompt of the model, such as query or passage");
  prompts->add_option("--input-type", raw.input_type, "query or document")->check(CLI::IsMember({"query", "document"}));
  prompts->add_option("--prompt", raw.prompt, "A literal prompt; an empty one asks for no prompt")
      ->each([&raw](const std::string&) { raw.has_prompt = true; });
  prompts->require_option(0, 1);
  command.add_option("--truncate", raw.truncate, "How to cut a text that is too long: none (refuse it), end, start")
      ->check(CLI::IsMember({"none", "end", "start"}))
      ->capture_default_str();
  command
      .add_option(
          "--max-tokens", raw.max_tokens,
          "Maximum tokens of a text, prompt included; --truncate cuts a longer one before any extension applies")
      ->check(Decimal());
  raw.extension.AddTo(command);
  command.add_option("--dimensions", raw.dimensions, "Keep the first N components")
      ->check(Decimal())
      ->each([&raw](const std::string&) { raw.has_dimensions = true; });
  command.add_flag("--force-dimensions", raw.force_dimensions, "Allow --dimensions that the model is not trained for");
  command.add_flag("--no-normalize", raw.no_normalize, "Do not scale vectors to length 1");
  command.add_option("--encoding", raw.encoding, "float32, float16, bfloat16, int8, binary")
      ->check(CLI::IsMember({"float32", "float16", "bfloat16", "int8", "binary"}))
      ->capture_default_str();
  command.add_option("--priority", raw.priority, "interactive or bulk")
      ->check(CLI::IsMember({"interactive", "bulk"}))
      ->capture_default_str();
}

absl::Status EmptyValue(const std::string& name) {
  return absl::InvalidArgumentError(absl::StrCat(name, ": the value is empty"));
}

// Checks that no option has an empty value, which a script gives for a variable that is not set. The option would be
// ignored: without the file of --root-certificates, even TLS. Checks that values are UTF-8, except those of --text,
// whose errors may be answers, and those that the server does not get. Errors: INVALID_ARGUMENT.
absl::Status CheckValues(const CLI::App& app) {
  for (const CLI::Option* const option : app.get_options()) {
    const std::string name = option->get_name();
    if (name == "--text") continue;
    const bool is_sent = !absl::StrContains(option->get_type_name(), kFile) && name != "--server";
    for (const std::string& value : option->results()) {
      if (value.empty() && name != "--prompt") return EmptyValue(name);
      const absl::Status utf8 = is_sent ? TextInput(value).status() : absl::OkStatus();
      if (!utf8.ok()) return absl::InvalidArgumentError(absl::StrCat(name, ": ", utf8.message()));
    }
  }
  for (const CLI::App* const below : app.get_subcommands({})) RETURN_IF_ERROR(CheckValues(*below));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream content;
  if (!(content << file.rdbuf())) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  return content.str();
}

absl::Status FillConnection(const Raw& raw, Arguments& arguments) {
  const char* const from_environment = std::getenv("LONGEMBED_SERVER");
  if (from_environment != nullptr && *from_environment != '\0') arguments.client.server = from_environment;
  if (!raw.server.empty()) arguments.client.server = raw.server;
  for (const char* const scheme : {"http://", "https://"}) {
    if (!absl::StartsWithIgnoreCase(arguments.client.server, scheme)) continue;
    return absl::InvalidArgumentError(absl::StrCat(raw.server.empty() ? "LONGEMBED_SERVER" : "--server", ": ",
                                                   arguments.client.server,
                                                   " is a URL; give HOST:PORT of gRPC, and --tls if it has TLS"));
  }
  arguments.client.tls = raw.tls || !raw.root_certificates_file.empty() || !raw.client_certificate_file.empty();
  for (const auto& [file, content] : {std::pair{&raw.root_certificates_file, &arguments.client.root_certificates},
                                      std::pair{&raw.client_certificate_file, &arguments.client.client_certificate},
                                      std::pair{&raw.client_key_file, &arguments.client.client_key}}) {
    if (file->empty()) continue;
    absl::StatusOr<std::string> pem = ReadFile(*file);
    if (!pem.ok()) return pem.status();
    *content = *std::move(pem);
  }
  if (!raw.api_key_file.empty()) {
    const absl::StatusOr<std::string> content = ReadFile(raw.api_key_file);
    if (!content.ok()) return content.status();
    arguments.client.api_key = content->substr(0, content->find_first_of("\r\n"));
    if (arguments.client.api_key.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--api-key-file: the first line of ", raw.api_key_file, " is empty"));
    }
  }
  return absl::OkStatus();
}

// Fills `options`. CLI11 has already refused unknown words.
absl::Status FillOptions(const Raw& raw, EmbedOptions& options) {
  const auto upper = [](std::string word) {
    for (char& c : word) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    return word;
  };
  options.set_model(raw.model);
  if (!raw.prompt_name.empty()) options.set_prompt_name(raw.prompt_name);
  if (raw.has_prompt) options.set_prompt(raw.prompt);
  EmbedOptions::InputType input_type;
  if (EmbedOptions::InputType_Parse(upper(raw.input_type), &input_type)) options.set_input_type(input_type);
  EmbedOptions::Truncate truncate = EmbedOptions::NONE;
  EmbedOptions::Truncate_Parse(upper(raw.truncate), &truncate);
  options.set_truncate(truncate);
  if (raw.max_tokens.has_value()) options.set_max_tokens(*raw.max_tokens);
  EmbedOptions::Encoding encoding = EmbedOptions::FLOAT32;
  EmbedOptions::Encoding_Parse(upper(raw.encoding), &encoding);
  options.set_encoding(encoding);
  options.set_priority(raw.priority == "bulk" ? EmbedOptions::BULK : EmbedOptions::INTERACTIVE);
  if (raw.has_dimensions) options.set_dimensions(raw.dimensions);
  options.set_force_dimensions(raw.force_dimensions);
  if (raw.no_normalize) options.set_normalize(false);
  return raw.extension.Fill(options);
}

}  // namespace

absl::Status CheckCount(int results, size_t inputs) {
  if (static_cast<size_t>(results) == inputs) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("the server answered ", inputs, " inputs with ", results, " results"));
}

absl::Status WriteOutput(const std::string& text, std::ostream& out) {
  errno = 0;
  if (out << text << std::flush) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("the output cannot be written", errno != 0 ? absl::StrCat(": ", std::strerror(errno)) : ""));
}

int PrintError(const absl::Status& status, const Streams& streams, int exit_status) {
  streams.err << "longembed: " << std::string(status.message()) << "\n";
  return exit_status;
}

namespace {

// The commands, and the variables that their flags fill.
class CommandLine {
 public:
  CommandLine();

  // Returns the exit status.
  int Run(int argc, const char* const* argv, const Streams& streams);

 private:
  void AddInspectCommands();
  // Converts `raw` to Arguments. Errors: INVALID_ARGUMENT.
  absl::Status FillArguments();
  int RunCommand(const Streams& streams);
  // Prints the help, or explains arguments that CLI11 refused. Returns the exit status.
  int End(const CLI::ParseError& error, const std::vector<std::string>& words, const Streams& streams);
  ProgramDescription Describe() const;

  CLI::App app_{"Embeds texts with a longembed server", "longembed"};
  Raw raw_;
  Arguments arguments_;
  std::string shell_;
  CLI::App& embed_ = *app_.add_subcommand(
      "embed", "Embed texts: read one JSON object per line, write one per line, in the same order");
  CLI::App& explain_ =
      *app_.add_subcommand("explain", "Show the plan that embed would follow, without running the model");
  CLI::App& tokenize_ = *app_.add_subcommand("tokenize", "Split texts into tokens");
  CLI::App& models_ = *app_.add_subcommand("models", "List the models of the server");
  CLI::App& health_ =
      *app_.add_subcommand("health", "Check whether the server is serving: exit status 0 if it is, else 1");
  CLI::App& completion_ = *app_.add_subcommand("completion", "Print a script that completes arguments in a shell");
  CLI::App& man_ = *app_.add_subcommand("man", "Print the man page: longembed man | man -l -");
};

CommandLine::CommandLine() {
  app_.require_subcommand(1);
  app_.set_version_flag("--version", absl::StrCat("longembed ", LONGEMBED_VERSION), "Print the version");
  for (CLI::App* command : {&embed_, &explain_, &tokenize_, &models_}) AddConnection(*command, raw_);
  AddInspectCommands();
  for (CLI::App* command : {&embed_, &explain_, &tokenize_}) AddTexts(*command, raw_, arguments_);
  for (CLI::App* command : {&embed_, &explain_}) AddEmbedOptions(*command, raw_);
  embed_.add_flag("--partial", arguments_.partial,
                  "Write an error line for a text that fails, and continue with the others (exit status 3)");
  embed_.add_option("--in-flight", arguments_.in_flight, "Maximum number of texts without an answer")
      ->check(Decimal())
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  auto* out = embed_
                  .add_option("--out", arguments_.out_file,
                              "File to write to instead of standard output; overwritten unless --resume. FILE.npy: a "
                              "matrix for NumPy, with the ids and rows of the texts in FILE.npy.jsonl")
                  ->type_name(kFile);
  embed_
      .add_flag("--resume", arguments_.resume,
                "Append to the file of --out, and skip one text for each answer there with the same id")
      ->needs(out);
}

void CommandLine::AddInspectCommands() {
  AddConnection(health_, raw_, kHealthTimeoutSeconds);
  health_.add_option("--service", arguments_.health_service,
                     "A service of grpc.health.v1. Default: the server as a whole");
  tokenize_.add_option("--model", raw_.model, "Name of the model; optional if the server has only one");
  completion_.add_option("shell", shell_, "The shell")->required()->check(CLI::IsMember({"bash", "zsh"}));
}

ProgramDescription CommandLine::Describe() const {
  ProgramDescription program = DescribeApp(app_);
  program.version = LONGEMBED_VERSION;
  program.sections = {
      {"EXIT STATUS",
       {"0: everything was done.", "1: a request, the connection or writing the output failed.",
        "2: wrong arguments, or without --partial an invalid line of input.",
        "3: with --partial, some texts or lines failed; with --resume, in this run or an earlier one."}},
      {"ENVIRONMENT",
       {"LONGEMBED_SERVER: HOST:PORT of the server, where --server is not given.",
        "GRPC_VERBOSITY: gRPC's own log on standard error (debug, info or error); none unless it is set."}}};
  return program;
}

int CommandLine::End(const CLI::ParseError& error, const std::vector<std::string>& words, const Streams& streams) {
  if (error.get_exit_code() != 0) {
    std::string why = ExplainMisuse(Describe(), words);
    if (why.empty()) why = absl::StrCat(error.what(), " (see longembed --help)");
    return PrintError(absl::InvalidArgumentError(why), streams, kExitUsage);
  }
  std::ostringstream help;
  app_.exit(error, help, streams.err);
  const absl::Status written = WriteOutput(help.str(), streams.out);
  return written.ok() ? kExitOk : PrintError(written, streams);
}

absl::Status CommandLine::FillArguments() {
  RETURN_IF_ERROR(CheckValues(app_));
  arguments_.call.timeout =
      absl::Seconds(raw_.timeout_seconds.value_or(health_.parsed() ? kHealthTimeoutSeconds : kTimeoutSeconds));
  arguments_.text_output = raw_.output == "text";
  arguments_.source.format = raw_.format == "text" ? LineFormat::kText : LineFormat::kJson;
  RETURN_IF_ERROR(FillConnection(raw_, arguments_));
  return FillOptions(raw_, arguments_.options);
}

int CommandLine::Run(int argc, const char* const* argv, const Streams& streams) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return End(error, words, streams);
  }
  const std::string empty = FindEmptyFlag(Describe(), words);
  if (!empty.empty()) return PrintError(EmptyValue(empty), streams, kExitUsage);
  if (const absl::Status status = FillArguments(); !status.ok()) return PrintError(status, streams, kExitUsage);
  return embed_.parsed() ? RunEmbed(arguments_, streams) : RunCommand(streams);
}

int CommandLine::RunCommand(const Streams& streams) {
  std::ostringstream answer;
  int exit_status = kExitOk;
  if (man_.parsed()) {
    answer << ManPage(Describe());
  } else if (completion_.parsed()) {
    answer << *CompletionScript(Describe(), shell_);
  } else {
    const auto run = explain_.parsed()    ? RunExplain
                     : tokenize_.parsed() ? RunTokenize
                     : health_.parsed()   ? RunHealth
                                          : RunModels;
    exit_status = run(arguments_, {.in = streams.in, .out = answer, .err = streams.err});
  }
  const absl::Status written = WriteOutput(answer.str(), streams.out);
  return written.ok() ? exit_status : PrintError(written, streams);
}

}  // namespace

int RunCommandLine(int argc, const char* const* argv, const Streams& streams) {
  return CommandLine().Run(argc, argv, streams);
}

}  // namespace longembed::client
