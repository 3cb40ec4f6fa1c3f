#include "socket.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <vector>

extern char** environ;

namespace {

bool is_private(const struct stat& info) {
  return info.st_uid == geteuid() && (info.st_mode & 077) == 0;
}

bool peer_is_this_user(int handle) {
#ifdef SO_PEERCRED
  struct ucred peer;
  socklen_t size = sizeof peer;
  return !getsockopt(handle, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.uid == geteuid();
#else
  uid_t user;
  gid_t group;
  return !getpeereid(handle, &user, &group) && user == geteuid();
#endif
}

int digit(char letter) {
  if (letter >= '0' && letter <= '9') return letter - '0';
  if (letter >= 'a' && letter <= 'f') return letter - 'a' + 10;
  return -1;
}

bool parse_token(const std::string& text, unsigned char token[32]) {
  if (text.size() < 64) return false;
  for (int i = 0; i < 32; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    token[i] = static_cast<unsigned char>(16 * high + low);
  }
  return true;
}

// Returns the process of the command; 0 if there is no command or it cannot run.
pid_t run_start_command() {
  const std::string text = read_own_file(resources_folder() + "/serve", 4096);
  std::vector<std::string> words;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    words.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  if (words.empty() || words[0].empty() || words[0][0] != '/') return 0;

  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
  posix_spawn_file_actions_addopen(&files, 2, "/dev/null", O_WRONLY, 0);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
  pid_t child;
  const int failed = posix_spawn(&child, words[0].c_str(), &files, &attributes, arguments.data(),
                                 environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  return failed ? 0 : child;
}

}  // namespace

std::string server_folder() {
  if (const char* folder = getenv("BSMAMBA2_SERVE_DIR")) return folder;
  if (const char* folder = getenv("XDG_RUNTIME_DIR")) return std::string(folder) + "/bsmamba2";
  const char* home = getenv("HOME");
  return std::string(home ? home : "/nonexistent") + "/.cache/bsmamba2/serve";
}

std::string resources_folder() {
  Dl_info self;
  if (!dladdr(reinterpret_cast<const void*>(&run_start_command), &self) || !self.dli_fname)
    return "/nonexistent";
  std::string path = self.dli_fname;  // …/bsmamba2.vst3/Contents/x86_64-linux/bsmamba2.so
  for (int up = 0; up < 2; ++up) path.resize(std::min(path.size(), path.rfind('/')));
  return path + "/Resources";
}

std::string read_own_file(const std::string& path, size_t limit) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return {};
  struct stat info;
  std::string text;
  if (!fstat(file, &info) && S_ISREG(info.st_mode) && info.st_uid == geteuid() &&
      (info.st_mode & 022) == 0 && size_t(info.st_size) <= limit) {
    text.resize(info.st_size);
    const ssize_t got = read(file, text.data(), text.size());
    text.resize(got > 0 ? got : 0);
  }
  ::close(file);
  return text;
}

bool Socket::open(unsigned char token[32]) {
  close();
  const std::string folder = server_folder(), path = folder + "/socket";
  struct stat info;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path || stat(folder.c_str(), &info) || !is_private(info) ||
      !parse_token(read_own_file(folder + "/token", 100), token))
    return false;
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  handle_ = socket(AF_UNIX, SOCK_STREAM, 0);
  if (handle_ < 0) return false;
  fcntl(handle_, F_SETFD, FD_CLOEXEC);
  fcntl(handle_, F_SETFL, O_NONBLOCK);
  if (connect(handle_, reinterpret_cast<sockaddr*>(&address), sizeof address) ||
      !peer_is_this_user(handle_)) {
    close();
    return false;
  }
  return true;
}

void Socket::close() {
  if (handle_ >= 0) ::close(handle_);
  handle_ = -1;
}

void Socket::wait(bool to_write, int milliseconds) {
  pollfd entry{handle_, short(POLLIN | (to_write ? POLLOUT : 0)), 0};
  poll(&entry, handle_ >= 0 ? 1 : 0, milliseconds);
}

long Socket::send(const void* bytes, size_t size) {
#ifdef MSG_NOSIGNAL
  const ssize_t sent = ::send(handle_, bytes, size, MSG_NOSIGNAL);
#else
  const ssize_t sent = ::send(handle_, bytes, size, 0);
#endif
  if (sent >= 0) return sent;
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
}

long Socket::receive(void* bytes, size_t size) {
  const ssize_t received = recv(handle_, bytes, size, 0);
  if (received > 0) return received;
  if (received == 0) return -1;  // the server closed the connection
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : -1;
}

Launch launch_server() {
  using Clock = std::chrono::steady_clock;
  static std::mutex mutex;
  static Clock::time_point next_launch;
  static pid_t child = 0;
  static Launch result = Launch::failed;
  std::lock_guard lock(mutex);
  if (child) {
    int status = 0;
    const pid_t ended = waitpid(child, &status, WNOHANG);
    if (!ended) return Launch::starting;
    // A host that waits for every child itself takes the status away.
    const bool succeeded = ended != child || (WIFEXITED(status) && !WEXITSTATUS(status));
    child = 0;
    result = succeeded ? Launch::starting : Launch::failed;
    next_launch = Clock::now() + std::chrono::seconds(succeeded ? 5 : 30);
  }
  if (Clock::now() < next_launch) return result;
  child = run_start_command();
  return child ? Launch::starting : Launch::failed;
}
