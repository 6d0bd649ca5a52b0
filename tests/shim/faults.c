/* Faults beneath a process: preloaded (LD_PRELOAD), it stands between libc's callers and the kernel.
 *
 * It knows files and directories beneath one directory, by what the kernel calls them at that moment
 * (/proc/self/fd), so renames, duplicated descriptors and opens that it did not see are no trouble. It
 * counts the operations on them, and kills the process at one of them, or lets it fail. It also keeps a
 * shadow: what a strict disk would still have after a power cut, which is only what was synced. It
 * cannot see system calls that do not go through libc. 64-bit Linux only.
 *
 * Kinds of operations, a letter each:
 *   w write to a file       s sync of a file          d sync of a directory   t ftruncate, fallocate
 *   o open without O_CREAT  c open with O_CREAT       m mkdir                 r rename
 *   u unlink, rmdir
 *
 * Environment:
 *   TIDAL_SHIM_DIR     the directory; without it nothing happens
 *   TIDAL_SHIM_KINDS   the kinds that are counted
 *   TIDAL_SHIM_MATCH   only paths that contain this are counted (of a rename, both are looked at)
 *   TIDAL_SHIM_AT      which of the counted operations is met with the fault, from 1; 0: none
 *   TIDAL_SHIM_FAULT   kill-before, kill-after: SIGKILL, the operation is not done, or done
 *                      eio, enospc, emfile, enomem: it is not done and fails with that
 *                      short: half of the bytes are written, and that is said (writes only)
 *                      torn: half of the bytes are written, then EIO (writes only)
 *   TIDAL_SHIM_STAYS   1: every counted operation after it meets the fault as well
 *   TIDAL_SHIM_TRACE   a file that gets a line for each counted operation: number, kind, path, and `!`
 *                      behind it when it met the fault
 *   TIDAL_SHIM_SHADOW  a directory that gets, for each inode that is synced, a file with its content, or a
 *                      directory's listing (a line for each entry: f or d, id, name). Its name is the
 *                      inode's id, `<number>-<birth, s>-<birth, ns>`, because inode numbers are used again.
 *                      After a sync that failed the kernel takes pages for clean that are not on the disk:
 *                      what was so in the inode at that moment is kept in `<id>.failed`, and a later sync
 *                      puts only those pages into the shadow that were written since.
 *   TIDAL_SHIM_NOFILE  the limit on open files (RLIMIT_NOFILE)
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

_Static_assert(sizeof(long) == 8, "offsets are passed to the kernel in one register");

enum { PAGE_BYTES = 4096 };
enum { PASS = 0, KILL_BEFORE = -1, KILL_AFTER = -2, SHORT = -3, TORN = -4 }; /* above 0: an errno */

static const char *dir, *kinds, *match, *shadow;
static size_t dir_len;
static long fault_at;
static int fault, stays, trace_fd = -1;
static atomic_long seen;
/* Held around a sync and its shadow, and by a thread that dies, so that no shadow comes after it. */
static pthread_mutex_t shadow_lock = PTHREAD_MUTEX_INITIALIZER;

static const char *setting(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

static int fault_named(const char *name) {
    static const struct { const char *name; int fault; } all[] = {
        {"kill-before", KILL_BEFORE}, {"kill-after", KILL_AFTER}, {"short", SHORT}, {"torn", TORN},
        {"eio", EIO}, {"enospc", ENOSPC}, {"emfile", EMFILE}, {"enomem", ENOMEM}, {"", PASS},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, name)) return all[i].fault;
    abort();
}

__attribute__((constructor)) static void begin(void) {
    kinds = setting("TIDAL_SHIM_KINDS");
    match = setting("TIDAL_SHIM_MATCH");
    fault_at = atol(setting("TIDAL_SHIM_AT"));
    fault = fault_named(setting("TIDAL_SHIM_FAULT"));
    stays = *setting("TIDAL_SHIM_STAYS") == '1';
    shadow = *setting("TIDAL_SHIM_SHADOW") ? setting("TIDAL_SHIM_SHADOW") : NULL;
    if (*setting("TIDAL_SHIM_TRACE"))
        trace_fd = syscall(SYS_openat, AT_FDCWD, setting("TIDAL_SHIM_TRACE"),
                           O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (*setting("TIDAL_SHIM_NOFILE")) {
        rlim_t limit = atol(setting("TIDAL_SHIM_NOFILE"));
        setrlimit(RLIMIT_NOFILE, &(struct rlimit){limit, limit});
    }
    dir_len = strlen(setting("TIDAL_SHIM_DIR"));
    dir = dir_len ? setting("TIDAL_SHIM_DIR") : NULL;
}

_Noreturn static void die(void) {
    for (;;) syscall(SYS_kill, getpid(), SIGKILL);
}

/* Paths. A path buffer has PATH_MAX bytes; what does not fit is not beneath the directory. */

static int is_beneath(const char *path) {
    return dir && !strncmp(path, dir, dir_len) && (path[dir_len] == '/' || !path[dir_len]);
}

/* The path of an open file, if it lies beneath the directory. */
static int path_of(int fd, char *path) {
    char link[32];
    if (!dir || fd <= STDERR_FILENO) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int saved = errno;
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    errno = saved;
    if (len < 0) return 0;
    path[len] = 0;
    return is_beneath(path);
}

/* The path that is meant by one relative to an open directory, if it lies beneath the directory. */
static int path_at(int at, const char *given, char *path) {
    char base[PATH_MAX] = "";
    if (!dir) return 0;
    if (*given != '/') {
        if (at == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) return 0;
        } else if (!path_of(at, base)) {
            return 0;
        }
    }
    int len = snprintf(path, PATH_MAX, *base ? "%s/%s" : "%s%s", base, given);
    return len < PATH_MAX && is_beneath(path);
}

