/* Preloaded into a process (LD_PRELOAD), kills it at its N-th file operation below a folder: KILL_AT, KILL_UNDER.
   It sees what Python's os module never does: the writes of TensorStore's threads. KILL_LOG gets the count at exit. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long counted;

static void come(void) {
  const char *at = getenv("KILL_AT");
  long now = __sync_add_and_fetch(&counted, 1);
  if (at && now == atol(at)) raise(SIGKILL);
}

static int under(const char *path) {
  const char *folder = getenv("KILL_UNDER");
  return folder && path && strncmp(path, folder, strlen(folder)) == 0;
}

static void come_path(const char *path) {
  if (under(path)) come();
}

static void come_file(int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length > 0) {
    path[length] = 0;
    come_path(path);
  }
}

__attribute__((destructor)) static void report(void) {
  const char *log = getenv("KILL_LOG");
  FILE *file = log ? fopen(log, "w") : NULL;
  if (file) {
    fprintf(file, "%ld\n", counted);
    fclose(file);
  }
}

#define REAL(name) __typeof__(name) *real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define ON_FILE(type, name, parameters, arguments) \
  type name parameters { REAL(name); come_file(file); return real arguments; }
#define ON_PATH(name, parameters, arguments) \
  int name parameters { REAL(name); come_path(path); return real arguments; }
#define ON_OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    REAL(name); if (flags & (O_CREAT | O_WRONLY | O_RDWR)) come_path(path); return real(path, flags, mode); }
#define ON_OPENAT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
    REAL(name); if (flags & (O_CREAT | O_WRONLY | O_RDWR)) come_path(path); return real(folder, path, flags, mode); }

ON_OPEN(open)
ON_OPEN(open64)
ON_OPENAT(openat)
ON_OPENAT(openat64)
ON_FILE(ssize_t, write, (int file, const void *data, size_t size), (file, data, size))
ON_FILE(ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), (file, data, size, at))
ON_FILE(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), (file, data, size, at))
ON_FILE(int, fsync, (int file), (file))
ON_FILE(int, fdatasync, (int file), (file))
ON_FILE(int, ftruncate, (int file, off_t size), (file, size))
ON_FILE(int, ftruncate64, (int file, off64_t size), (file, size))
ON_PATH(rename, (const char *path, const char *to), (path, to))
ON_PATH(link, (const char *path, const char *to), (path, to))
ON_PATH(unlink, (const char *path), (path))
ON_PATH(mkdir, (const char *path, mode_t mode), (path, mode))
ON_PATH(rmdir, (const char *path), (path))
int renameat(int a, const char *path, int b, const char *to) { REAL(renameat); come_path(path); return real(a, path, b, to); }
int linkat(int a, const char *path, int b, const char *to, int f) { REAL(linkat); come_path(path); return real(a, path, b, to, f); }
int unlinkat(int a, const char *path, int flags) { REAL(unlinkat); come_path(path); return real(a, path, flags); }
int mkdirat(int a, const char *path, mode_t mode) { REAL(mkdirat); come_path(path); return real(a, path, mode); }
