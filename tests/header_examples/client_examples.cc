#include "client/client.h"
#include "client/errors.h"
#include "client/stream.h"

namespace longembed::client {

void Embed() {
#include "examples/client/client.h"
}

void Split(const v1::EmbedRequest& request);

void HandleErrors(Client& client, const v1::EmbedRequest& request) {
#include "examples/client/errors.h"
}

void EmbedCorpus(Client& client, const v1::EmbedOptions& options, std::vector<v1::Input>& inputs) {
#include "examples/client/stream.h"
}

}  // namespace longembed::client
