// grpc.reflection.v1 and v1alpha, by which tools such as grpcurl read the API from the server. We do not use gRPC's
// implementation, because neither metrics nor limits nor API keys nor drains include its streams, and because it keeps
// unknown fields, which take a hundred times their bytes on the wire.
#ifndef LONGEMBED_SERVER_RPC_REFLECTION_H_
#define LONGEMBED_SERVER_RPC_REFLECTION_H_

#include <memory>
#include <string>
#include <vector>

#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "grpc/reflection/v1alpha/reflection.grpc.pb.h"
#include "server/rpc/host_context.h"
#include "server/rpc/named_service.h"
#include "server/rpc/reactors.h"

namespace longembed {

// A service of one version, Original: its streams run under a host. The versions have the same messages.
template <typename Original>
class ReflectionOf final
    : public Original::template WithRawCallbackMethod_ServerReflectionInfo<typename Original::Service> {
 public:
  // Both arguments must outlive it.
  ReflectionOf(const ApiMethod& method, const HostContext& host) : method_(method), host_(host) {}

  RawStream* ServerReflectionInfo(grpc::CallbackServerContext* context) override {
    return ServeStream(method_, {.max_messages = 1}, host_, context);
  }

 private:
  const ApiMethod& method_;
  const HostContext& host_;
};

// The services of both versions. They describe what is compiled into this process. Thread-safe.
class Reflection {
 public:
  // `services` are the names to list, besides those of reflection itself. `host` must outlive the object.
  Reflection(std::vector<std::string> services, const HostContext& host);

  // Returns the services to register with a gRPC server, which this object must outlive.
  Services services();

 private:
  using V1 = grpc::reflection::v1::ServerReflection;
  using V1Alpha = grpc::reflection::v1alpha::ServerReflection;

  std::vector<std::string> names_;
  const HostContext host_;  // With a limit for requests of its own.
  const ApiMethod method_;
  ReflectionOf<V1> v1_{method_, host_};
  ReflectionOf<V1Alpha> v1alpha_{method_, host_};
};

}  // namespace longembed

#endif  // LONGEMBED_SERVER_RPC_REFLECTION_H_
