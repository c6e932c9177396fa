// Lists the fields of an extension by their names in longembed.v1.Extension. Every reader and writer of extensions uses
// this list.
//
// `Fields` below stands for a reader or writer. It has these methods:
//   Number(name, value)          std::optional<int64_t>, int64_t, std::optional<double> or double
//   Flag(name, value)            bool
//   Choice(name, value, names)   an enum, whose values are the indexes of `names`
//   Section(name, describe)      calls describe(Fields& below) if the section is present; returns whether it is
//   Fail(status)                 keeps the first error
#ifndef LONGEMBED_MODEL_PLAN_EXTENSION_FIELDS_H_
#define LONGEMBED_MODEL_PLAN_EXTENSION_FIELDS_H_

#include "absl/strings/str_cat.h"
#include "model/errors/errors.h"
#include "model/plan/extension.h"

namespace longembed {

template <typename Fields>
void DescribeWindows(Fields& fields, Windows& windows) {
  fields.Number("tokens", windows.tokens);
  fields.Number("overlap", windows.overlap);
  fields.Choice("last", windows.last, kLastWindowNames);
  fields.Choice("aggregation", windows.aggregation, kAggregationNames);
  fields.Number("norm_temperature", windows.norm_temperature);
  fields.Number("top", windows.top);
  fields.Number("vectors", windows.vectors);
}

template <typename Fields>
void DescribeModifiers(Fields& fields, Extension& extension) {
  fields.Choice("when", extension.when, kWhenNames);
  fields.Flag("resonance", extension.resonance);
  fields.Flag("attention_log_scaling", extension.attention_log_scaling);
  fields.Number("attention_temperature", extension.attention_temperature);
}

// Reads an extension from `fields`. Fails with EXTENSION_CONFLICT if two positions methods are present.
template <typename Fields>
Extension ReadExtension(Fields& fields) {
  Extension extension;
  DescribeModifiers(fields, extension);
  fields.Section("windows", [&extension](Fields& below) { DescribeWindows(below, extension.windows.emplace()); });
  fields.Section(AttentionCalibration::kName,
                 [&extension](Fields& below) { extension.attention_calibration.emplace().Describe(below); });
  const char* first = nullptr;
  ForEachMethod([&](auto method) {
    if (!fields.Section(method.kName, [&method](Fields& below) { method.Describe(below); })) return;
    if (first != nullptr) {
      fields.Fail(ExtensionConflict(method.kName, absl::StrCat("cannot be combined with ", first,
                                                               "; windows go with at most one positions method")));
    }
    first = method.kName;
    extension.positions = method;
  });
  return extension;
}

}  // namespace longembed

#endif  // LONGEMBED_MODEL_PLAN_EXTENSION_FIELDS_H_
