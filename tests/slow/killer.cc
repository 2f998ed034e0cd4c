// Preloaded into a process: kills it in the middle of the n-th thing that it does to the
// files of a folder. A write that is cut short leaves half of its bytes.

#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

namespace {

char folder[4096];
int fatal = 0;
int seen = 0;

bool within(const char* path) {
  return *folder && std::strncmp(path, folder, std::strlen(folder)) == 0;
}

bool within(int file) {
  char link[64], path[4096];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return false;
  path[size] = 0;
  return within(path);
}

bool is_fatal(bool ours) { return ours && ++seen == fatal; }

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

void killer_arm(const char* path, int number) {
  std::snprintf(folder, sizeof folder, "%s", path);
  fatal = number;
  seen = 0;
}

int killer_seen() { return seen; }

ssize_t write(int file, const void* data, size_t size) {
  static auto* real = next<ssize_t(int, const void*, size_t)>("write");
  if (!is_fatal(within(file))) return real(file, data, size);
  real(file, data, size / 2);
  return kill(getpid(), SIGKILL);
}

int fsync(int file) {
  static auto* real = next<int(int)>("fsync");
  if (is_fatal(within(file))) kill(getpid(), SIGKILL);
  return real(file);
}

int unlink(const char* path) {
  static auto* real = next<int(const char*)>("unlink");
  if (is_fatal(within(path))) kill(getpid(), SIGKILL);
  return real(path);
}

// Before, and then after.
int rename(const char* from, const char* to) {
  static auto* real = next<int(const char*, const char*)>("rename");
  if (is_fatal(within(to))) kill(getpid(), SIGKILL);
  const int result = real(from, to);
  if (is_fatal(within(to))) kill(getpid(), SIGKILL);
  return result;
}

}  // extern "C"
