/* appswitch-tracer PATH ARG0 [ARG...]: becomes the program PATH, or that of a descriptor, --fd=N, and has its calls
 * trapped, in one of two ways (way.h):
 * that which APPSWITCH_TRACER names, `ptrace` or `notify`; else the latter where the kernel has it.
 *
 * How it works. Whoever started us waits for this very process, so this process becomes the program; the tracer is
 * another one, which isn't its child for it to see:
 *
 *     this, later the program <--waits for-- whoever started it
 *     watcher, of a session of its own
 *       `- tracer: traces the program and its descendants, and ends with the last of them; or, by notify, traces the
 *          program until it begins
 *
 * A program that is started where calls are trapped already needs no filter; by ptrace it needs no tracer either.
 *
 * If the tracer is killed, the kernel kills all that it traced (PTRACE_O_EXITKILL). The watcher then says so: it hears
 * through a pipe that the program has ended by itself, or, by the end of the pipe, that the tracer has.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../landing/landing.h"
#include "../sys.h"
#include "arch.h"
#include "bring.h"
#include "filter.h"
#include "way.h"

static int home; /* a descriptor of the directory that this program is in; 0: its path will do */

enum { FAILED = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127, SPARE = 3 };

static void say(const char *text) {
    sys3(SYS_write, 2, text, as_strlen(text));
}

static void say_error(const char *what, long error) {
    char number[12];
    write_number(number, (unsigned)-error);
    say("appswitch: ");
    say(what);
    say(" (errno ");
    say(number);
    say(")\n");
}

__attribute__((noreturn)) static void quit(int status) {
    for (;;) sys1(SYS_exit_group, status);
}

