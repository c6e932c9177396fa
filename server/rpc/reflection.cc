#include "server/rpc/reflection.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/operation.h"

namespace longembed {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::ExtensionRequest;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

// Names of files and symbols are short.
constexpr int64_t kMaxNameBytes = 4 << 10;

HostContext ForReflection(HostContext host) {
  host.max_request_bytes = kMaxNameBytes;
  return host;
}

class Describe final : public TypedOperation<ServerReflectionRequest, ServerReflectionResponse> {
 public:
  Describe(const std::vector<std::string>& services, const CallContext& call, const Request& request,
           Response& response)
      : TypedOperation(call, request, response), services_(services) {}

  void Start(Done done) override {
    done_ = std::move(done);
    response_.set_valid_host(request_.host());
    *response_.mutable_original_request() = request_;
    Answer();
    End(absl::OkStatus());
  }

 private:
  void Answer() {
    switch (request_.message_request_case()) {
      case Request::kFileByFilename:
        return AddFile(pool_.FindFileByName(request_.file_by_filename()), "file", request_.file_by_filename());
      case Request::kFileContainingSymbol:
        return AddFile(pool_.FindFileContainingSymbol(request_.file_containing_symbol()), "symbol",
                       request_.file_containing_symbol());
      case Request::kFileContainingExtension:
        return AddFileOfExtension(request_.file_containing_extension());
      case Request::kAllExtensionNumbersOfType:
        return AddExtensionNumbers(request_.all_extension_numbers_of_type());
      case Request::kListServices:
        for (const std::string& name : services_)
          response_.mutable_list_services_response()->add_service()->set_name(name);
        return;
      case Request::MESSAGE_REQUEST_NOT_SET:
        return Fail(absl::StatusCode::kInvalidArgument,
                    "the request asks for nothing; set one field of message_request");
    }
  }

  // The protocol has a place for errors, after which the stream goes on.
  void Fail(absl::StatusCode code, const std::string& message) {
    response_.mutable_error_response()->set_error_code(static_cast<int>(code));
    response_.mutable_error_response()->set_error_message(message);
  }

  void NotFound(const char* what, const std::string& name) {
    Fail(absl::StatusCode::kNotFound, absl::StrCat("this server has no ", what, " \"", name, "\""));
  }

  // Adds the file and all that it imports, directly or not.
  void AddFile(const FileDescriptor* file, const char* what, const std::string& name) {
    if (file == nullptr) return NotFound(what, name);
    std::set<const FileDescriptor*> added;
    AddWithImports(*file, added);
  }

  void AddWithImports(const FileDescriptor& file, std::set<const FileDescriptor*>& added) {
    if (!added.insert(&file).second) return;
    google::protobuf::FileDescriptorProto proto;
    file.CopyTo(&proto);
    response_.mutable_file_descriptor_response()->add_file_descriptor_proto(proto.SerializeAsString());
    for (int i = 0; i < file.dependency_count(); ++i) AddWithImports(*file.dependency(i), added);
  }

  void AddFileOfExtension(const ExtensionRequest& wanted) {
    const std::string& type = wanted.containing_type();
    const Descriptor* const extended = pool_.FindMessageTypeByName(type);
    if (extended == nullptr) return NotFound("type", type);
    const FieldDescriptor* const extension = pool_.FindExtensionByNumber(extended, wanted.extension_number());
    AddFile(extension == nullptr ? nullptr : extension->file(), "extension",
            absl::StrCat(type, " ", wanted.extension_number()));
  }

  void AddExtensionNumbers(const std::string& type) {
    const Descriptor* const extended = pool_.FindMessageTypeByName(type);
    if (extended == nullptr) return NotFound("type", type);
    std::vector<const FieldDescriptor*> extensions;
    pool_.FindAllExtensions(extended, &extensions);
    response_.mutable_all_extension_numbers_response()->set_base_type_name(type);
    for (const FieldDescriptor* const extension : extensions) {
      response_.mutable_all_extension_numbers_response()->add_extension_number(extension->number());
    }
  }

  const DescriptorPool& pool_ = *DescriptorPool::generated_pool();
  const std::vector<std::string>& services_;
};

}  // namespace

Reflection::Reflection(std::vector<std::string> services, const HostContext& host)
    : names_(std::move(services)),
      host_(ForReflection(host)),
      method_(MakeMethod<Describe>("reflection.Stream", names_)) {
  for (const NamedService& own : this->services()) names_.push_back(own.name);
}

Services Reflection::services() { return {{V1::service_full_name(), &v1_}, {V1Alpha::service_full_name(), &v1alpha_}}; }

}  // namespace longembed
