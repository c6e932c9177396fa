// Measures tokens per second, in process or through a server, for texts of 16, 128 and 512 tokens and a mixed set.
//
//   encoder_benchmark MODEL_DIRECTORY [--server HOST:PORT] [--clients N] [--seconds S] [--texts FILE]
//                     [--device cpu|cuda] [--precision fp32|bf16|fp16|int8] [--engine torchscript] [--threads N]
//                     [--batch-tokens N] [--kernels NAME]
//
// In process, only the encoder is measured, on batches of 512 tokens by default. With --server, N clients run in a
// closed loop with one text per call, which also measures everything that the server does. The ratio of the two is the
// overhead of serving. Texts are made of words of the model's vocabulary with exact token counts, or come from a JSON
// file {"set": [["text", tokens], ...]}.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "client/client.h"
#include "model/embed/model.h"
#include "model/embed/pipeline.h"
#include "model/encoder/load_encoder.h"
#include "system/mutex.h"

namespace longembed {
namespace {

struct Arguments {
  std::string model;
  std::string server;
  std::string texts;
  EncoderOptions encoder;
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  int clients = 32;
  int batch_tokens = 512;
  double seconds = 5;
};

using TextSets = std::map<std::string, std::vector<std::string>>;

[[noreturn]] void Die(const std::string& message) {
  std::cerr << "encoder_benchmark: " << message << "\n";
  std::cerr.flush();
  std::_Exit(2);  // May be called on a client thread while other threads run.
}

Precision ReadPrecision(const std::string& name) {
  for (const Precision precision : {Precision::kFloat32, Precision::kFloat16, Precision::kBfloat16, Precision::kInt8}) {
    if (name == PrecisionName(precision)) return precision;
  }
  Die("unknown precision " + name);
}

Arguments ParseArguments(int argc, char** argv) {
  Arguments arguments;
  if (argc < 2)
    Die("usage: encoder_benchmark MODEL_DIRECTORY [--server HOST:PORT] [--clients N] [--seconds S] [--texts FILE]");
  arguments.model = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string flag = argv[i], value = argv[i + 1];
    if (flag == "--server")
      arguments.server = value;
    else if (flag == "--texts")
      arguments.texts = value;
    else if (flag == "--clients")
      arguments.clients = std::atoi(value.c_str());
    else if (flag == "--batch-tokens")
      arguments.batch_tokens = std::max(1, std::atoi(value.c_str()));
    else if (flag == "--threads")
      arguments.threads = std::atoi(value.c_str());
    else if (flag == "--kernels")
      arguments.encoder.kernels = value;
    else if (flag == "--device")
      arguments.encoder.device = value;
    else if (flag == "--engine")
      arguments.encoder.engine = value == "torchscript" ? Engine::kTorchScript : Engine::kAuto;
    else if (flag == "--precision")
      arguments.encoder.precision = ReadPrecision(value);
    else if (flag == "--seconds")
      arguments.seconds = std::atof(value.c_str());
    else
      Die("unknown flag " + flag);
  }
  return arguments;
}

// Returns words that are one token each in any context.
std::vector<std::string> OneTokenWords(const Model& model) {
  std::vector<std::string> words;
  for (int32_t id = 2000; id < 12000 && words.size() < 2000; ++id) {
    const auto word = model.tokenizer->TokenText(id);
    if (!word.ok() || word->find_first_not_of("abcdefghijklmnopqrstuvwxyz") != std::string::npos) continue;
    const auto tokens = model.tokenizer->Tokenize(*word);
    if (tokens.ok() && tokens->ids == std::vector<int32_t>{id}) words.push_back(*word);
  }
  if (words.empty()) Die("this vocabulary has no plain words; give --texts");
  return words;
}

TextSets MakeTexts(const Model& model) {
  const std::vector<std::string> words = OneTokenWords(model);
  const auto specials = static_cast<int>(model.manifest.special_prefix.size() + model.manifest.special_suffix.size());
  std::mt19937 random(1);
  const auto text = [&](int tokens) {
    std::string joined;
    for (int i = specials; i < tokens; ++i) joined += words[random() % words.size()] + " ";
    return joined;
  };
  TextSets sets;
  std::lognormal_distribution<double> mixed(4.1, 0.9);  // The mean is about 94 within [8, 512].
  for (int i = 0; i < 512; ++i) {
    for (const int tokens : {16, 128, 512}) sets[std::to_string(tokens)].push_back(text(tokens));
    sets["mixed"].push_back(text(std::clamp(static_cast<int>(mixed(random)), 8, 512)));
  }
  return sets;
}

TextSets ReadTexts(const std::string& path) {
  std::ifstream file(path);
  const auto json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) Die(path + " is not a JSON object of sets");
  TextSets sets;
  for (const auto& [name, texts] : json.items()) {
    for (const auto& entry : texts) sets[name].push_back(entry.at(0).get<std::string>());
  }
  return sets;
}