static long fork_process(void) {
    return sys5(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

/* Nothing of the program's is kept from ending: no pipe, socket or directory. But stderr, until it ends. `kept` becomes
 * SPARE. */
static void let_go(int kept) {
    kept = (int)sys3(SYS_fcntl, kept, F_DUPFD_CLOEXEC, SPARE); /* it may be one of the first three */
    int null = (int)sys4(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR, 0);
    sys3(SYS_dup3, null, 0, 0);
    sys3(SYS_dup3, null, 1, 0);
    if (sys2(SYS_fcntl, 2, F_GETFD) < 0) sys3(SYS_dup3, null, 2, 0);
    sys3(SYS_dup3, kept, SPARE, O_CLOEXEC);
    sys3(SYS_close_range, SPARE + 1, ~0u, 0);
    sys1(SYS_chdir, "/");
}

/* `channel` (SPARE): to the process that becomes the program. */
__attribute__((noreturn)) static void run_tracer(int pid, int channel, int ended, const struct way *way) {
    int self = (int)sys0(SYS_getpid);
    char byte;
    sys3(SYS_write, channel, &self, sizeof self);
    if (sys3(SYS_read, channel, &byte, 1) != 1) quit(FAILED);
    int error = way->seize(pid);
    sys3(SYS_write, channel, &error, sizeof error);
    sys1(SYS_close, channel);
    if (error) quit(FAILED);
    error = way->follow(pid, ended);
    if (error) say_error("a program is killed, for its calls can't be trapped", error);
    quit(error ? FAILED : 0);
}

__attribute__((noreturn)) static void watch(int pid, int channel, const struct way *way) {
    uint64_t all = ~0ull;
    int ended[2];
    char byte;
    sys0(SYS_setsid);
    sys4(SYS_rt_sigprocmask, SIG_SETMASK, &all, 0, sizeof all);
    let_go(channel);
    if (sys2(SYS_pipe2, ended, O_CLOEXEC) < 0) quit(FAILED);
    long tracer = fork_process();
    if (tracer == 0) {
        sys1(SYS_close, ended[0]);
        run_tracer(pid, SPARE, ended[1], way);
    }
    sys1(SYS_close, SPARE);
    sys1(SYS_close, ended[1]);
    if (tracer > 0 && sys3(SYS_read, ended[0], &byte, 1) == 0) {
        int status = 0;
        sys4(SYS_wait4, tracer, &status, 0, 0);
        if (WIFSIGNALED(status))
            say("appswitch: the tracer has been killed, and with it the programs that it traced\n"
                "hint: their system calls can't be made without it: start them again\n");
    }
    quit(0);
}

/* Starts the tracer, which traces us from then on. 0 or -errno. */
static long start_tracer(const struct way *way) {
    int ends[2], status, tracer, error = -ECHILD, pid = (int)sys0(SYS_getpid);
    long failed = sys4(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
    if (failed < 0) return failed;
    long child = fork_process();
    if (child < 0) return child;
    if (child == 0) { /* in between, so that the watcher is nobody's child */
        sys1(SYS_close, ends[0]);
        if (fork_process() == 0) watch(pid, ends[1], way);
        quit(0);
    }
    sys1(SYS_close, ends[1]);
    while (sys4(SYS_wait4, child, &status, 0, 0) == -EINTR) continue;
    if (sys3(SYS_read, ends[0], &tracer, sizeof tracer) == sizeof tracer) {
        sys5(SYS_prctl, PR_SET_PTRACER, tracer, 0, 0, 0); /* Yama lets only ancestors, else (ptrace_scope 1) */
        sys3(SYS_write, ends[0], "", 1);
        if (sys3(SYS_read, ends[0], &error, sizeof error) != sizeof error) error = -ECHILD;
    }
    sys1(SYS_close, ends[0]);
    return error;
}

static const char *value_of(const char *name, char *const environment[]) {
    size_t size = as_strlen(name);
    for (; *environment; environment++)
        if (memcmp(*environment, name, size) == 0) return *environment + size;
    return "";
}

static const struct way *choose_way(char *const environment[]) {
    const char *wanted = value_of("APPSWITCH_TRACER=", environment);
    if (memcmp(wanted, "ptrace", sizeof "ptrace") == 0) return &by_ptrace;
    return can_install_filter(&by_notify) ? &by_notify : &by_ptrace;
}

/* Has this process, and what it becomes, trapped. 0 or -errno. */
static long have_trapped(const struct way *way, int has_filter) {
    long error = prepare_to_bring(home);
    if (error == 0) error = start_tracer(way);
    return error || has_filter ? error : install_filter(way);
}

static int descriptor_of(const char *digits) {
    int fd = 0;
    while (*digits) fd = fd * 10 + (*digits++ - '0');
    return fd;
}

static int descriptor_in(const char *text, const char *kind) {
    size_t size = as_strlen(kind);
    return memcmp(text, kind, size) ? 0 : descriptor_of(text + size);
}

/* -errno. */
static long execute(const char *program, char *const arguments[], char *const environment[]) {
    int fd = descriptor_in(program, AS_TRACED_FD);
    if (!fd) return sys3(SYS_execve, program, arguments, environment);
    sys3(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
    return sys5(SYS_execveat, fd, "", arguments, environment, AT_EMPTY_PATH);
}

__attribute__((used, noreturn)) static void start(long *stack) {
    long count = stack[0];
    char **arguments = (char **)(stack + 1), **environment = arguments + count + 1;
    if (count < 3) {
        say("usage: appswitch-tracer PATH ARG0 [ARG...]\n");
        quit(2);
    }
    home = descriptor_in(arguments[0], AS_TRACER_HOME);
    long there = sys3(SYS_socket, -1, 0, 0), error = 0; /* filter.c */
    int has_filter = there == -ANSWER_TRAPPED;
    if (there != -ANSWER_TRACED) error = have_trapped(has_filter ? &by_notify : choose_way(environment), has_filter);
    if (error) {
        say_error(has_filter ? "this program can't be traced: where calls are trapped, it can't run"
                             : "warning: this program can't be traced, it has no network",
                  error);
        say("hint: strace or gdb may be tracing it, or kernel.yama.ptrace_scope or a seccomp filter be in the way: "
            "`appswitch doctor` tells\n");
        if (has_filter) quit(NOT_EXECUTABLE);
    }
    error = execute(arguments[1], arguments + 2, environment);
    say("appswitch: ");
    say(arguments[1]);
    say_error(": can't be executed", error);
    quit(error == -ENOENT || error == -ENOTDIR ? NOT_FOUND : NOT_EXECUTABLE);
}

START;
