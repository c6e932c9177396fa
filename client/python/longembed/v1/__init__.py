"""The protobuf package longembed.v1, with the module names that protoc generates."""