/* Counts an operation, and says what becomes of it. */
static int judge(char kind, const char *path, const char *other) {
    int matches = strstr(path, match) || (other && strstr(other, match));
    if (!strchr(kinds, kind) || !matches) return PASS;
    long number = atomic_fetch_add(&seen, 1) + 1;
    int met = fault_at && (number == fault_at || (stays && number > fault_at));
    if (trace_fd >= 0) {
        char line[2 * PATH_MAX + 64];
        int len = snprintf(line, sizeof line, "%ld %c %s%s\n", number, kind, path, met ? " !" : "");
        syscall(SYS_write, trace_fd, line, len);
    }
    if (!met) return PASS;
    if (fault == KILL_BEFORE) {
        pthread_mutex_lock(&shadow_lock);
        die();
    }
    return fault;
}

/* Does an operation, or not, as was judged. */
#define DO(judged, call)                                                                          \
    ({                                                                                            \
        int verdict_ = (judged);                                                                  \
        long result_ = -1;                                                                        \
        if (verdict_ > 0) errno = verdict_;                                                       \
        else result_ = (call);                                                                    \
        if (verdict_ == KILL_AFTER) pthread_mutex_lock(&shadow_lock), die();                      \
        result_;                                                                                  \
    })

/* The shadow. */

static int id_of(int at, const char *name, int flags, char id[64]) {
    struct statx s;
    if (statx(at, name, flags | AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &s)) return 0;
    snprintf(id, 64, "%llu-%lld-%u", (unsigned long long)s.stx_ino, (long long)s.stx_btime.tv_sec,
             s.stx_btime.tv_nsec);
    return 1;
}

static int shadow_file(const char *id, const char *suffix, int flags, char *path) {
    snprintf(path, PATH_MAX, "%s/%s%s", shadow, id, suffix);
    return syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0644);
}

/* The same file, opened for reading. */
static int reopen(int fd) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return syscall(SYS_openat, AT_FDCWD, link, O_RDONLY | O_CLOEXEC, 0);
}

static void list_directory(int fd, int to) {
    DIR *listing = fdopendir(syscall(SYS_openat, fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0));
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        char id[64], line[NAME_MAX + 80];
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (!id_of(fd, entry->d_name, 0, id)) continue;
        char type = entry->d_type == DT_DIR ? 'd' : 'f';
        int len = snprintf(line, sizeof line, "%c %s %s\n", type, id, entry->d_name);
        syscall(SYS_write, to, line, len);
    }
    if (listing) closedir(listing);
}

/* Copies what holds data; holes stay holes. */
static void copy_file(int fd, int to) {
    char bytes[1 << 16];
    int from = reopen(fd);
    off_t at = 0, end = lseek(from, 0, SEEK_END);
    while (at < end && (at = lseek(from, at, SEEK_DATA)) >= 0) {
        off_t hole = lseek(from, at, SEEK_HOLE);
        while (at < hole) {
            size_t want = hole - at < (off_t)sizeof bytes ? (size_t)(hole - at) : sizeof bytes;
            ssize_t got = syscall(SYS_pread64, from, bytes, want, at);
            if (got <= 0) break;
            syscall(SYS_pwrite64, to, bytes, got, at);
            at += got;
        }
        if (at < hole) break;
    }
    syscall(SYS_ftruncate, to, end);
    syscall(SYS_close, from);
}

static ssize_t page_of(int fd, off_t at, char page[PAGE_BYTES]) {
    memset(page, 0, PAGE_BYTES);
    ssize_t got = fd < 0 ? 0 : syscall(SYS_pread64, fd, page, PAGE_BYTES, at);
    return got < 0 ? 0 : got;
}

