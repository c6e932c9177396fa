#include "server/security/certificates.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace longembed {
namespace {

using ::testing::HasSubstr;

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Key MakeKey() { return {EVP_EC_gen("P-256"), &EVP_PKEY_free}; }

std::string Pem(const std::function<void(BIO*)>& write) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> bio(BIO_new(BIO_s_mem()), &BIO_free);
  write(bio.get());
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<size_t>(size)};
}

std::string KeyPem(const Key& key, const char* passphrase = nullptr) {
  return Pem([&](BIO* bio) {
    const EVP_CIPHER* const cipher = passphrase == nullptr ? nullptr : EVP_aes_128_cbc();
    const auto* const bytes = reinterpret_cast<const unsigned char*>(passphrase);
    const int size = passphrase == nullptr ? 0 : static_cast<int>(std::string(passphrase).size());
    PEM_write_bio_PrivateKey(bio, key.get(), cipher, bytes, size, nullptr, nullptr);
  });
}

// Returns a self-signed certificate. It is valid from `begin` to `left` from now.
std::string CertificatePem(const Key& key, absl::Duration left = absl::Hours(24),
                           absl::Duration begin = -absl::Hours(72)) {
  static long serial = 1;
  const std::unique_ptr<X509, decltype(&X509_free)> certificate(X509_new(), &X509_free);
  X509_set_version(certificate.get(), X509_VERSION_3);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate.get()), serial++);
  X509_gmtime_adj(X509_getm_notBefore(certificate.get()), static_cast<long>(absl::ToInt64Seconds(begin)));
  X509_gmtime_adj(X509_getm_notAfter(certificate.get()), static_cast<long>(absl::ToInt64Seconds(left)));
  X509_set_pubkey(certificate.get(), key.get());
  X509_NAME* const name = X509_get_subject_name(certificate.get());
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
  X509_set_issuer_name(certificate.get(), name);
  X509_sign(certificate.get(), key.get(), EVP_sha256());
  return Pem([&](BIO* bio) { PEM_write_bio_X509(bio, certificate.get()); });
}

constexpr char kGarbage[] = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";

class CertificatesTest : public ::testing::Test {
 protected:
  CertificatesTest() {
    std::filesystem::create_directories(folder_);
    Write(paths_.certificate, CertificatePem(key_));
    Write(paths_.key, KeyPem(key_));
  }
  ~CertificatesTest() override { std::filesystem::remove_all(folder_); }

  static void Write(const std::string& path, const std::string& content) { std::ofstream(path) << content; }

  // Returns why loading is refused. Checks that OpenSSL's error queue stays empty, because gRPC reads it on the same
  // thread.
  std::string Refusal() {
    const absl::Status status = LoadCertificates(paths_, absl::Now()).status();
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(ERR_peek_error(), 0u) << status;
    return std::string(status.message());
  }

  const std::string folder_ = absl::StrCat(::testing::TempDir(), "certificates_", getpid(), "_",
                                           ::testing::UnitTest::GetInstance()->current_test_info()->name());
  CertificatePaths paths_{.certificate = folder_ + "/tls.crt", .key = folder_ + "/tls.key"};
  const Key key_ = MakeKey();
};

TEST_F(CertificatesTest, LoadsAPair) {
  const auto loaded = LoadCertificates(paths_, absl::Now());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->certificate, HasSubstr("BEGIN CERTIFICATE"));
  EXPECT_THAT(loaded->key, HasSubstr("PRIVATE KEY"));
  EXPECT_EQ(loaded->client_ca, "");
  EXPECT_GT(loaded->not_after, absl::Now() + absl::Hours(23));
  EXPECT_LT(loaded->not_after, absl::Now() + absl::Hours(25));
  EXPECT_GT(loaded->not_before, absl::Now() - absl::Hours(73));
  EXPECT_LT(loaded->not_before, absl::Now() - absl::Hours(71));
  EXPECT_EQ(ERR_peek_error(), 0u);
}

TEST_F(CertificatesTest, LoadsAChainAndClientAuthorities) {
  paths_.client_ca = folder_ + "/ca.crt";
  const Key other = MakeKey();
  Write(paths_.certificate, "a line in front\n" + CertificatePem(key_) + CertificatePem(other));
  Write(paths_.client_ca, CertificatePem(MakeKey()) + "\n" + CertificatePem(other));
  const auto loaded = LoadCertificates(paths_, absl::Now());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_NE(loaded->client_ca, "");
  EXPECT_EQ(ERR_peek_error(), 0u);
}

