// Runs the built command as a process. Tests its environment, its signals, and output that cannot be written.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <grpcpp/health_check_service_interface.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/testing/scripted_service.h"

namespace longembed::client {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::string ReadAll(const std::string& path) {
  std::stringstream content;
  content << std::ifstream(path).rdbuf();
  return content.str();
}

class ProcessTest : public ::testing::Test {
 protected:
  // Runs a shell command in which $longembed and $folder are set. Standard error is written to Errors().
  pid_t Start(const std::string& shell) {
    const std::string script = "longembed='" LONGEMBED_CLI "'; folder='" + folder_ + "'; server='--server " +
                               service_.address() + "'; exec 2>" + folder_ + "/errors; " + shell;
    const char* const arguments[] = {"sh", "-c", script.c_str(), nullptr};
    pid_t pid = 0;
    // A test that runs in the background inherits an ignored SIGINT.
    sigset_t signals;
    sigfillset(&signals);
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &signals);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    posix_spawn(&pid, "/bin/sh", nullptr, &attributes, const_cast<char* const*>(arguments), environ);
    posix_spawnattr_destroy(&attributes);
    return pid;
  }
  // Returns the exit status, or 128 + the signal that ended the process.
  static int Wait(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
  int Run(const std::string& shell) { return Wait(Start(shell)); }

  std::string Errors() const { return ReadAll(folder_ + "/errors"); }
  std::string Content(const std::string& file) const { return ReadAll(folder_ + "/" + file); }

  void ServeModel(const std::string& name) {
    v1::ListModelsResponse models;
    models.add_models()->set_name(name);
    service_.set_models(models);
  }

  static std::string MakeFolder() {
    const std::string folder =
        ::testing::TempDir() + "/process_test_" + ::testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    return folder;
  }

  const bool health_ = (grpc::EnableDefaultHealthCheckService(true), true);
  ScriptedService service_;
  const std::string folder_ = MakeFolder();
};

TEST_F(ProcessTest, AProxyIsNotUsedForThisMachine) {
  for (const char* variable : {"http_proxy", "https_proxy", "grpc_proxy"}) {
    for (const char* command : {"health", "models", "embed --text abc"}) {
      EXPECT_EQ(Run(std::string(variable) + "=http://127.0.0.1:9 $longembed " + command + " $server >/dev/null"), 0)
          << variable << " " << command << ": " << Errors();
    }
  }
}

TEST_F(ProcessTest, AnOutputThatCannotBeWrittenIsAnError) {
  ServeModel("small");
  for (const char* command : {"health", "models", "models --output text", "embed --text abc"}) {
    EXPECT_EQ(Run("$longembed " + std::string(command) + " $server >/dev/full"), 1) << command;
    EXPECT_EQ(Errors(), "longembed: the output cannot be written: No space left on device\n") << command;
  }
  EXPECT_EQ(Run("$longembed embed --text abc $server --out /dev/full"), 1);
  EXPECT_EQ(Errors(), "longembed: the output cannot be written: No space left on device\n");
  EXPECT_EQ(Run("$longembed --help >/dev/full"), 1);
  // The output is longer than a stream's buffer, so it fails before it is flushed.
  ServeModel(std::string(100'000, 'x'));
  EXPECT_EQ(Run("$longembed models $server >/dev/full"), 1);
  EXPECT_EQ(Errors(), "longembed: the output cannot be written: No space left on device\n");
  EXPECT_EQ(Run("printf '{\"id\": \"%0100000d\", \"text\": \"abc\"}' 7 | $longembed embed $server >/dev/full"), 1);
  EXPECT_EQ(Errors(), "longembed: the output cannot be written: No space left on device\n");
}

// The descriptor of a closed stream must not be reused for a socket.
TEST_F(ProcessTest, AClosedStreamIsAnError) {
  ServeModel("small");
  for (const char* command : {"health", "models --timeout 5", "embed --text abc"}) {
    EXPECT_EQ(Run("$longembed " + std::string(command) + " $server >&-"), 1) << command;
    EXPECT_EQ(Errors(), "longembed: the output cannot be written: Bad file descriptor\n") << command;
  }
  EXPECT_EQ(Run("$longembed embed $server <&-"), 2);
  EXPECT_EQ(Run("$longembed health $server 2>&- >$folder/out"), 0);
  EXPECT_EQ(Content("out"), "SERVING\n");
}

TEST_F(ProcessTest, AFileThatMayNotGrowIsAnErrorAndIsResumed) {
  EXPECT_EQ(Run("seq 500 >$folder/in; $longembed embed --format text $server --out $folder/whole $folder/in"), 0);
  EXPECT_EQ(Run("ulimit -f 8; $longembed embed --format text $server --out $folder/out $folder/in"), 1);
  EXPECT_EQ(Errors(), "longembed: the output cannot be written: File too large\n");
  EXPECT_EQ(Content("out").size() % 512, 0u);  // The output ends in the middle of a line.
  EXPECT_EQ(Run("$longembed embed --format text $server --out $folder/out --resume $folder/in"), 0) << Errors();
  EXPECT_EQ(Content("out"), Content("whole"));
}

TEST_F(ProcessTest, AClosedReaderIsAnError) {
  EXPECT_EQ(Run("seq 100000 >$folder/in; ($longembed embed --format text $server <$folder/in; echo $? >$folder/status)"
                " | head -n 1 >$folder/out"),
            0);
  EXPECT_EQ(Content("status"), "1\n");
  EXPECT_EQ(Errors(), "longembed: the output cannot be written: Broken pipe\n");
  EXPECT_THAT(Content("out"), StartsWith("{\"id\":1,"));
}

// The signal arrives while the process waits for more input.
TEST_F(ProcessTest, AnInterruptEndsAfterAWholeLineAndIsResumed) {
  EXPECT_EQ(Run("seq 5000 >$folder/in; $longembed embed --format text $server --out $folder/whole $folder/in"), 0);
  ASSERT_EQ(mkfifo((folder_ + "/fifo").c_str(), 0600), 0);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    const pid_t pid = Start("exec $longembed embed --format text $server --out $folder/out <$folder/fifo");
    std::ofstream fifo(folder_ + "/fifo");
    for (int i = 1; i <= 500; ++i) fifo << i << "\n";
    fifo.flush();
    while (Content("out").empty()) usleep(1000);
    kill(pid, signal);
    EXPECT_EQ(Wait(pid), 128 + signal);
    EXPECT_THAT(Content("out"), ::testing::EndsWith("\n"));
    EXPECT_EQ(Content("whole").substr(0, Content("out").size()), Content("out"));
    EXPECT_EQ(Run("$longembed embed --format text $server --out $folder/out --resume $folder/in"), 0) << Errors();
    EXPECT_EQ(Content("out"), Content("whole"));
  }
}

// The line is larger than a pipe, so the process blocks in the middle of it until it is read.
TEST_F(ProcessTest, AnInterruptWaitsForTheLineThatIsBeingWritten) {
  ASSERT_EQ(mkfifo((folder_ + "/fifo").c_str(), 0600), 0);
  const pid_t pid = Start(
      "printf '{\"id\": \"%0300000d\", \"text\": \"abc\"}\\n' 7 >$folder/in;"
      "exec $longembed embed $server $folder/in >$folder/fifo");
  const int fifo = open((folder_ + "/fifo").c_str(), O_RDONLY);
  for (int bytes = 0; bytes < 65536; ioctl(fifo, FIONREAD, &bytes)) usleep(1000);
  kill(pid, SIGINT);
  usleep(100'000);
  std::string out;
  char buffer[4096];
  for (ssize_t bytes = 0; (bytes = read(fifo, buffer, sizeof(buffer))) > 0;) out.append(buffer, bytes);
  close(fifo);
  EXPECT_EQ(Wait(pid), 128 + SIGINT);
  EXPECT_GT(out.size(), 300'000u);
  EXPECT_THAT(out, ::testing::EndsWith("\n"));
}

TEST_F(ProcessTest, ASignalThatTheParentIgnoresIsIgnored) {
  ASSERT_EQ(mkfifo((folder_ + "/fifo").c_str(), 0600), 0);
  const pid_t pid = Start("trap '' HUP; exec $longembed embed --format text $server --out $folder/out <$folder/fifo");
  {
    std::ofstream fifo(folder_ + "/fifo");
    fifo << "a\n" << std::flush;
    while (Content("out").empty()) usleep(1000);
    kill(pid, SIGHUP);
    fifo << "b\n";
  }
  EXPECT_EQ(Wait(pid), 0);
  const std::string out = Content("out");
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2);
}

// The server accepts connections but never answers.
TEST_F(ProcessTest, AServerThatHangsIsAnError) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(listener, 10), 0);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  const std::string flags = " --timeout 1 --server 127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  for (const char* command : {"health", "models", "embed --text abc"}) {
    EXPECT_EQ(Run("$longembed " + std::string(command) + flags), 1) << command;
    EXPECT_THAT(Errors(), HasSubstr("no answer")) << command;
  }
  close(listener);
}

