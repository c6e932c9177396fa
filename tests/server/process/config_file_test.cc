#include "server/process/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/telemetry/log.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ConfigFileTest : public ::testing::Test {
 protected:
  ~ConfigFileTest() override {
    SetLogLevel(LogLevel::kInfo);
    SetLogFormat(LogFormat::kJson);
    std::filesystem::remove(path_);
  }

  void Write(const std::string& yaml) { std::ofstream(path_) << "models: [{path: m}]\n" << yaml; }
  // Reloads the file. Returns the log lines.
  static std::string Reload(ConfigFile& file) {
    ::testing::internal::CaptureStderr();
    file.Reload();
    EXPECT_TRUE(FlushLog(absl::Seconds(20)));
    return ::testing::internal::GetCapturedStderr();
  }

  const std::string path_ = absl::StrCat(::testing::TempDir(), "config_file_", getpid(), ".yaml");
};

TEST_F(ConfigFileTest, TheLogFollowsTheFileAndOtherKeysAreNamed) {
  Write("log: {level: info}\nlimits: {max_queue_wait: 5s}\n");
  ConfigFile file(path_, *ReadConfig(path_));
  EXPECT_EQ(Reload(file), "");
  Write("log: {level: warning}\nlimits: {max_queue_wait: 6s}\nprofiles: {p: {windows: {}}}\n");
  const std::string said = Reload(file);
  EXPECT_THAT(said, HasSubstr("\"in_force\":\"log.level\""));
  EXPECT_THAT(said, HasSubstr("\"after_a_restart\":\"limits.max_queue_wait, profiles.p\""));
  EXPECT_FALSE(LogEnabled(LogLevel::kInfo));
  // The file is compared with the running configuration, not with the previous file.
  Write("log: {level: info, format: text}\nlimits: {max_queue_wait: 5s}\n");
  EXPECT_THAT(Reload(file), HasSubstr("in_force=\"log.format, log.level\"  after_a_restart=\n"));
  EXPECT_TRUE(LogEnabled(LogLevel::kInfo));
}

TEST_F(ConfigFileTest, ABrokenFileChangesNothing) {
  Write("log: {level: info}\n");
  ConfigFile file(path_, *ReadConfig(path_));
  Write("log: {level: loud}\n");
  const std::string said = Reload(file);
  EXPECT_THAT(said, HasSubstr("config reload failed"));
  EXPECT_THAT(said, HasSubstr("log.level must be one of"));
  EXPECT_THAT(said, Not(HasSubstr("config reloaded")));
  EXPECT_TRUE(LogEnabled(LogLevel::kInfo));
}

TEST_F(ConfigFileTest, ChangesSinceTheStartAreSeenAtTheFirstCheck) {
  Write("log: {level: info}\n");
  const ServerConfig running = *ReadConfig(path_);
  Write("log: {level: error}\n");  // The file changes, as it may while models are loaded.
  ConfigFile file(path_, running);
  file.ReloadIfChanged();
  EXPECT_FALSE(LogEnabled(LogLevel::kWarning));
}

// Environment variables still take precedence over the file, so the changes in the file have no effect and are not
// logged.
TEST_F(ConfigFileTest, OverridesApplyToAReloadToo) {
  setenv("LONGEMBED__LIMITS__MAX_QUEUE_WAIT", "7s", 1);
  setenv("LONGEMBED__LOG__LEVEL", "warning", 1);
  Write("log: {level: info}\nlimits: {max_queue_wait: 5s}\n");
  const ServerConfig running = *ReadConfig(path_);
  SetLogLevel(running.log.level);
  ConfigFile file(path_, running);
  Write("log: {level: debug}\nlimits: {max_queue_wait: 6s}\n");
  EXPECT_EQ(Reload(file), "");
  EXPECT_FALSE(LogEnabled(LogLevel::kInfo));
  unsetenv("LONGEMBED__LIMITS__MAX_QUEUE_WAIT");
  unsetenv("LONGEMBED__LOG__LEVEL");
}

TEST_F(ConfigFileTest, SeveralProblemsAreInOneLine) {
  Write("");
  ConfigFile file(path_, *ReadConfig(path_));
  Write("reflection: 1\nchannelz: 2\n");
  EXPECT_THAT(Reload(file), ::testing::ContainsRegex("reflection must be .*; .*channelz must be "));
}

}  // namespace
}  // namespace longembed