TEST_F(CertificatesTest, MissingFilesAreNamed) {
  for (std::string* path : {&paths_.certificate, &paths_.key, &paths_.client_ca}) {
    const std::string before = std::exchange(*path, folder_ + "/absent");
    EXPECT_THAT(Refusal(), HasSubstr(folder_ + "/absent"));
    EXPECT_THAT(Refusal(), HasSubstr("No such file"));
    *path = before;
  }
}

TEST_F(CertificatesTest, AKeyOfAnotherCertificateIsRefused) {
  Write(paths_.key, KeyPem(MakeKey()));
  EXPECT_THAT(Refusal(), HasSubstr("does not belong"));
  EXPECT_THAT(Refusal(), HasSubstr(paths_.key));
  EXPECT_THAT(Refusal(), HasSubstr(paths_.certificate));
}

// OpenSSL, which makes the handshakes, refuses short keys: the server would start, and serve nobody.
TEST_F(CertificatesTest, AWeakCertificateIsRefused) {
  const Key weak(EVP_RSA_gen(512), &EVP_PKEY_free);
  Write(paths_.certificate, CertificatePem(key_) + CertificatePem(weak));
  EXPECT_THAT(Refusal(), HasSubstr("the intermediate certificates in " + paths_.certificate + ": ca key too small"));
  Write(paths_.certificate, CertificatePem(weak));
  Write(paths_.key, KeyPem(weak));
  EXPECT_THAT(Refusal(), HasSubstr("the certificate in " + paths_.certificate + ": ee key too small"));
}

// As where openssl.cnf asks for FIPS, and the module is missing.
TEST_F(CertificatesTest, AnOpenSslWithoutCiphersIsRefused) {
  ASSERT_EQ(EVP_set_default_properties(nullptr, "fips=yes"), 1);
  const std::string refusal = Refusal();
  EVP_set_default_properties(nullptr, "");
  EXPECT_THAT(refusal, HasSubstr("OpenSSL cannot make a TLS context: library has no ciphers"));
  EXPECT_TRUE(LoadCertificates(paths_, absl::Now()).ok());
}

TEST_F(CertificatesTest, AnExpiredCertificateIsRefused) {
  Write(paths_.certificate, CertificatePem(key_, -absl::Hours(24)));
  EXPECT_THAT(Refusal(), HasSubstr("expired on"));
  EXPECT_THAT(Refusal(), HasSubstr(paths_.certificate));
  // Validity is checked with the given time, not with the machine's clock.
  EXPECT_TRUE(LoadCertificates(paths_, absl::Now() - absl::Hours(25)).ok());
}

TEST_F(CertificatesTest, GarbageIsRefused) {
  for (const std::string& garbage : {std::string(), std::string("garbage"), std::string(kGarbage), KeyPem(key_)}) {
    Write(paths_.certificate, garbage);
    EXPECT_THAT(Refusal(), HasSubstr(paths_.certificate + " holds no PEM certificate")) << garbage;
  }
  Write(paths_.certificate, CertificatePem(key_));
  for (const std::string& garbage : {std::string(), std::string("garbage"), CertificatePem(key_)}) {
    Write(paths_.key, garbage);
    EXPECT_THAT(Refusal(), HasSubstr(paths_.key + " holds no unencrypted PEM private key")) << garbage;
  }
}

// gRPC uses the whole file or none of it, and reports errors only at the first handshake.
TEST_F(CertificatesTest, ABrokenRestOfAChainIsRefused) {
  Write(paths_.certificate, CertificatePem(key_) + kGarbage);
  EXPECT_THAT(Refusal(), HasSubstr(paths_.certificate));
  const std::string whole = CertificatePem(key_);
  Write(paths_.certificate, whole + whole.substr(0, whole.size() / 2));  // The file was not written completely.
  EXPECT_THAT(Refusal(), HasSubstr(paths_.certificate));
}

TEST_F(CertificatesTest, AKeyBehindAPassphraseIsRefusedWithoutAsking) {
  Write(paths_.key, KeyPem(key_, "passphrase"));
  EXPECT_THAT(Refusal(), HasSubstr(paths_.key + " holds no unencrypted PEM private key"));
}

TEST_F(CertificatesTest, GarbageForClientAuthoritiesIsRefused) {
  paths_.client_ca = folder_ + "/ca.crt";
  for (const std::string& garbage : {std::string(), std::string("garbage"), CertificatePem(key_) + kGarbage}) {
    Write(paths_.client_ca, garbage);
    EXPECT_THAT(Refusal(), HasSubstr(paths_.client_ca)) << garbage;
  }
}

class CertificateStoreTest : public CertificatesTest {
 protected:
  absl::StatusOr<std::unique_ptr<CertificateStore>> Open() {
    return CertificateStore::Open(paths_, [this](const Certificates& in_use, const absl::Status& status) {
      reports_.push_back(status);
      generation_ = in_use.generation;
    });
  }
  // Waits slightly longer than the interval between checks, so that the store checks the files.
  static std::shared_ptr<const Certificates> LookAgain(CertificateStore& store) {
    absl::SleepFor(absl::Milliseconds(1100));
    return store.Current();
  }