// Every text must be in the output once and in order, although the server is killed repeatedly.
TEST_F(ProcessTest, AServerThatDiesLosesNothing) {
  EXPECT_EQ(Run("seq 300 >$folder/in; $longembed embed --format text $server --out $folder/whole $folder/in"), 0);
  for (const int answers : {0, 1, 100, 7}) service_.BreakNextStreamAfter(answers);
  EXPECT_EQ(Run("$longembed embed --format text $server --out $folder/out $folder/in"), 0) << Errors();
  EXPECT_EQ(Content("out"), Content("whole"));
  EXPECT_THAT(Errors(), IsEmpty());
}

// gRPC's own log would add lines of its own.
TEST_F(ProcessTest, AFailedHandshakeIsOneSentence) {
  // `models` is retried until its timeout, but `health` is not.
  for (const char* command : {"health", "models --timeout 1", "embed --text a --timeout 3"}) {
    EXPECT_EQ(Run("$longembed " + std::string(command) + " --tls $server"), 1);
    EXPECT_EQ(Errors(),
              "longembed: the server " + service_.address() +
                  " does not speak TLS: leave out --tls and the flags for certificates, or give the port that "
                  "does\n");
  }
  EXPECT_EQ(Run("GRPC_VERBOSITY=error $longembed health --tls $server"), 1);
  EXPECT_THAT(Errors(), HasSubstr("ssl_transport_security.cc"));
}

