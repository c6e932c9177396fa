// client SERVER TEXT: embeds a text through the server at HOST:PORT.
#include <iostream>

#include "client/client.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: client SERVER TEXT\n";
    return 2;
  }
  longembed::client::Client client({.server = argv[1]});
  longembed::v1::EmbedRequest request;
  request.add_inputs()->set_text(argv[2]);
  const auto response = client.Embed(request, {.timeout = absl::Seconds(10)});
  if (!response.ok()) {
    std::cerr << response.status().message() << "\n";
    return 1;
  }
  for (const float value : response->results(0).embeddings(0).values()) std::cout << value << "\n";
}
