// The operating system's part of the server backend.
#pragma once

#include <cstddef>
#include <string>

// A connection to this user's 'bsmamba2 serve'. Only wait() blocks.
class Socket {
 public:
  Socket() = default;
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  ~Socket() { close(); }

  // Connects if the server is running, and the folder, the token and the server belong to this
  // user. Writes the token's 32 bytes.
  bool open(unsigned char token[32]);
  void close();
  bool is_open() const { return handle_ >= 0; }

  // Waits until there is something to read or, with to_write, room to write.
  void wait(bool to_write, int milliseconds);
  // Both return the number of bytes, 0 if they would block, or -1 if the connection is lost.
  long send(const void* bytes, size_t size);
  long receive(void* bytes, size_t size);

 private:
  int handle_ = -1;
};

// The folder of the server's socket, token and offers.
std::string server_folder();
// The folder in the plugin's bundle that 'bsmamba2 plugin install' writes to.
std::string resources_folder();
// Reads a small text file; returns an empty text if it is missing, too large or not this user's.
std::string read_own_file(const std::string& path, size_t limit);

enum class Launch { starting, failed };
// Runs the command that 'bsmamba2 plugin install' wrote into the plugin's bundle, one argument a
// line, unless it is running or has failed in the last 30 s. The command ends when the server
// accepts connections. Returns at once: starting while it runs and for a while after it has
// succeeded; failed if it has failed or there is no command.
Launch launch_server();
