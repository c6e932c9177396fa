#include "model/plan/rotary.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>
#include <utility>

namespace longembed {
namespace {

constexpr double kTau = 2 * std::numbers::pi;
constexpr size_t kMaxEntries = 64;  // A lookup compares with every entry.

// Returns the index of the rotary pair that turns `rotations` times within the trained window, as a real number.
double PairThatTurns(const ModelManifest& model, double rotations) {
  const double window = model.trained_window / model.rotary_factor;
  return model.rotary_dim * std::log(window / (kTau * rotations)) / (2 * std::log(model.rotary_base));
}

// Blends the frequencies by the ramp. Pairs below `low` turn often and keep their frequency; those above `high` turn
// less than beta_slow times and are interpolated. The ramp between them is linear in the pair's index, as in every
// implementation of YaRN; the paper's is linear in rotations.
void Blend(const ModelManifest& model, const Ramp& ramp, std::vector<double>& frequencies) {
  const double low = std::max(std::floor(PairThatTurns(model, ramp.beta_fast)), 0.0);
  double high = std::min(std::ceil(PairThatTurns(model, ramp.beta_slow)), model.rotary_dim - 1.0);
  if (low == high) high += 0.001;
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const double share = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
    frequencies[j] = frequencies[j] / ramp.factor * share + frequencies[j] * (1 - share);
  }
}

size_t BytesOf(const RotaryTable& table) { return 2 * sizeof(float) * table.cos.size(); }

}  // namespace

std::vector<double> RotaryFrequencies(const ModelManifest& model, const Positions& positions) {
  const double base = positions.base.value_or(model.rotary_base);
  std::vector<double> frequencies(static_cast<size_t>(model.rotary_dim / 2));
  for (size_t j = 0; j < frequencies.size(); ++j) {
    frequencies[j] = std::pow(base, -2.0 * static_cast<double>(j) / model.rotary_dim) / model.rotary_factor;
    frequencies[j] /= positions.interpolate;
  }
  if (model.rotary_scaling.has_value()) {
    const RotaryScaling& scaling = *model.rotary_scaling;
    const std::vector<double>& divisors = positions.long_factors ? scaling.long_factors : scaling.factors;
    for (size_t j = 0; j < frequencies.size(); ++j) frequencies[j] /= divisors[j];
  }
  if (positions.ramp.has_value()) Blend(model, *positions.ramp, frequencies);
  if (positions.resonance) {
    for (double& frequency : frequencies) frequency = kTau / std::round(kTau / frequency);
  }
  return frequencies;
}

double RotaryAmplitude(const ModelManifest& model, const Positions& positions) {
  return positions.amplitude * (model.rotary_scaling.has_value() ? model.rotary_scaling->amplitude : 1);
}

RotaryTable MakeRotaryTable(std::span<const double> frequencies, double amplitude, int64_t rows) {
  RotaryTable table{.width = static_cast<int>(frequencies.size())};
  const size_t size = static_cast<size_t>(rows) * frequencies.size();
  table.cos.reserve(size);
  table.sin.reserve(size);
  for (int64_t p = 0; p < rows; ++p) {
    for (const double frequency : frequencies) {
      const double angle = static_cast<double>(p) * frequency;
      table.cos.push_back(static_cast<float>(amplitude * std::cos(angle)));
      table.sin.push_back(static_cast<float>(amplitude * std::sin(angle)));
    }
  }
  return table;
}

RotaryTable GatherRows(const RotaryTable& table, std::span<const int64_t> rows) {
  RotaryTable gathered{.width = table.width};
  gathered.cos.reserve(rows.size() * static_cast<size_t>(table.width));
  gathered.sin.reserve(rows.size() * static_cast<size_t>(table.width));
  for (const int64_t row : rows) {
    const auto first = row * table.width, last = first + table.width;
    gathered.cos.insert(gathered.cos.end(), table.cos.begin() + first, table.cos.begin() + last);
    gathered.sin.insert(gathered.sin.end(), table.sin.begin() + first, table.sin.begin() + last);
  }
  return gathered;
}

RotaryTableCache::Entry* RotaryTableCache::Find(std::span<const double> frequencies, double amplitude) {
  const auto entry = std::ranges::find_if(entries_, [&](const Entry& kept) {
    return kept.amplitude == amplitude && std::ranges::equal(kept.frequencies, frequencies);
  });
  if (entry == entries_.end()) return nullptr;
  entries_.splice(entries_.begin(), entries_, entry);
  return &entries_.front();
}

void RotaryTableCache::Evict() {
  size_t count = 0, bytes = 0;
  const auto beyond = std::ranges::find_if(entries_, [&](const Entry& kept) {
    bytes += BytesOf(*kept.table);
    return ++count > kMaxEntries || bytes > max_bytes_;
  });
  entries_.erase(beyond, entries_.end());
}

std::shared_ptr<const RotaryTable> RotaryTableCache::Get(std::span<const double> frequencies, double amplitude,
                                                         int64_t rows) {
  int64_t made = rows;
  {
    const MutexLock lock(mutex_);
    if (const Entry* kept = Find(frequencies, amplitude); kept != nullptr) {
      if (kept->table->rows() >= rows) return kept->table;
      // Adaptive frequencies fit texts of one length only, so the first table for a key is exactly as long as its text.
      // A longer text with equal frequencies shows that they are not adaptive, so the new table has spare rows.
      made = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)));
    }
  }
  // The table is computed without the lock, so two threads may compute the same one.
  auto table = std::make_shared<const RotaryTable>(MakeRotaryTable(frequencies, amplitude, made));
  if (BytesOf(*table) > max_bytes_) return table;
  const MutexLock lock(mutex_);
  if (Entry* const kept = Find(frequencies, amplitude); kept == nullptr) {
    entries_.push_front({{frequencies.begin(), frequencies.end()}, amplitude, table});
  } else if (kept->table->rows() < table->rows()) {
    kept->table = table;
  }
  Evict();
  return table;
}

}  // namespace longembed
