#include "server/security/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// SHA-256 of "hello".
constexpr char kHelloHash[] = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
constexpr char kSecret[] = "Zq7-S3cr3t";

TEST(ApiKeysTest, ReadsPlainAndHashedKeys) {
  const auto keys =
      ParseApiKeys(absl::StrCat("keys:\n- name: plain\n  key: ", kSecret, "\n- {name: hashed, sha256: ", kHelloHash,
                                ", max_queued_tokens: 200000, max_concurrent_calls: 64}\n"
                                "- {name: upper, sha256: ",
                                "5E884898DA28047151D0E56F8DC6292773603D0D6AABBDD62A11EF721D1542D8}\n"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  const ApiKey* const plain = FindApiKey(*keys, kSecret);
  ASSERT_NE(plain, nullptr);
  EXPECT_EQ(plain->name, "plain");
  EXPECT_EQ(plain->max_queued_tokens, 0);
  EXPECT_EQ(plain->max_concurrent_calls, 0);
  const ApiKey* const hashed = FindApiKey(*keys, "hello");
  ASSERT_NE(hashed, nullptr);
  EXPECT_EQ(hashed->name, "hashed");
  EXPECT_EQ(hashed->max_queued_tokens, 200000);
  EXPECT_EQ(hashed->max_concurrent_calls, 64);
  ASSERT_NE(FindApiKey(*keys, "password"), nullptr);
  EXPECT_EQ(FindApiKey(*keys, "password")->name, "upper");
}

TEST(ApiKeysTest, UnknownKeysAreNotFound) {
  const auto keys = ParseApiKeys(absl::StrCat("keys: [{name: a, sha256: ", kHelloHash, "}]"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  for (const char* presented : {"", "hell", "hello ", "Hello", "hellohello", kHelloHash}) {
    EXPECT_EQ(FindApiKey(*keys, presented), nullptr) << presented;
  }
  EXPECT_EQ(FindApiKey(*keys, std::string_view("hello\0", 6)), nullptr);
  EXPECT_EQ(FindApiKey(*keys, std::string(1 << 20, 'x')), nullptr);
}

// There are so many guesses that some of their digests begin like the key's.
TEST(ApiKeysTest, TheWholeDigestCounts) {
  const auto keys = ParseApiKeys(absl::StrCat("keys: [{name: a, sha256: ", kHelloHash, "}]"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  for (int i = 0; i < 200000; ++i) {
    ASSERT_EQ(FindApiKey(*keys, absl::StrCat("guess ", i)), nullptr) << i;
  }
}

struct BadKeys {
  const char* yaml;  // SECRET stands for a key.
  const char* said;
};

class BadKeysTest : public ::testing::TestWithParam<BadKeys> {};

TEST_P(BadKeysTest, AreRefusedWithTheEntryAndWithoutTheKey) {
  std::string yaml = GetParam().yaml;
  for (size_t at = 0; (at = yaml.find("SECRET", at)) != std::string::npos;) yaml.replace(at, 6, kSecret);
  const auto keys = ParseApiKeys(yaml);
  ASSERT_FALSE(keys.ok()) << yaml;
  const std::string message(keys.status().message());
  EXPECT_EQ(keys.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(message, HasSubstr(GetParam().said)) << yaml;
  EXPECT_THAT(message, Not(HasSubstr(kSecret))) << yaml;
  EXPECT_THAT(message, Not(HasSubstr("line 0"))) << yaml;
}

INSTANTIATE_TEST_SUITE_P(
    All, BadKeysTest,
    ::testing::Values(
        BadKeys{"", "must be a mapping"}, BadKeys{"SECRET", "must be a mapping"},
        BadKeys{"- SECRET", "must be a mapping"}, BadKeys{"keys:", "keys is empty"},
        BadKeys{"keys: []", "keys must be a list of at least one"}, BadKeys{"keys: SECRET", "keys must be a list"},
        BadKeys{"keys: {SECRET: 1}", "keys must be a list"},
        BadKeys{"key: [{name: a, key: SECRET}]", "keys is missing"},
        BadKeys{"keys: [{name: a, key: SECRET}]\nSECRET: 1", "line 2: the file has an unknown key; known here: keys"},
        BadKeys{"keys: [SECRET]", "keys[0]"}, BadKeys{"keys: [[SECRET]]", "keys[0]"}, BadKeys{"keys: [~]", "keys[0]"},
        BadKeys{"keys: [{key: SECRET}]", "keys[0].name is missing"},
        BadKeys{"keys: [{name: '', key: SECRET}]", "keys[0].name is missing"},
        BadKeys{"keys: [{name: , key: SECRET}]", "keys[0].name is empty"},
        BadKeys{"keys: [{name: [a], key: SECRET}]", "keys[0].name must be a string"},
        BadKeys{"keys: [{name: a, key: x}, {name: b}]", "keys[1] needs exactly one of key and sha256"},
        BadKeys{"keys: [{name: a, key: SECRET, sha256: SECRET}]", "keys[0] needs exactly one of key and sha256"},
        BadKeys{"keys: [{name: a, key: ''}]", "keys[0].key is empty"},
        BadKeys{"keys: [{name: a, key: }]", "keys[0].key is empty"},
        BadKeys{"keys: [{name: a, key: ~}]", "keys[0].key is empty"},
        BadKeys{"keys: [{name: a, key: [SECRET]}]", "keys[0].key"},
        BadKeys{"keys: [{name: a, sha256: SECRET}]", "keys[0].sha256 must be 64 hexadecimal digits"},
        BadKeys{"keys: [{name: a, sha256: ~}]", "keys[0].sha256 is empty"},
        BadKeys{"keys: [{name: a, sha256: zcf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824}]",
                "keys[0].sha256 must be 64 hexadecimal digits"},
        // This is the hash of the empty text. A caller without a key would match it.
        BadKeys{"keys: [{name: a, sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855}]",
                "keys[0].sha256"},
        BadKeys{"keys: [{name: a, key: SECRET, max_queued_tokens: 0}]", "keys[0].max_queued_tokens must be"},
        BadKeys{"keys: [{name: a, key: SECRET, max_queued_tokens: -5}]", "keys[0].max_queued_tokens must be"},
        BadKeys{"keys: [{name: a, key: SECRET, max_queued_tokens: 1.5}]", "keys[0].max_queued_tokens must be"},
        BadKeys{"keys: [{name: a, key: SECRET, max_queued_tokens: ~}]", "keys[0].max_queued_tokens is empty"},
        BadKeys{"keys: [{name: a, key: SECRET, max_queued_tokens: 010}]", "keys[0].max_queued_tokens must be"},
        BadKeys{"keys: [{name: a, key: SECRET, max_queued_tokens: 99999999999999999999}]",
                "keys[0].max_queued_tokens must be"},
        BadKeys{"keys: [{name: a, key: SECRET, max_concurrent_calls: SECRET}]", "keys[0].max_concurrent_calls must be"},
        BadKeys{"keys: [{name: a, key: SECRET, max_calls: 3}]", "keys[0]"},
        // Without the blank after the colon, the key becomes part of a name.
        BadKeys{"keys: [{name: a, key:SECRET}]", "keys[0]"}, BadKeys{"keys: [{name: a, SECRET}]", "keys[0]"},
        BadKeys{"keys: [{name: a, [SECRET]: x}]", "a key must be text"},
        BadKeys{"keys: [{name: a, key: SECRET, key: x}]", "keys[0] has a key twice"},
        BadKeys{"keys: [{name: a, key: x}]\n--- SECRET", "line 2: a second document begins"},
        BadKeys{"keys: [{name: a, key: &SECRET x}]", "anchors are not supported"},
        BadKeys{"keys: [{name: a, key: !SECRET x}]", "tags are not supported"},
        BadKeys{"keys: [{name: a, key: SECRET}, {name: a, key: x}]", "keys[1].name is a"},
        // The caller would be ambiguous.
        BadKeys{"keys: [{name: a, key: SECRET}, {name: b, key: SECRET}]", "keys[1]"},
        BadKeys{"keys:\n- name: a\n  key: \"SECRET", "line "}, BadKeys{"keys:\n- name: a\n  key: *SECRET", "line 3"},
        BadKeys{"keys:\n- name: a\n\tkey: SECRET", "line "}, BadKeys{"keys: [{name: a, key: @SECRET}]", "line 1"},
        BadKeys{"keys:\n- name: a\n  key: SECRET: SECRET", "line 3"}));

TEST(ApiKeysTest, GarbageIsRefused) {
  EXPECT_FALSE(ParseApiKeys(std::string("\xff\xfe\0\x01 keys: [", 12)).ok());
  EXPECT_FALSE(ParseApiKeys(std::string(100000, '[')).ok());
  EXPECT_FALSE(ParseApiKeys(std::string(100000, '{')).ok());
}

class ApiKeyStoreTest : public ::testing::Test {
 protected:
  ApiKeyStoreTest() { std::filesystem::create_directories(folder_); }
  ~ApiKeyStoreTest() override { std::filesystem::remove_all(folder_); }

  // Replaces the file atomically, as Kubernetes does.
  void Write(const std::string& yaml) {
    std::ofstream(path_ + ".new") << yaml;
    std::filesystem::rename(path_ + ".new", path_);
  }
  absl::StatusOr<std::unique_ptr<ApiKeyStore>> Open() {
    return ApiKeyStore::Open(path_, [this](const absl::Status& status) { reloads_.push_back(status); });
  }
  // Uses the store until it has reported `count` reloads.
  void AwaitReloads(ApiKeyStore& store, size_t count) {
    const absl::Time end = absl::Now() + absl::Seconds(20);
    while (reloads_.size() < count && absl::Now() < end) {
      store.Find("hello");
      absl::SleepFor(absl::Milliseconds(20));
    }
    ASSERT_EQ(reloads_.size(), count);
  }

  const std::string folder_ = absl::StrCat(::testing::TempDir(), "api_keys_", getpid(), "_",
                                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
  const std::string path_ = folder_ + "/keys.yaml";
  std::vector<absl::Status> reloads_;
};

TEST_F(ApiKeyStoreTest, UnreadableFilesAreNamed) {
  const absl::Status missing = Open().status();
  EXPECT_THAT(std::string(missing.message()), HasSubstr(path_));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("No such file"));
  Write(absl::StrCat("keys: [{name: a, key: ", kSecret, ", wrong: 1}]"));
  const std::string broken(Open().status().message());
  EXPECT_THAT(broken, HasSubstr(path_));
  EXPECT_THAT(broken, HasSubstr("keys[0]"));
  EXPECT_THAT(broken, Not(HasSubstr(kSecret)));
  Write("");
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("must be a mapping"));
  std::filesystem::remove(path_);
  std::filesystem::create_directory(path_);
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("Is a directory"));
}

TEST_F(ApiKeyStoreTest, AChangedFileIsReadAgain) {
  Write("keys: [{name: a, key: hello}, {name: b, key: world}]");
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const std::shared_ptr<const ApiKey> old = (*store)->Find("world");
  ASSERT_NE(old, nullptr);
  EXPECT_EQ((*store)->Find("new"), nullptr);
  Write("keys: [{name: a, key: hello}, {name: c, key: new}]");
  AwaitReloads(**store, 1);
  EXPECT_TRUE(reloads_[0].ok()) << reloads_[0];
  ASSERT_NE((*store)->Find("new"), nullptr);
  EXPECT_EQ((*store)->Find("new")->name, "c");
  EXPECT_EQ((*store)->Find("world"), nullptr);
  EXPECT_EQ(old->name, "b");  // A call in flight keeps the key that it found.
}

TEST_F(ApiKeyStoreTest, ABrokenFileLeavesTheOldKeysAndIsReportedOnce) {
  Write("keys: [{name: a, key: hello}]");
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  Write(absl::StrCat("keys: [{name: a, key: ", kSecret));
  AwaitReloads(**store, 1);
  EXPECT_THAT(std::string(reloads_[0].message()), HasSubstr(path_));
  EXPECT_THAT(std::string(reloads_[0].message()), Not(HasSubstr(kSecret)));
  for (int i = 0; i < 25; ++i) {
    EXPECT_NE((*store)->Find("hello"), nullptr);
    absl::SleepFor(absl::Milliseconds(100));
  }
  EXPECT_EQ(reloads_.size(), 1u);
  std::filesystem::remove(path_);
  AwaitReloads(**store, 2);
  EXPECT_FALSE(reloads_[1].ok());
  EXPECT_NE((*store)->Find("hello"), nullptr);
  Write("keys: [{name: a, key: other}]");
  AwaitReloads(**store, 3);
  EXPECT_TRUE(reloads_[2].ok()) << reloads_[2];
  EXPECT_EQ((*store)->Find("hello"), nullptr);
  EXPECT_NE((*store)->Find("other"), nullptr);
}

// A file is seldom written in one step.
TEST_F(ApiKeyStoreTest, AFileThatIsBrokenForAMomentIsNotRejected) {
  bool in_time = false;
  for (int attempt = 0; attempt < 5 && !in_time; ++attempt) {
    reloads_.clear();
    Write("keys: [{name: a, key: hello}]");
    const auto store = Open();
    ASSERT_TRUE(store.ok()) << store.status();
    Write("keys: [{name: a, key: hello}, {name: b");
    const absl::Time begin = absl::Now();
    while (absl::Now() < begin + absl::Seconds(1.3)) {  // The file is read a second after Open at the earliest.
      (*store)->Find("hello");
      absl::SleepFor(absl::Milliseconds(20));
    }
    Write("keys: [{name: a, key: hello}, {name: b, key: world}]");
    in_time = absl::Now() < begin + absl::Seconds(1.9);
    AwaitReloads(**store, 1);
    if (in_time) EXPECT_TRUE(reloads_[0].ok()) << reloads_[0];
  }
  EXPECT_TRUE(in_time);
}

// The file is intact, but for a while the process has no descriptor to open it. A key that was removed must not stay
// valid after that.
TEST_F(ApiKeyStoreTest, AFileThatCannotBeOpenedIsTriedAgain) {
  Write("keys: [{name: a, key: hello}]");
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  Write("keys: [{name: a, key: other}]");
  rlimit limit{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  AwaitReloads(**store, 1);
  for (int i = 0; i < 25; ++i) {
    EXPECT_NE((*store)->Find("hello"), nullptr);
    absl::SleepFor(absl::Milliseconds(100));
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  ASSERT_EQ(reloads_.size(), 1u);  // The other attempts are not reported.
  EXPECT_THAT(std::string(reloads_[0].message()), HasSubstr("Too many open files"));
  AwaitReloads(**store, 2);
  EXPECT_TRUE(reloads_[1].ok()) << reloads_[1];
  EXPECT_EQ((*store)->Find("hello"), nullptr);
}

TEST_F(ApiKeyStoreTest, ChecksFilesWithoutCalls) {
  Write("keys: [{name: a, key: hello}]");
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  Write("keys: [{name: a, key: other}]");
  absl::SleepFor(absl::Milliseconds(1100));
  (*store)->ReloadIfChanged();
  ASSERT_EQ(reloads_.size(), 1u);
  EXPECT_TRUE(reloads_[0].ok()) << reloads_[0];
  EXPECT_EQ((*store)->Find("hello"), nullptr);
}

TEST_F(ApiKeyStoreTest, ReloadReadsAFileThatHasNotChanged) {
  Write("keys: [{name: a, key: hello}]");
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  (*store)->Reload();
  ASSERT_EQ(reloads_.size(), 1u);
  EXPECT_TRUE(reloads_[0].ok()) << reloads_[0];
  EXPECT_NE((*store)->Find("hello"), nullptr);
}

TEST_F(ApiKeyStoreTest, KeysAreFoundWhileTheFileIsReplaced) {
  Write("keys: [{name: a, key: hello}]");
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  std::atomic<bool> stop = false;
  std::vector<std::jthread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      while (!stop) {
        const std::shared_ptr<const ApiKey> found = (*store)->Find("hello");
        ASSERT_NE(found, nullptr);
        ASSERT_EQ(found->name, "a");
      }
    });
  }
  const absl::Time end = absl::Now() + absl::Milliseconds(2500);
  for (int i = 0; absl::Now() < end; ++i) {
    Write(absl::StrCat("keys: [{name: a, key: hello}, {name: b, key: number ", i, "}]"));
    absl::SleepFor(absl::Milliseconds(5));
  }
  stop = true;
  threads.clear();
  EXPECT_GE(reloads_.size(), 1u);
  for (const absl::Status& status : reloads_) EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace longembed
