// Shared code of the JSON dialects. A request is a JSON object or has no body; the answer is JSON.
#ifndef LONGEMBED_SERVER_API_HTTP_JSON_DIALECT_H_
#define LONGEMBED_SERVER_API_HTTP_JSON_DIALECT_H_

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "server/http/dialect.h"

namespace longembed {

class JsonDialect : public Dialect {
 public:
  int64_t ParsingBytes(const grpc::ByteBuffer& bytes) const final;
  absl::Status Parse(const grpc::ByteBuffer& bytes, int64_t max_bytes, google::protobuf::Message& message) final;
  // Assumes that the answer is mostly floats, which take four bytes each on the wire and at most 16 as text.
  int64_t MostSerializedBytes(int64_t wire_bytes) const override { return 4 * wire_bytes; }
  Operation::Headers headers() const final { return headers_; }
  absl::Status Serialize(const google::protobuf::Message& request, const google::protobuf::Message& message,
                         int64_t max_bytes, grpc::ByteBuffer& bytes) final;

 protected:
  // Returns the size of the request's body. REQUIRES: Parse was called.
  int64_t body_bytes() const { return body_bytes_; }
  // Reads the request. `body` is an empty object if the request has no body.
  virtual absl::Status Read(const nlohmann::json& body, google::protobuf::Message& message) = 0;
  // Returns whether the answer is larger than allowed, so that writing may stop.
  bool IsTooLarge(const std::string& text) const { return static_cast<int64_t>(text.size()) > max_bytes_; }
  int64_t max_bytes() const { return max_bytes_; }  // Of the answer.
  // Appends the answer to `request` to `text`. Should stop where IsTooLarge.
  virtual void Write(const google::protobuf::Message& request, const google::protobuf::Message& message,
                     std::string& text) const = 0;
  // Returns headers of the answer.
  virtual Operation::Headers HeadersFor(const google::protobuf::Message&) const { return {}; }

 private:
  int64_t body_bytes_ = 0;
  int64_t max_bytes_ = std::numeric_limits<int64_t>::max();
  Operation::Headers headers_;
};

// The keys under which a dialect reports an error's text, reason and field.
struct ErrorKeys {
  const char* message = "message";
  const char* reason = "reason";
  const char* field = "field";
};
// Returns the error as an object. A missing reason becomes the name of the status code, a missing field null.
nlohmann::json ErrorObject(const absl::Status& status, const ErrorKeys& keys);

}  // namespace longembed

#endif  // LONGEMBED_SERVER_API_HTTP_JSON_DIALECT_H_