/* Pages written since a sync failed are dirty again, be it with the same bytes: they are made to differ
 * from what is kept of that moment. */
static void note_write(int fd, off_t at, ssize_t len) {
    char id[64], path[PATH_MAX], page[PAGE_BYTES];
    if (!shadow || len <= 0 || !id_of(fd, "", AT_EMPTY_PATH, id)) return;
    pthread_mutex_lock(&shadow_lock);
    int failed = shadow_file(id, ".failed", O_RDWR, path), live = failed < 0 ? -1 : reopen(fd);
    off_t page_at = at - at % PAGE_BYTES, end = at + len;
    off_t kept = failed < 0 ? 0 : lseek(failed, 0, SEEK_END);
    for (; page_at < end && page_at < kept; page_at += PAGE_BYTES) {
        ssize_t got = page_of(live, page_at, page);
        for (ssize_t i = 0; i < got; i++) page[i] = ~page[i];
        syscall(SYS_pwrite64, failed, page, got, page_at);
    }
    if (failed >= 0) syscall(SYS_close, failed), syscall(SYS_close, live);
    pthread_mutex_unlock(&shadow_lock);
}

/* Takes the pages back that no sync writes any more, since they are as they were when one failed. Of a
 * directory, which has one page here, that is all or nothing. */
static void take_lost_pages_back(const char *id, int is_directory) {
    static char path[PATH_MAX], now[PAGE_BYTES], then[PAGE_BYTES], before[PAGE_BYTES];
    int failed = shadow_file(id, ".failed", O_RDONLY, path);
    if (failed < 0) return;
    int next = shadow_file(id, ".next", O_RDWR, path), last = shadow_file(id, "", O_RDONLY, path);
    off_t end = lseek(failed, 0, SEEK_END), size = lseek(next, 0, SEEK_END), at = 0;
    int same = size == end;
    for (; at < end && at < size; at += PAGE_BYTES) {
        page_of(next, at, now), page_of(failed, at, then), page_of(last, at, before);
        int kept = !memcmp(now, then, PAGE_BYTES);
        same = same && kept;
        if (kept && !is_directory) syscall(SYS_pwrite64, next, before, PAGE_BYTES, at);
    }
    syscall(SYS_ftruncate, next, is_directory && same ? 0 : size);
    for (at = 0; is_directory && same && page_of(last, at, before); at += PAGE_BYTES)
        syscall(SYS_pwrite64, next, before, strnlen(before, PAGE_BYTES), at);
    syscall(SYS_close, failed), syscall(SYS_close, next), syscall(SYS_close, last);
}

static void rename_shadow(const char *id, const char *suffix) {
    char from[PATH_MAX], to[PATH_MAX];
    snprintf(from, sizeof from, "%s/%s.next", shadow, id);
    snprintf(to, sizeof to, "%s/%s%s", shadow, id, suffix);
    syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* Syncs a file or directory. What it held before the sync began is on disk once the sync has succeeded. */
static int sync_file(long call, int fd) {
    char path[PATH_MAX], id[64];
    struct stat s;
    if (!path_of(fd, path) || fstat(fd, &s)) return syscall(call, fd);
    int is_directory = S_ISDIR(s.st_mode);
    int verdict = judge(is_directory ? 'd' : 's', path, NULL);
    if (!shadow || !id_of(fd, "", AT_EMPTY_PATH, id)) return DO(verdict, syscall(call, fd));
    pthread_mutex_lock(&shadow_lock);
    int next = shadow_file(id, ".next", O_WRONLY | O_CREAT | O_TRUNC, path);
    if (is_directory) list_directory(fd, next);
    else copy_file(fd, next);
    syscall(SYS_close, next);
    long result = verdict > 0 ? -1 : syscall(call, fd);
    int error = verdict > 0 ? verdict : errno;
    if (result == 0) take_lost_pages_back(id, is_directory);
    rename_shadow(id, result ? ".failed" : "");
    if (verdict == KILL_AFTER) die();
    pthread_mutex_unlock(&shadow_lock);
    errno = error;
    return result;
}

/* Writes. */

static ssize_t write_out(int fd, const struct iovec *parts, int count, off_t at) {
    if (at < 0) return syscall(SYS_writev, fd, parts, count);
    return syscall(SYS_pwritev, fd, parts, count, at, 0L);
}

/* Writes half of the first part that is not empty: of what is left, a caller may ask again. */
static ssize_t write_half(int fd, const struct iovec *parts, int count, off_t at) {
    for (int i = 0; i < count; i++) {
        if (!parts[i].iov_len) continue;
        struct iovec half = {parts[i].iov_base, (parts[i].iov_len + 1) / 2};
        return write_out(fd, &half, 1, at);
    }
    return 0;
}

static ssize_t write_judged(int fd, const struct iovec *parts, int count, off_t at) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return write_out(fd, parts, count, at);
    int verdict = judge('w', path, NULL);
    if (verdict == SHORT) return write_half(fd, parts, count, at);
    if (verdict == TORN) {
        write_half(fd, parts, count, at);
        errno = EIO;
        return -1;
    }
    ssize_t written = DO(verdict, write_out(fd, parts, count, at));
    int saved = errno;
    note_write(fd, at < 0 ? lseek(fd, 0, SEEK_CUR) - written : at, written);
    errno = saved;
    return written;
}