std::vector<Sequence> Sequences(const Model& model, const std::vector<std::string>& texts) {
  std::vector<Sequence> sequences;
  for (const std::string& text : texts) {
    absl::StatusOr<Plan> plan = PrepareInput(model, std::string_view(text), {.plan = {.truncate = Truncate::kEnd}});
    if (!plan.ok()) Die(std::string(plan.status().message()));
    sequences.push_back(std::move(plan->sequences[0].sequence));
  }
  return sequences;
}

// Returns the encoder's tokens per second, with `threads` batches at a time. Each batch runs on one core, or on one
// stream of the GPU.
double InProcess(Encoder& encoder, const std::vector<Sequence>& sequences, const Arguments& arguments, double seconds) {
  const int threads = arguments.threads;
  const absl::Time start = absl::Now();
  std::atomic<int64_t> tokens = 0;
  std::vector<std::jthread> workers;
  for (int t = 0; t < threads; ++t) {
    workers.emplace_back([&, t] {
      SetTorchThreads(1);
      Team team;
      Team::Leader leader(team);
      for (size_t next = sequences.size() * t / threads; absl::Now() - start < absl::Seconds(seconds);) {
        std::vector<const Sequence*> batch;
        int64_t batch_tokens = 0;
        while (batch.empty() || batch_tokens + sequences[next].size() <= arguments.batch_tokens) {
          batch.push_back(&sequences[next]);
          batch_tokens += sequences[next].size();
          next = (next + 1) % sequences.size();
        }
        if (!encoder.Encode(Pack(batch), leader, [] { return false; }).ok()) Die("the encoder failed");
        tokens += batch_tokens;
      }
    });
  }
  workers.clear();
  return static_cast<double>(tokens) / absl::ToDoubleSeconds(absl::Now() - start);
}

struct Served {
  double tokens_per_second = 0;
  double p50_ms = 0;
  double p99_ms = 0;
};

Served ThroughServer(const std::string& server, const std::vector<std::string>& texts, int clients, double seconds) {
  client::Client client({.server = server});
  std::atomic<int64_t> tokens = 0;
  Mutex mutex;
  std::vector<double> latencies;
  const absl::Time start = absl::Now();
  std::vector<std::jthread> threads;
  for (int c = 0; c < clients; ++c) {
    threads.emplace_back([&, c] {
      for (size_t i = c; absl::Now() - start < absl::Seconds(seconds); i += clients) {
        v1::EmbedRequest request;
        request.mutable_options()->set_truncate(v1::EmbedOptions::END);
        request.add_inputs()->set_text(texts[i % texts.size()]);
        const absl::Time sent = absl::Now();
        const auto response = client.Embed(request);
        if (!response.ok()) Die(std::string(response.status().message()));
        tokens += response->results(0).tokens();
        const MutexLock lock(mutex);
        latencies.push_back(absl::ToDoubleMilliseconds(absl::Now() - sent));
      }
    });
  }
  threads.clear();
  std::sort(latencies.begin(), latencies.end());
  const double elapsed = absl::ToDoubleSeconds(absl::Now() - start);
  return {.tokens_per_second = static_cast<double>(tokens) / elapsed,
          .p50_ms = latencies[latencies.size() / 2],
          .p99_ms = latencies[latencies.size() * 99 / 100]};
}

void Run(const Arguments& arguments) {
  const auto model = LoadModel(arguments.model);
  if (!model.ok()) Die(std::string(model.status().message()));
  const TextSets sets = arguments.texts.empty() ? MakeTexts(**model) : ReadTexts(arguments.texts);
  if (!arguments.server.empty()) {
    std::printf("%-8s %12s %10s %10s   through %s, %d clients\n", "set", "tokens/s", "p50 ms", "p99 ms",
                arguments.server.c_str(), arguments.clients);
    for (const auto& [name, texts] : sets) {
      ThroughServer(arguments.server, texts, arguments.clients, 1);  // Warm-up.
      const Served served = ThroughServer(arguments.server, texts, arguments.clients, arguments.seconds);
      std::printf("%-8s %12.0f %10.1f %10.1f\n", name.c_str(), served.tokens_per_second, served.p50_ms, served.p99_ms);
    }
    return;
  }
  const auto encoder = LoadEncoder(arguments.model, (*model)->manifest, arguments.encoder);
  if (!encoder.ok()) Die(std::string(encoder.status().message()));
  std::printf("%-8s %12s   encoder in process\n", "set", "tokens/s");
  for (const auto& [name, texts] : sets) {
    const std::vector<Sequence> sequences = Sequences(**model, texts);
    InProcess(**encoder, sequences, arguments, 1);  // Warm-up.
    std::printf("%-8s %12.0f\n", name.c_str(), InProcess(**encoder, sequences, arguments, arguments.seconds));
  }
}

}  // namespace
}  // namespace longembed

int main(int argc, char** argv) {
  longembed::Run(longembed::ParseArguments(argc, argv));
  return 0;
}