  std::vector<absl::Status> reports_;
  uint64_t generation_ = 0;
};

TEST_F(CertificateStoreTest, OpensOnlyCompletePairs) {
  Write(paths_.key, KeyPem(MakeKey()));
  EXPECT_THAT(std::string(Open().status().message()), HasSubstr("does not belong"));
  Write(paths_.key, KeyPem(key_));
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto first = (*store)->Current();
  EXPECT_EQ(LookAgain(**store), first);  // Nothing has changed.
  EXPECT_TRUE(reports_.empty());
}

// The certificate is replaced first and its key later, and the store checks the files in between.
TEST_F(CertificateStoreTest, AReplacementInTwoStepsIsNoRefusal) {
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto first = (*store)->Current();
  const Key key = MakeKey();
  const std::string certificate = CertificatePem(key, absl::Hours(48));
  Write(paths_.certificate, certificate);
  EXPECT_EQ(LookAgain(**store), first);
  EXPECT_TRUE(reports_.empty());
  Write(paths_.key, KeyPem(key));
  const auto second = LookAgain(**store);
  EXPECT_EQ(second->certificate, certificate);
  EXPECT_NE(second->generation, first->generation);
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_TRUE(reports_[0].ok()) << reports_[0];
  EXPECT_EQ(generation_, second->generation);
  EXPECT_EQ(LookAgain(**store), second);
  EXPECT_EQ(reports_.size(), 1u);
}

TEST_F(CertificateStoreTest, ABrokenPairLeavesTheOldOneAndIsReportedOnce) {
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto first = (*store)->Current();
  const Key key = MakeKey();
  Write(paths_.certificate, CertificatePem(key));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(LookAgain(**store), first);
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_THAT(std::string(reports_[0].message()), HasSubstr(paths_.certificate));
  EXPECT_EQ(generation_, first->generation);
  // The load is retried, so that files that are repaired later are loaded.
  Write(paths_.key, KeyPem(key));
  EXPECT_NE(LookAgain(**store)->generation, first->generation);
  ASSERT_EQ(reports_.size(), 2u);
  EXPECT_TRUE(reports_[1].ok()) << reports_[1];
}

TEST_F(CertificateStoreTest, AVanishedFileLeavesTheOldPair) {
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto first = (*store)->Current();
  std::filesystem::remove(paths_.key);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(LookAgain(**store), first);
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_THAT(std::string(reports_[0].message()), HasSubstr(paths_.key));
}

// An authority's clock may be ahead. Clients would refuse such a certificate.
TEST_F(CertificateStoreTest, ACertificateOfTheFutureIsTakenWhenItIsValid) {
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto first = (*store)->Current();
  const std::string later = CertificatePem(key_, absl::Hours(48), absl::Seconds(6));
  Write(paths_.certificate, later);
  EXPECT_EQ(LookAgain(**store), first);
  ASSERT_EQ(reports_.size(), 1u);
  EXPECT_THAT(std::string(reports_[0].message()), HasSubstr(paths_.certificate + " is valid only from"));
  EXPECT_EQ(generation_, first->generation);
  EXPECT_EQ(LookAgain(**store), first);
  EXPECT_EQ(reports_.size(), 1u);  // It is reported once.
  absl::SleepFor(absl::Seconds(4));
  EXPECT_EQ((*store)->Current()->certificate, later);
  ASSERT_EQ(reports_.size(), 2u);
  EXPECT_TRUE(reports_[1].ok()) << reports_[1];
}

// At that time neither certificate is valid, but the new one will be.
TEST_F(CertificateStoreTest, ACertificateOfTheFutureIsTakenWhenTheOldOneExpires) {
  Write(paths_.certificate, CertificatePem(key_, absl::Seconds(5)));
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  const auto first = (*store)->Current();
  const std::string later = CertificatePem(key_, absl::Hours(48), absl::Hours(1));
  Write(paths_.certificate, later);
  EXPECT_EQ(LookAgain(**store), first);
  absl::SleepFor(absl::Seconds(5));
  EXPECT_EQ((*store)->Current()->certificate, later);
}

TEST_F(CertificateStoreTest, TheFirstCertificateMayBeOfTheFuture) {
  Write(paths_.certificate, CertificatePem(key_, absl::Hours(24), absl::Hours(1)));
  const auto store = Open();
  ASSERT_TRUE(store.ok()) << store.status();
  EXPECT_GT((*store)->Current()->not_before, absl::Now());
}

}  // namespace
}  // namespace longembed
