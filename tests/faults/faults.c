/* Fail, or end the process at, the n-th call that changes the disk below one folder.
 *
 * Preloaded into a Python process, which sets the globals through ctypes. Every thread and library of the process is
 * covered: calls are replaced where the dynamic linker finds them, whoever makes them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static size_t root_length;
static long counted, first = -1, last = -1;
static int code, action, kinds = ~0, trace = -1;

enum { FAIL, END_BEFORE, END_AFTER };
enum { OPEN = 1, WRITE = 2, SYNC = 4, RENAME = 8, FOLDER = 16, DELETE = 32 };

/* Arm: calls number first..last (from 0) of the given kinds fail with an error code, or end the process. */
void faults_arm(const char *folder, long from, long to, int error, int what, int which) {
    root_length = 0;
    strncpy(root, folder, PATH_MAX - 1);
    counted = 0, first = from, last = to, code = error, action = what, kinds = which;
    root_length = strlen(root);
}
long faults_disarm(void) { root_length = 0; return counted; }
void faults_trace(int descriptor) { trace = descriptor; }

#define NEXT(type, name, ...) static type (*next)(__VA_ARGS__); if (!next) next = dlsym(RTLD_NEXT, name)

static int below(const char *path) {
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}
static int path_at(int folder, const char *path, char *full) {
    if (!root_length || !path) return 0;
    if (path[0] == '/') { snprintf(full, PATH_MAX, "%s", path); return below(full); }
    char link[64], start[PATH_MAX] = "";
    if (folder == AT_FDCWD) { if (!getcwd(start, sizeof start)) return 0; }
    else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, start, sizeof start - 1);
        if (n < 0) return 0;
        start[n] = 0;
    }
    snprintf(full, PATH_MAX, "%.2000s/%.2000s", start, path);
    return below(full);
}
static int path_of(int descriptor, char *full) {
    if (!root_length || descriptor < 0) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t n = readlink(link, full, PATH_MAX - 1);
    if (n < 0) return 0;
    full[n] = 0;
    return below(full);
}
/* Count a call; return what to do: 0 go on, 1 fail, 2 end afterwards. */
static int strikes(int kind, const char *name, const char *path) {
    if (!(kinds & kind)) return 0;
    long number = __atomic_fetch_add(&counted, 1, __ATOMIC_SEQ_CST);
    if (trace >= 0) { int keep = errno; dprintf(trace, "%ld\t%s\t%s\n", number, name, path); errno = keep; }
    if (number < first || number > last) return 0;
    if (action == END_BEFORE) _exit(137);
    if (action == END_AFTER) return 2;
    errno = code;
    return 1;
}
#define STRIKE(kind, name, path, call) do { \
    int struck = strikes(kind, name, path); \
    if (struck == 1) return -1; \
    __typeof__(call) result = call; \
    if (struck == 2) _exit(137); \
    return result; } while (0)

static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); \
    mode = va_arg(l, mode_t); va_end(l); } char full[PATH_MAX]
