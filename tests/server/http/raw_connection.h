// An HTTP client that knows nothing: bytes out, bytes in.
#ifndef LONGEMBED_TESTS_SERVER_HTTP_RAW_CONNECTION_H_
#define LONGEMBED_TESTS_SERVER_HTTP_RAW_CONNECTION_H_

#include <string>
#include <string_view>

namespace longembed {

class RawConnection {
 public:
  // To the loopback.
  explicit RawConnection(int port);
  ~RawConnection();
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  // False: the server has closed its end.
  bool Send(std::string_view bytes);
  // One response, by its Content-Length, with its header; what came until the server closed, or ten seconds passed.
  std::string ReadResponse();
  // The same of a response without a body, whatever its Content-Length says.
  std::string ReadHeader();
  // Returns the bytes received until the server closes; `closed` is false if it does not within ten seconds.
  std::string ReadToEnd(bool& closed);

 private:
  // Reads more into `buffer_`. False: there is no more.
  bool Fill();

  int descriptor_ = -1;
  bool timed_out_ = false;
  std::string buffer_;
};

}  // namespace longembed

#endif  // LONGEMBED_TESTS_SERVER_HTTP_RAW_CONNECTION_H_
