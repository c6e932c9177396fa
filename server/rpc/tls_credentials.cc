#include "server/rpc/tls_credentials.h"

#include <grpc/grpc_security.h>
#include <grpc/slice.h>

#include <optional>
#include <string>
#include <utility>

#include "system/mutex.h"

namespace longembed {
namespace {

// Gives gRPC the certificates: at every handshake gRPC asks whether there is a newer set.
class CertificateFetcher {
 public:
  explicit CertificateFetcher(CertificateStore& certificates) : certificates_(certificates) {}

  static grpc_ssl_certificate_config_reload_status Fetch(void* self, grpc_ssl_server_certificate_config** config) {
    return static_cast<CertificateFetcher*>(self)->FetchNewer(config);
  }

 private:
  grpc_ssl_certificate_config_reload_status FetchNewer(grpc_ssl_server_certificate_config** config) {
    const std::shared_ptr<const Certificates> current = certificates_.Current();
    const MutexLock lock(mutex_);
    if (given_ == current->generation) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{current->key.c_str(), current->certificate.c_str()};
    // gRPC requires authorities even without client certificates, but then does not use them.
    const std::string& authorities = current->client_ca.empty() ? current->certificate : current->client_ca;
    *config = grpc_ssl_server_certificate_config_create(authorities.c_str(), &pair, 1);
    given_ = current->generation;
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  CertificateStore& certificates_;
  Mutex mutex_;
  std::optional<uint64_t> given_;
};

std::string_view View(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

// Adapts a CallGuard to the C API.
void RunGuard(void* state, grpc_auth_context*, const grpc_metadata* metadata, size_t count,
              grpc_process_auth_metadata_done_cb done, void* user_data) {
  std::string_view path, authorization, api_key;
  for (size_t i = 0; i < count; ++i) {
    const std::string_view key = View(metadata[i].key);
    if (key == ":path") path = View(metadata[i].value);
    if (key == "authorization") authorization = View(metadata[i].value);
    if (key == "x-api-key") api_key = View(metadata[i].value);
  }
  const absl::Status status = (*static_cast<const CallGuard*>(state))(path, authorization, api_key);
  done(user_data, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
       std::string(status.message()).c_str());
}

class TlsCredentials final : public grpc::ServerCredentials {
 public:
  TlsCredentials(CertificateStore& certificates, CallGuard guard)
      : fetcher_(certificates),
        credentials_(grpc_ssl_server_credentials_create_with_options(
            grpc_ssl_server_credentials_create_options_using_config_fetcher(
                certificates.Current()->client_ca.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                                                          : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
                &CertificateFetcher::Fetch, &fetcher_))) {
    if (guard == nullptr) return;
    grpc_server_credentials_set_auth_metadata_processor(
        credentials_, {.process = &RunGuard,
                       .destroy = [](void* state) { delete static_cast<CallGuard*>(state); },
                       .state = new CallGuard(std::move(guard))});
  }
  ~TlsCredentials() override { grpc_server_credentials_release(credentials_); }

  // Not used, because the guard takes its place.
  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  CertificateFetcher fetcher_;
  grpc_server_credentials* const credentials_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakeTlsCredentials(CertificateStore& certificates, CallGuard guard) {
  return std::make_shared<TlsCredentials>(certificates, std::move(guard));
}

}  // namespace longembed
