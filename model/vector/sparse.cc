#include "model/vector/sparse.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace longembed {
namespace {

float Combined(float a, float b, SparseSum sum) {
  if (sum == SparseSum::kAdd || std::isnan(a) || std::isnan(b)) return a + b;
  return std::max(a, b);
}

SparseVector CombineTwo(const SparseVector& a, const SparseVector& b, SparseSum sum) {
  SparseVector merged;
  merged.indices.reserve(a.indices.size() + b.indices.size());
  merged.values.reserve(a.indices.size() + b.indices.size());
  const auto add = [&merged](int32_t index, float value) {
    merged.indices.push_back(index);
    merged.values.push_back(value);
  };
  size_t i = 0, j = 0;
  while (i < a.indices.size() && j < b.indices.size()) {
    if (a.indices[i] == b.indices[j]) {
      add(a.indices[i], Combined(a.values[i], b.values[j], sum));
      ++i, ++j;
    } else if (a.indices[i] < b.indices[j]) {
      add(a.indices[i], a.values[i]);
      ++i;
    } else {
      add(b.indices[j], b.values[j]);
      ++j;
    }
  }
  for (; i < a.indices.size(); ++i) add(a.indices[i], a.values[i]);
  for (; j < b.indices.size(); ++j) add(b.indices[j], b.values[j]);
  return merged;
}

}  // namespace

SparseVector Combine(std::span<const SparseVector> parts, SparseSum sum) {
  if (parts.empty()) return {};
  if (parts.size() == 1) return parts.front();
  // Merges halves recursively. Merging thousands of windows one after the other would copy the entries of the first
  // ones thousands of times.
  const size_t half = parts.size() / 2;
  return CombineTwo(Combine(parts.first(half), sum), Combine(parts.subspan(half), sum), sum);
}

void KeepLargest(int64_t count, SparseVector& vector) {
  if (vector.size() <= count) return;
  std::vector<size_t> places(vector.indices.size());
  std::iota(places.begin(), places.end(), size_t{0});
  const auto larger = [&vector](size_t a, size_t b) {
    return vector.values[a] != vector.values[b] ? vector.values[a] > vector.values[b] : a < b;
  };
  std::nth_element(places.begin(), places.begin() + count, places.end(), larger);
  places.resize(static_cast<size_t>(count));
  std::ranges::sort(places);
  for (size_t i = 0; i < places.size(); ++i) {
    vector.indices[i] = vector.indices[places[i]];
    vector.values[i] = vector.values[places[i]];
  }
  vector.indices.resize(places.size());
  vector.values.resize(places.size());
}

}  // namespace longembed
