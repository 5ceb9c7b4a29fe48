/* How it works. In a process with the shim that starts a static program, the tracer is executed in its place, with the
 * program's path; it becomes the program (tracer/main.c). In a process that is traced already the exec itself is
 * enough: the tracer's filter is inherited, and it answers here to a call that no other kernel would answer so.
 */
#define _GNU_SOURCE
#include "hand_on.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "elf.h"
#include "settings.h"
#include "sys.h"

enum { HEAD_SIZE = 256 /* of a script that the kernel looks at (execve(2)) */, DEPTH = 5 };

static int is_traced(void) {
    return sys3(SYS_socket, -1, 0, 0) == -EALREADY; /* tracer/filter.c */
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

/* DEPTH: interpreters of interpreters, as the kernel allows. */
static int is_program_beyond_preload(const char *path) {
    char head[HEAD_SIZE + 1];
    for (int i = 0; path && i < DEPTH; i++) {
        if (sys3(SYS_faccessat, AT_FDCWD, path, X_OK) < 0) return 0; /* the kernel knows the error */
        long fd = sys4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
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

int needs_tracer(const char *path) {
    const char *tracer = get_settings()->tracer;
    if (!*tracer || !is_program_beyond_preload(path) || is_traced()) return 0;
    if (sys3(SYS_faccessat, AT_FDCWD, tracer, X_OK) < 0) return 0;
    int debugged = is_debugged();
    if (debugged) complain_debugged();
    return !debugged;
}
