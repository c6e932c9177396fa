// embed DIRECTORY TEXT: embeds a text in process with a model directory, as model/export writes it.
#include <iostream>

#include "model/embed/embedder.h"
#include "model/encoder/load_encoder.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: embed DIRECTORY TEXT\n";
    return 2;
  }
  const auto model = longembed::LoadModel(argv[1]);
  if (!model.ok()) {
    std::cerr << model.status().message() << "\n";
    return 1;
  }
  const auto encoder = longembed::LoadEncoder(argv[1], (*model)->manifest, {});
  if (!encoder.ok()) {
    std::cerr << encoder.status().message() << "\n";
    return 1;
  }
  longembed::Team team;
  const longembed::Embedder embedder(**model, **encoder, team);
  const longembed::Input input(argv[2]);
  const auto vectors = embedder.Embed(std::span(&input, 1), {});
  if (!vectors.ok()) {
    std::cerr << vectors.status().message() << "\n";
    return 1;
  }
  for (const float value : vectors->front().front().values) std::cout << value << "\n";
}
