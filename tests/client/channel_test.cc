#include "client/channel.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "client/client.h"
#include "tests/testing/scripted_service.h"

namespace longembed::client {
namespace {

TEST(ChannelTest, RecognizesAddressesOfThisMachine) {
  for (const char* target : {"127.0.0.1:50051",
                             "127.0.0.1",
                             "127.9.9.9:1",
                             "0.0.0.0:50051",
                             "localhost:50051",
                             "LocalHost:1",
                             "localhost.:1",
                             "localhost",
                             "a.localhost:1",
                             "[::1]:50051",
                             "::1",
                             "[::]:1",
                             "[::ffff:127.0.0.1]:1",
                             "dns:localhost:1",
                             "dns:/localhost:1",
                             "dns:///localhost:50051",
                             "dns://8.8.8.8/localhost:50051",
                             "ipv4:127.0.0.1:1",
                             "ipv4:127.0.0.1:1,127.0.0.1:2",
                             "ipv6:[::1]:1",
                             "ipv6:%5B::1%5D:1",
                             "unix:/run/longembed",
                             "unix:///run/longembed",
                             "unix-abstract:longembed"}) {
    EXPECT_TRUE(IsLocal(target)) << target;
  }
  for (const char* target :
       {"10.0.0.1:50051", "128.0.0.1:1", "embeddings:50051", "localhost.example:1", "notlocalhost:1", "[::2]:1", "::2",
        "[::ffff:10.0.0.1]:1", "dns:///embeddings:1", "dns://127.0.0.1/embeddings:1", "ipv4:10.0.0.1:1", "",
        "dns:", "dns://127.0.0.1", "127.0.0.1.example:1", "unix"}) {
    EXPECT_FALSE(IsLocal(target)) << target;
  }
}

// If the environment names a proxy, gRPC uses it for every server that is not listed in no_proxy.
TEST(ChannelTest, NoProxyForThisMachine) {
  ScriptedService service;
  const std::string port = service.address().substr(service.address().find(':'));
  for (const char* variable : {"http_proxy", "https_proxy", "grpc_proxy"}) {
    setenv(variable, "http://127.0.0.1:9", 1);
    for (const char* host : {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "dns:///localhost"}) {
      const auto models = Client({.server = host + port}).ListModels();
      EXPECT_TRUE(models.ok()) << variable << " " << host << ": " << models.status();
    }
    unsetenv(variable);
  }
}

}  // namespace
}  // namespace longembed::client