int open(const char *path, int flags, ...) {
    NEXT(int, "open", const char *, int, ...); MODE;
    if (writes(flags) && path_at(AT_FDCWD, path, full)) STRIKE(OPEN, "open", full, next(path, flags, mode));
    return next(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    NEXT(int, "open64", const char *, int, ...); MODE;
    if (writes(flags) && path_at(AT_FDCWD, path, full)) STRIKE(OPEN, "open", full, next(path, flags, mode));
    return next(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    NEXT(int, "openat", int, const char *, int, ...); MODE;
    if (writes(flags) && path_at(folder, path, full)) STRIKE(OPEN, "open", full, next(folder, path, flags, mode));
    return next(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    NEXT(int, "openat64", int, const char *, int, ...); MODE;
    if (writes(flags) && path_at(folder, path, full)) STRIKE(OPEN, "open", full, next(folder, path, flags, mode));
    return next(folder, path, flags, mode);
}
ssize_t write(int d, const void *b, size_t n) {
    NEXT(ssize_t, "write", int, const void *, size_t); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(WRITE, "write", full, next(d, b, n));
    return next(d, b, n);
}
ssize_t writev(int d, const struct iovec *b, int n) {
    NEXT(ssize_t, "writev", int, const struct iovec *, int); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(WRITE, "write", full, next(d, b, n));
    return next(d, b, n);
}
ssize_t pwrite(int d, const void *b, size_t n, off_t o) {
    NEXT(ssize_t, "pwrite", int, const void *, size_t, off_t); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(WRITE, "write", full, next(d, b, n, o));
    return next(d, b, n, o);
}
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) {
    NEXT(ssize_t, "pwrite64", int, const void *, size_t, off64_t); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(WRITE, "write", full, next(d, b, n, o));
    return next(d, b, n, o);
}
ssize_t sendfile(int d, int from, off_t *o, size_t n) {
    NEXT(ssize_t, "sendfile", int, int, off_t *, size_t); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(WRITE, "write", full, next(d, from, o, n));
    return next(d, from, o, n);
}
ssize_t sendfile64(int d, int from, off64_t *o, size_t n) {
    NEXT(ssize_t, "sendfile64", int, int, off64_t *, size_t); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(WRITE, "write", full, next(d, from, o, n));
    return next(d, from, o, n);
}
int ftruncate(int d, off_t n) {
    NEXT(int, "ftruncate", int, off_t); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(WRITE, "truncate", full, next(d, n));
    return next(d, n);
}
int ftruncate64(int d, off64_t n) {
    NEXT(int, "ftruncate64", int, off64_t); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(WRITE, "truncate", full, next(d, n));
    return next(d, n);
}
int fsync(int d) {
    NEXT(int, "fsync", int); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(SYNC, "sync", full, next(d));
    return next(d);
}
int fdatasync(int d) {
    NEXT(int, "fdatasync", int); char full[PATH_MAX];
    if (path_of(d, full)) STRIKE(SYNC, "sync", full, next(d));
    return next(d);
}
static const char *pair(const char *a, const char *b, char *both) {
    snprintf(both, 2 * PATH_MAX, "%s\t%s", a, b);
    return both;
}
int rename(const char *a, const char *b) {
    NEXT(int, "rename", const char *, const char *); char x[PATH_MAX], y[PATH_MAX], both[2 * PATH_MAX];
    if (path_at(AT_FDCWD, b, y) && path_at(AT_FDCWD, a, x)) STRIKE(RENAME, "rename", pair(x, y, both), next(a, b));
    return next(a, b);
}
int renameat(int c, const char *a, int d, const char *b) {
    NEXT(int, "renameat", int, const char *, int, const char *);
    char x[PATH_MAX], y[PATH_MAX], both[2 * PATH_MAX];
    if (path_at(d, b, y) && path_at(c, a, x)) STRIKE(RENAME, "rename", pair(x, y, both), next(c, a, d, b));
    return next(c, a, d, b);
}
int renameat2(int c, const char *a, int d, const char *b, unsigned f) {
    NEXT(int, "renameat2", int, const char *, int, const char *, unsigned);
    char x[PATH_MAX], y[PATH_MAX], both[2 * PATH_MAX];
    if (path_at(d, b, y) && path_at(c, a, x)) STRIKE(RENAME, f & 2 ? "exchange" : "rename", pair(x, y, both), next(c, a, d, b, f));
    return next(c, a, d, b, f);
}
int mkdir(const char *path, mode_t mode) {
    NEXT(int, "mkdir", const char *, mode_t); char full[PATH_MAX];
    if (path_at(AT_FDCWD, path, full)) STRIKE(FOLDER, "mkdir", full, next(path, mode));
    return next(path, mode);
}
int mkdirat(int folder, const char *path, mode_t mode) {
    NEXT(int, "mkdirat", int, const char *, mode_t); char full[PATH_MAX];
    if (path_at(folder, path, full)) STRIKE(FOLDER, "mkdir", full, next(folder, path, mode));
    return next(folder, path, mode);
}
int unlink(const char *path) {
    NEXT(int, "unlink", const char *); char full[PATH_MAX];
    if (path_at(AT_FDCWD, path, full)) STRIKE(DELETE, "unlink", full, next(path));
    return next(path);
}
int unlinkat(int folder, const char *path, int flags) {
    NEXT(int, "unlinkat", int, const char *, int); char full[PATH_MAX];
    if (path_at(folder, path, full)) STRIKE(DELETE, "unlink", full, next(folder, path, flags));
    return next(folder, path, flags);
}
int rmdir(const char *path) {
    NEXT(int, "rmdir", const char *); char full[PATH_MAX];
    if (path_at(AT_FDCWD, path, full)) STRIKE(DELETE, "rmdir", full, next(path));
    return next(path);
}
