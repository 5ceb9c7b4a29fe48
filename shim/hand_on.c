/* How it works. In a process that starts a static program, the tracer is executed in its place, with the program's
 * path, or a descriptor of it; it becomes the program (tracer/main.c). Whether it is needed depends on the filter that
 * the process may have, which answers here to a call that no other kernel would answer so:
 *
 * - by ptrace: the exec itself is enough, the tracer is there;
 * - by notify: the filter is inherited, so the program must have the library when it begins. Where the root or the
 * mounts have changed since, so that neither the tracer nor the library is found by its path any more, a dynamic
 * program would be without it, too. So a descriptor of their directory is kept before, by which all programs are handed
 * on then.
 */
#define _GNU_SOURCE
#include "hand_on.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elf.h"
#include "kept.h"
#include "landing/landing.h"
#include "settings.h"
#include "sys.h"

enum { HEAD_SIZE = 256 /* of a script that the kernel looks at (execve(2)) */, DEPTH = 5 };

static struct kept home; /* the directory of the tracer and the library */

/* ANSWER_TRACED, ANSWER_TRAPPED, or something else. */
static int ask_filter(void) {
    return -(int)sys3(SYS_socket, -1, 0, 0);
}

void keep_given_home(int fd) {
    sys3(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
    home = file_of(fd);
}

void keep_tracer_home(void) {
    char path[sizeof get_settings()->tracer];
    size_t size = as_strlen(get_settings()->tracer);
    if (ask_filter() != ANSWER_TRAPPED || is_kept(&home)) return;
    memcpy(path, get_settings()->tracer, size + 1);
    while (size && path[size - 1] != '/') size--;
    path[size] = 0;
    long fd = sys4(SYS_openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd >= 0) home = file_of(move_high((int)fd));
}

int open_tracer_home(void) {
    return is_kept(&home) ? (int)sys3(SYS_fcntl, home.fd, F_DUPFD, home.fd) : -1;
}

/* Whether somebody traces this process already (proc_pid_status(5)): another tracer could do nothing, and a debugger
 * takes the next program that is executed for the one that it was asked for. */
static int is_debugged(void) {
    static const char word[] = "TracerPid:\t";
    char status[512];
    long fd = sys4(SYS_openat, AT_FDCWD, "/proc/self/status", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return 0;
    long size = sys3(SYS_read, fd, status, sizeof status), end = size - (long)sizeof word, at = 0;
    sys1(SYS_close, fd);
    while (at < end && memcmp(status + at, word, sizeof word - 1)) at++;
    return at < end && status[at + (long)sizeof word - 1] != '0';
}

static void complain_debugged(void) {
    static const char text[] = "appswitch: warning: this program can't be traced, it has no network\n"
                               "hint: something traces it already: strace, gdb or the like\n";
    sys3(SYS_write, 2, text, sizeof text - 1);
}

/* The interpreter of a script, in `head`; 0: it is none. */
static const char *interpreter_of(char head[HEAD_SIZE + 1]) {
    char *start = head + 2, *end;
    if (head[0] != '#' || head[1] != '!') return 0;
    while (*start == ' ' || *start == '\t') start++;
    for (end = start; *end && *end != ' ' && *end != '\t' && *end != '\n'; end++) continue;
    *end = 0;
    return *start ? start : 0;
}

/* O_NONBLOCK: it may be a pipe. */
static long open_program(int directory, const char *path, int flags) {
    char descriptor[32] = "/proc/self/fd/";
    if (!*path && (flags & AT_EMPTY_PATH)) {
        write_number(descriptor + sizeof "/proc/self/fd/" - 1, (unsigned)directory);
        path = descriptor;
    }
    flags = flags & AT_SYMLINK_NOFOLLOW ? O_NOFOLLOW : 0;
    return sys4(SYS_openat, directory, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags, 0);
}

/* DEPTH: interpreters of interpreters, as the kernel allows. */
static enum kind kind_of_path(const char *path) {
    char head[HEAD_SIZE + 1];
    for (int i = 0; path && i < DEPTH; i++) {
        if (sys3(SYS_faccessat, AT_FDCWD, path, X_OK) < 0) break; /* the kernel knows the error */
        long fd = open_program(AT_FDCWD, path, 0);
        if (fd < 0) break;
        enum kind kind = kind_of_file((int)fd);
        long size = kind != NO_PROGRAM ? 0 : sys4(SYS_pread64, fd, head, HEAD_SIZE, 0);
        sys1(SYS_close, fd);
        if (kind != NO_PROGRAM) return kind;
        head[size > 0 ? size : 0] = 0;
        path = interpreter_of(head);
    }
    return NO_PROGRAM;
}

/* Without /proc its path isn't known. */
int is_tracer_there(void) {
    const char *tracer = get_settings()->tracer;
    return *tracer && sys3(SYS_faccessat, AT_FDCWD, tracer, X_OK) == 0;
}

static int is_wanted_for(enum kind kind) {
    int filter = kind != NO_PROGRAM ? ask_filter() : ANSWER_TRACED;
    if (filter == ANSWER_TRACED || (filter != ANSWER_TRAPPED && !is_beyond_preload(kind))) return 0;
    if (!is_tracer_there()) return filter == ANSWER_TRAPPED && is_kept(&home);
    int debugged = filter != ANSWER_TRAPPED && is_debugged();
    if (debugged) complain_debugged();
    return is_beyond_preload(kind) && !debugged;
}

int needs_tracer(const char *path) {
    return is_wanted_for(kind_of_path(path));
}

/* /proc/self/exe is the tracer, once that is executed. */
int open_for_tracer(int directory, const char *path, int flags) {
    if (!path || (directory == AT_FDCWD && !starts_with(path, "/proc/"))) return -1;
    long fd = open_program(directory, path, flags);
    if (fd < 0) return -1;
    if (is_wanted_for(kind_of_file((int)fd)) && sys3(SYS_fcntl, fd, F_SETFD, 0) == 0) return (int)fd;
    sys1(SYS_close, fd);
    return -1;
}
