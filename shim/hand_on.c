/* How it works. In a process that starts a static program, the tracer is executed in its place, with the program's
 * path, or a descriptor of it; it becomes the program (tracer/main.c). In a process that is traced by ptrace already
 * the exec itself is enough: the tracer's filter is inherited, and it answers here to a call that no other kernel would
 * answer so.
 */
#define _GNU_SOURCE
#include "hand_on.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elf.h"
#include "landing/landing.h"
#include "settings.h"
#include "sys.h"

enum { HEAD_SIZE = 256 /* of a script that the kernel looks at (execve(2)) */, DEPTH = 5 };

static int is_traced(void) {
    return sys3(SYS_socket, -1, 0, 0) == -ANSWER_TRACED;
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
static int is_program_beyond_preload(const char *path) {
    char head[HEAD_SIZE + 1];
    for (int i = 0; path && i < DEPTH; i++) {
        if (sys3(SYS_faccessat, AT_FDCWD, path, X_OK) < 0) return 0; /* the kernel knows the error */
        long fd = open_program(AT_FDCWD, path, 0);
        if (fd < 0) return 0;
        int is_beyond = is_beyond_preload((int)fd);
        long size = is_beyond ? 0 : sys4(SYS_pread64, fd, head, HEAD_SIZE, 0);
        sys1(SYS_close, fd);
        if (is_beyond) return 1;
        head[size > 0 ? size : 0] = 0;
        path = interpreter_of(head);
    }
    return 0;
}

static int is_tracer_wanted(void) {
    const char *tracer = get_settings()->tracer;
    return *tracer && !is_traced() && sys3(SYS_faccessat, AT_FDCWD, tracer, X_OK) == 0;
}

int needs_tracer(const char *path) {
    return is_program_beyond_preload(path) && is_tracer_wanted();
}

/* /proc/self/exe is the tracer, once that is executed. */
int open_for_tracer(int directory, const char *path, int flags) {
    if (!path || (directory == AT_FDCWD && memcmp(path, "/proc/", 6))) return -1;
    long fd = open_program(directory, path, flags);
    if (fd < 0) return -1;
    if (is_beyond_preload((int)fd) && is_tracer_wanted() && sys3(SYS_fcntl, fd, F_SETFD, 0) == 0) return (int)fd;
    sys1(SYS_close, fd);
    return -1;
}
