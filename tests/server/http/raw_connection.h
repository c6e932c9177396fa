// An HTTP client that only sends and receives bytes.
#ifndef LONGEMBED_TESTS_SERVER_HTTP_RAW_CONNECTION_H_
#define LONGEMBED_TESTS_SERVER_HTTP_RAW_CONNECTION_H_

#include <string>
#include <string_view>

namespace longembed {

class RawConnection {
 public:
  // Connects to a loopback port.
  explicit RawConnection(int port);
  ~RawConnection();
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  // Returns false if the server has closed the connection.
  bool Send(std::string_view bytes);
  // Returns one response with its header, read by its Content-Length. The result is incomplete if the server closes the
  // connection or ten seconds pass.
  std::string ReadResponse();
  // Returns a response without a body, whatever its Content-Length says.
  std::string ReadHeader();
  // Returns the bytes received until the server closes the connection. `closed` is false if it does not within ten
  // seconds.
  std::string ReadToEnd(bool& closed);

 private:
  // Reads more bytes into `buffer_`. Returns false if there are none.
  bool Fill();

  int descriptor_ = -1;
  bool timed_out_ = false;
  std::string buffer_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SERVER_HTTP_RAW_CONNECTION_H_
