"""The protobuf package longembed.v1 under the names that protoc gives its modules."""