TEST_F(ProcessTest, AnAbsentServerIsOneSentence) {
  for (const char* command : {"health", "models --timeout 1", "embed --timeout 3 --text abc"}) {
    EXPECT_EQ(Run("$longembed " + std::string(command) + " --server 127.0.0.1:1"), 1);
    EXPECT_EQ(
        Errors(),
        "longembed: the server 127.0.0.1:1 refuses the connection: is the server running, and is --server right?\n");
  }
}

TEST_F(ProcessTest, AUrlIsNotAnAddress) {
  for (const char* url : {"http://127.0.0.1:50051", "HTTPS://embed.example"}) {
    const std::string why = std::string(url) + " is a URL; give HOST:PORT of gRPC, and --tls if it has TLS\n";
    EXPECT_EQ(Run("$longembed models --server " + std::string(url)), 2);
    EXPECT_EQ(Errors(), "longembed: --server: " + why);
    EXPECT_EQ(Run("LONGEMBED_SERVER=" + std::string(url) + " $longembed models"), 2);
    EXPECT_EQ(Errors(), "longembed: LONGEMBED_SERVER: " + why);
  }
}

TEST_F(ProcessTest, WrongArgumentsAreOneSentence) {
  for (const auto& [arguments, why] :
       {std::pair{"embed --windows --profile a --text b", "--windows excludes --profile"},
        {"embed $folder/absent", "File does not exist"},
        {"embed --encoding float8 --text a", "--encoding: float8 not in"}}) {
    EXPECT_EQ(Run("$longembed " + std::string(arguments)), 2);
    EXPECT_THAT(Errors(), StartsWith("longembed: "));
    EXPECT_THAT(Errors(), HasSubstr(why));
    EXPECT_THAT(Errors(), EndsWith(" (see longembed --help)\n"));
  }
}

// Tests input in the formats of various editors and systems.
TEST_F(ProcessTest, UnusualInput) {
  const struct {
    const char* content;  // An argument of printf.
    int status, lines;
    const char* what;  // A part of the output or of the errors.
  } rows[] = {
      {"", 0, 0, ""},
      {"\\n \\t\\n\\r\\n", 0, 0, ""},
      {"\\357\\273\\277{\"id\": 1, \"text\": \"a\"}\\r\\n{\"id\": 1, \"text\": \"bb\"}", 0, 2,
       "{\"id\":1,\"embedding\":[2]"},
      {"{\"text\": \"a\\000\"}\\n", 2, 0,
       "line 1: not a JSON object (at byte 12: invalid string: control character U+0000"},
      {"{\"text\": \"a\"} {\"text\": \"b\"}\\n", 2, 0, "line 1: not a JSON object (at byte 15: unexpected '{'"},
      {"{\"text\": NaN}\\n", 2, 0, "line 1: not a JSON object (at byte 10: invalid literal"},
      {"\"text\"\\n", 2, 0, "line 1: not a JSON object; each line is {"},
      {"{\"text\": \"a\"}\\n\\376\\377\\n", 2, 1, "line 2: not UTF-8: byte at index 0: 0xFE"},
  };
  for (const auto& row : rows) {
    const std::string where = std::string("'") + row.content + "'";
    EXPECT_EQ(Run("printf " + where + " >$folder/in; $longembed embed $server $folder/in >$folder/out"), row.status)
        << where;
    const std::string out = Content("out");
    EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), row.lines) << where;
    EXPECT_THAT(out + Errors(), HasSubstr(row.what)) << where;
  }
}

