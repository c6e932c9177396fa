#include "model/encoder/torch_archive.h"

#include <caffe2/serialize/inline_container.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/jit/frontend/source_range.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/jit/serialization/import_read.h>
#include <torch/csrc/jit/serialization/import_source.h>
#include <torch/csrc/jit/serialization/storage_context.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace longembed {
namespace {

using caffe2::serialize::PyTorchStreamReader;
using torch::jit::SourceImporter;

constexpr char kContractRecord[] = "extra/longembed.json";
constexpr char kTensors[] = "data/";

class MappedReader final : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit MappedReader(std::shared_ptr<const MappedFile> file) : file_(std::move(file)) {}
  size_t size() const override { return file_->bytes().size(); }
  size_t read(uint64_t from, void* to, size_t count, const char*) const override {
    if (from >= size()) return 0;
    count = std::min<size_t>(count, size() - from);
    std::memcpy(to, file_->bytes().data() + from, count);
    return count;
  }

 private:
  const std::shared_ptr<const MappedFile> file_;
};

// Returns the archive's storages by name. Each refers to mapped pages, which is possible because tensor records are
// stored uncompressed.
std::shared_ptr<torch::jit::DeserializationStorageContext> MapStorages(PyTorchStreamReader& reader,
                                                                       const std::shared_ptr<const MappedFile>& file) {
  auto storages = std::make_shared<torch::jit::DeserializationStorageContext>();
  for (const std::string& record : reader.getAllRecords()) {
    if (!record.starts_with(kTensors)) continue;
    const size_t offset = reader.getRecordOffset(record), size = reader.getRecordSize(record);
    TORCH_CHECK(offset <= file->bytes().size() && size <= file->bytes().size() - offset, record,
                " lies beyond the end");
    auto* const owner = new std::shared_ptr<const MappedFile>(file);
    c10::DataPtr data(
        const_cast<std::byte*>(file->bytes().data()) + offset, owner,
        [](void* kept) { delete static_cast<std::shared_ptr<const MappedFile>*>(kept); }, at::kCPU);
    storages->addStorage(record.substr(std::strlen(kTensors)),
                         c10::Storage(c10::Storage::use_byte_size_t(), size, std::move(data)));
  }
  return storages;
}

std::string ReadText(PyTorchStreamReader& reader, const std::string& record) {
  const auto [data, size] = reader.getRecord(record);
  return {static_cast<const char*>(data.get()), size};
}

// Returns the source of a class: "__torch__.model.export.graph" is in code/__torch__/model/export/graph.py.
std::shared_ptr<torch::jit::Source> ReadSource(PyTorchStreamReader& reader, std::string qualifier) {
  std::replace(qualifier.begin(), qualifier.end(), '.', '/');
  const std::string record = "code/" + qualifier + ".py";
  if (!reader.hasRecord(record)) return nullptr;
  return std::make_shared<torch::jit::Source>(ReadText(reader, record), record, /*starting_line_no=*/1);
}

// Reads a module like torch::jit::load, but with mapped storages.
torch::jit::Module ReadModule(PyTorchStreamReader& reader, const std::shared_ptr<const MappedFile>& file) {
  const auto unit = std::make_shared<torch::jit::CompilationUnit>();
  std::vector<c10::IValue> constants;
  if (reader.hasRecord("constants.pkl")) {
    constants = torch::jit::readArchiveAndTensors("constants", "", "constants/", std::nullopt, std::nullopt,
                                                  std::nullopt, reader)
                    .toTupleRef()
                    .elements()
                    .vec();
  }
  const SourceImporter importer(
      unit, &constants, [&reader](const std::string& qualifier) { return ReadSource(reader, qualifier); },
      reader.version());
  const auto resolve = [&](const c10::QualifiedName& name) {
    return c10::StrongTypePtr(unit, importer.loadType(name));
  };
  const c10::IValue data =
      torch::jit::readArchiveAndTensors("data", "", kTensors, resolve, torch::jit::ObjLoaderFunc, std::nullopt, reader,
                                        torch::jit::Unpickler::defaultTypeParser, MapStorages(reader, file));
  return torch::jit::Module(data.toObject());
}

}  // namespace

absl::StatusOr<MappedModule> LoadMapped(const std::string& path) {
  absl::StatusOr<std::shared_ptr<const MappedFile>> file = MappedFile::Open(path);
  if (!file.ok()) return file.status();
  PyTorchStreamReader reader(std::make_shared<MappedReader>(*file));
  reader.setShouldLoadDebugSymbol(false);
  MappedModule loaded{.module = ReadModule(reader, *file), .file = *file};
  if (reader.hasRecord(kContractRecord)) loaded.contract = ReadText(reader, kContractRecord);
  loaded.module.eval();
  return loaded;
}

}  // namespace longembed
