// Prints the vectors of small programs, for each set of kernels that this processor supports. A line has the form "SET
// PRECISION NUMBER NUMBER ...". Weights and batches are the same on every machine, so the lines of two machines can be
// compared.
#include <cstdio>
#include <utility>
#include <vector>

#include "model/encoder/cpu/cpu_encoder.h"
#include "tests/model/encoder/cpu/programs.h"

namespace longembed {
namespace {

int Main() {
  const std::vector<int> lengths{7, 1, 30, 12, 3, 300};
  const PackedBatch batch = Batch(lengths, {{0, 7}, {7, 8}, {8, 38}, {38, 50}, {50, 53}, {53, 353}});
  const std::vector<Program> programs{Encoder(48, 3, 16, 100, 2), Decoder(64, 4, 2, 16, 96, 2),
                                      LocalEncoder(48, 3, 16, 100, 4), BiasedEncoder(48, 4, 5)};
  for (const cpu::Kernels* kernels : cpu::AvailableKernels()) {
    for (const Precision precision : {Precision::kFloat32, Precision::kBfloat16, Precision::kInt8}) {
      std::printf("%s %s", kernels->name, PrecisionName(precision));
      for (const Program& program : programs) {
        const auto encoder = MakeCpuEncoder(program, precision, *kernels);
        if (!encoder.ok()) return 1;
        Team team;
        Team::Leader leader(team);
        const auto block = (*encoder)->Encode(batch, leader, [] { return false; });
        if (!block.ok()) return 1;
        for (const float value : block->values) std::printf(" %.9g", value);
      }
      std::printf("\n");
    }
  }
  return 0;
}

}  // namespace
}  // namespace longembed

int main() { return longembed::Main(); }