TEST_F(ProcessTest, TextLinesMayHoldNul) {
  EXPECT_EQ(Run("printf 'a\\000b\\n' | $longembed embed --format text $server >$folder/out"), 0) << Errors();
  EXPECT_THAT(Content("out"), HasSubstr("\"embedding\":[3]"));
}

TEST_F(ProcessTest, AFolderInPlaceOfAFileIsNamed) {
  EXPECT_EQ(Run("$longembed embed $server $folder"), 2);
  EXPECT_THAT(Errors(), HasSubstr("File is actually a directory: " + folder_));
  EXPECT_EQ(Run("$longembed embed $server --text a --out $folder"), 2);
  EXPECT_EQ(Errors(), "longembed: --out: " + folder_ + " cannot be written: Is a directory\n");
  EXPECT_EQ(Run("$longembed embed $server <$folder"), 2);
  EXPECT_THAT(Errors(), HasSubstr("standard input cannot be read"));
}

// A shell's redirection hides the name of the file, and a matrix has a second file next to it.
TEST_F(ProcessTest, NoInputIsOverwritten) {
  const std::string texts = "printf '{\"text\": \"a\"}\\n'";
  for (const char* arguments : {"--out $folder/in <$folder/in", "--out $folder/in --resume <$folder/in",
                                "--out $folder/in - <$folder/in", "--out $folder/link <$folder/in"}) {
    EXPECT_EQ(Run(texts + " >$folder/in; ln -sf in $folder/link; $longembed embed $server " + arguments), 2);
    EXPECT_THAT(Errors(), HasSubstr(" is an input, too")) << arguments;
    EXPECT_EQ(Content("in"), "{\"text\": \"a\"}\n") << arguments;
  }
  EXPECT_EQ(Run(texts + " >$folder/a.npy.jsonl; $longembed embed $server --out $folder/a.npy $folder/a.npy.jsonl"), 2);
  EXPECT_EQ(Errors(), "longembed: --out: " + folder_ + "/a.npy.jsonl is an input, too\n");
  EXPECT_EQ(Content("a.npy.jsonl"), "{\"text\": \"a\"}\n");
  EXPECT_EQ(Run("$longembed embed $server --text a --out $folder/in <$folder/in"), 0) << Errors();
}

// After an interrupt, the matrix and the JSON lines must agree.
TEST_F(ProcessTest, AnInterruptedMatrixIsWhole) {
  ASSERT_EQ(mkfifo((folder_ + "/fifo").c_str(), 0600), 0);
  const pid_t pid = Start("exec $longembed embed --format text $server --out $folder/a.npy <$folder/fifo");
  std::ofstream fifo(folder_ + "/fifo");
  for (int i = 1; i <= 100; ++i) fifo << i << "\n";
  fifo.flush();
  while (Content("a.npy.jsonl").empty()) usleep(1000);
  kill(pid, SIGINT);
  EXPECT_EQ(Wait(pid), 128 + SIGINT);
  const std::string lines = Content("a.npy.jsonl"), matrix = Content("a.npy");
  const std::string rows = std::to_string(std::count(lines.begin(), lines.end(), '\n'));
  EXPECT_THAT(matrix, HasSubstr("'shape': (" + rows + ", 1)"));
  EXPECT_EQ(matrix.size(), 128 + 4 * std::stoul(rows));
}

TEST_F(ProcessTest, BashTakesItsCompletion) {
  EXPECT_EQ(Run("$longembed completion bash >$folder/c && bash --norc -c \"compopt() { :; }; . $folder/c; "
                "COMP_WORDS=(longembed embed --truncate ''); COMP_CWORD=3; _longembed; echo \\${COMPREPLY[*]}\" "
                ">$folder/out"),
            0)
      << Errors();
  EXPECT_EQ(Content("out"), "none end start\n");
}

}  // namespace
}  // namespace longembed::client