/* What is interposed. The names with 64 are the same where `long` has 64 bits. */

ssize_t write(int fd, const void *bytes, size_t len) {
    return write_judged(fd, &(struct iovec){(void *)bytes, len}, 1, -1);
}
ssize_t pwrite(int fd, const void *bytes, size_t len, off_t at) {
    return write_judged(fd, &(struct iovec){(void *)bytes, len}, 1, at);
}
ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t at) { return pwrite(fd, bytes, len, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { return write_judged(fd, parts, count, -1); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    return write_judged(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) {
    return write_judged(fd, parts, count, at);
}
/* Callers have a way for kernels without it, which is seen. */
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t len, unsigned flags) {
    char path[PATH_MAX];
    if (path_of(to, path)) return errno = EXDEV, -1;
    return syscall(SYS_copy_file_range, from, from_at, to, to_at, len, flags);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t len) {
    char path[PATH_MAX];
    if (path_of(to, path)) return errno = EINVAL, -1;
    return syscall(SYS_sendfile, to, from, at, len);
}

int fsync(int fd) { return sync_file(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_file(SYS_fdatasync, fd); }

int ftruncate(int fd, off_t len) {
    char path[PATH_MAX];
    return DO(path_of(fd, path) ? judge('t', path, NULL) : PASS, syscall(SYS_ftruncate, fd, len));
}
int ftruncate64(int fd, off64_t len) { return ftruncate(fd, len); }
int fallocate(int fd, int mode, off_t at, off_t len) {
    char path[PATH_MAX];
    int verdict = path_of(fd, path) ? judge('t', path, NULL) : PASS;
    return DO(verdict, syscall(SYS_fallocate, fd, mode, at, len));
}
int fallocate64(int fd, int mode, off64_t at, off64_t len) { return fallocate(fd, mode, at, len); }

static int open_judged(int at, const char *given, int flags, mode_t mode) {
    char path[PATH_MAX];
    char kind = flags & O_CREAT ? 'c' : 'o';
    int verdict = path_at(at, given, path) ? judge(kind, path, NULL) : PASS;
    return DO(verdict, syscall(SYS_openat, at, given, flags, mode));
}

/* The mode is there when a file may be made. */
#define OPEN(at, given, flags)                                                                    \
    va_list rest;                                                                                 \
    va_start(rest, flags);                                                                        \
    mode_t mode = flags & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY)) ? va_arg(rest, mode_t) : 0;      \
    va_end(rest);                                                                                 \
    return open_judged(at, given, flags, mode)

int open(const char *given, int flags, ...) { OPEN(AT_FDCWD, given, flags); }
int open64(const char *given, int flags, ...) { OPEN(AT_FDCWD, given, flags); }
int openat(int at, const char *given, int flags, ...) { OPEN(at, given, flags); }
int openat64(int at, const char *given, int flags, ...) { OPEN(at, given, flags); }

int renameat2(int at, const char *from, int to_at, const char *to, unsigned flags) {
    char old[PATH_MAX], new[PATH_MAX];
    int beneath = path_at(at, from, old) | path_at(to_at, to, new);
    return DO(beneath ? judge('r', new, old) : PASS, syscall(SYS_renameat2, at, from, to_at, to, flags));
}
int renameat(int at, const char *from, int to_at, const char *to) {
    return renameat2(at, from, to_at, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int unlinkat(int at, const char *given, int flags) {
    char path[PATH_MAX];
    int verdict = path_at(at, given, path) ? judge('u', path, NULL) : PASS;
    return DO(verdict, syscall(SYS_unlinkat, at, given, flags));
}
int unlink(const char *given) { return unlinkat(AT_FDCWD, given, 0); }
int rmdir(const char *given) { return unlinkat(AT_FDCWD, given, AT_REMOVEDIR); }

int mkdirat(int at, const char *given, mode_t mode) {
    char path[PATH_MAX];
    int verdict = path_at(at, given, path) ? judge('m', path, NULL) : PASS;
    return DO(verdict, syscall(SYS_mkdirat, at, given, mode));
}
int mkdir(const char *given, mode_t mode) { return mkdirat(AT_FDCWD, given, mode); }
