// All that the server's backend asks of the operating system.
#pragma once

#include <cstddef>
#include <string>

// A connection to this user's 'bsmamba2 serve'. No call blocks but wait().
class Socket {
 public:
  Socket() = default;
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() { close(); }

  // Connects, if the server is there, and the folder, the token and the server are this user's own.
  // Puts the token's 32 bytes.
  bool open(unsigned char token[32]);
  void close();
  bool is_open() const { return handle_ >= 0; }

  // Up to so many milliseconds, until there is something to read, or room to write if asked.
  void wait(bool to_write, int milliseconds);
  // The bytes that went, 0 where it would block, or -1 where the connection is lost.
  long send(const void* bytes, size_t size);
  long receive(void* bytes, size_t size);

 private:
  int handle_ = -1;
};

// Where the server's socket and token are, and what it says of itself.
std::string server_folder();
// A small text file of the server's folder; empty where it is missing, too large or not the user's.
std::string read_own_file(const std::string& path, size_t limit);
// Starts the command that stands in the plugin's bundle, one argument a line, as 'bsmamba2 plugin
// install' put it there; every 30 s at most, for all instances. False where there is none.
bool launch_server();
