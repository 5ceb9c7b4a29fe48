/* traps CALLS: nanoseconds that a trapped system call costs, each way that the kernel has; a line of JSON.
 *
 * One call, getppid, is trapped. By `trap` and `trace` the thread is sent to a landing, which makes the call by itself
 * (with a mark, so that it isn't trapped); by `notify` another process answers, `notify+fd` with a descriptor.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, uint64_t)
#endif
enum { MARK = 0x41535721, SYNC_WAKE_UP = 1 };

static int calls;

static void need(long outcome, const char *what) {
    if (outcome >= 0) return;
    fprintf(stderr, "traps: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int install(unsigned verdict, unsigned flags) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MARK, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, verdict),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    need(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

static double measure(void) {
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    for (int i = 0; i < calls; i++) syscall(SYS_getppid, 0, 0, 0, 0, 0, 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    return ((double)(to.tv_sec - from.tv_sec) * 1e9 + (double)(to.tv_nsec - from.tv_nsec)) / calls;
}

/* --- the landing: makes the call and goes back to rcx, on a stack of its own (r11) */

__attribute__((used)) static long serve(void) {
    return syscall(SYS_getppid, 0, 0, 0, 0, 0, MARK);
}

void land(void);
__asm__("land:\n"
        "    xchg %rsp, %r11\n"
        "    push %r11\n"
        "    push %rcx\n"
        "    push %r9; push %r8; push %r10; push %rdx; push %rsi; push %rdi\n"
        "    call serve\n"
        "    pop %rdi; pop %rsi; pop %rdx; pop %r10; pop %r8; pop %r9\n"
        "    pop %rcx\n"
        "    pop %rsp\n"
        "    jmp *%rcx\n");

static char landing_stack[65536] __attribute__((aligned(16)));

/* --- the ways: each prepares this process, or a child that is measured */

static void on_sigsys(int number, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    (void)number;
    (void)info;
    regs[REG_RCX] = regs[REG_RIP];
    regs[REG_R11] = (greg_t)(landing_stack + sizeof landing_stack);
    regs[REG_RIP] = (greg_t)land;
}

static double by_trap(void) {
    struct sigaction action = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_NODEFER};
    need(sigaction(SIGSYS, &action, 0), "sigaction");
    need(install(SECCOMP_RET_TRAP, 0), "seccomp");
    return measure();
}

static double plainly(void) {
    return measure();
}

/* In a child that is traced from its parent: the parent's part. */
static void trace(pid_t child) {
    int status;
    need(ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL), "ptrace");
    kill(child, SIGCONT);
    while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
        if (status >> 16 == PTRACE_EVENT_SECCOMP) {
            struct user_regs_struct regs;
            struct iovec part = {&regs, sizeof regs};
            ptrace(PTRACE_GETREGSET, child, NT_PRSTATUS, &part);
            regs.orig_rax = (unsigned long)-1;
            regs.rcx = regs.rip;
            regs.r11 = (unsigned long)(landing_stack + sizeof landing_stack);
            regs.rip = (unsigned long)land;
            ptrace(PTRACE_SETREGSET, child, NT_PRSTATUS, &part);
        }
        ptrace(PTRACE_CONT, child, 0, 0);
    }
}

static double *shared;

static double by_trace(void) {
    int ready[2];
    char byte;
    need(pipe(ready), "pipe");
    pid_t child = fork();
    if (child == 0) {
        need(read(ready[0], &byte, 1), "read");
        need(install(SECCOMP_RET_TRACE, 0), "seccomp");
        *shared = measure();
        _exit(0);
    }
    need(write(ready[1], "", 1), "write");
    trace(child);
    return *shared;
}

static int listener_of(int channel) {
    char space[CMSG_SPACE(sizeof(int))], byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    int listener;
    need(recvmsg(channel, &message, 0), "recvmsg");
    memcpy(&listener, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof listener);
    return listener;
}

static void send_listener(int channel, int listener) {
    char space[CMSG_SPACE(sizeof(int))] = "", byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &listener, sizeof listener);
    need(sendmsg(channel, &message, 0), "sendmsg");
}

static void answer(int listener, int with_fd) {
    struct seccomp_notif notice = {0};
    while (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &notice) == 0) {
        if (with_fd) {
            struct seccomp_notif_addfd add = {
                .id = notice.id, .flags = SECCOMP_ADDFD_FLAG_SETFD | SECCOMP_ADDFD_FLAG_SEND, .srcfd = 0, .newfd = 50};
            ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
        } else {
            struct seccomp_notif_resp reply = {.id = notice.id, .val = 1};
            ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &reply);
        }
        memset(&notice, 0, sizeof notice);
    }
}

static double by_notify(int with_fd, int flags) {
    int ends[2];
    need(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), "socketpair");
    pid_t child = fork();
    if (child == 0) {
        int listener = install(SECCOMP_RET_USER_NOTIF, SECCOMP_FILTER_FLAG_NEW_LISTENER);
        need(listener, "seccomp");
        send_listener(ends[1], listener);
        close(listener);
        *shared = measure();
        _exit(0);
    }
    int listener = listener_of(ends[0]);
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, flags); /* Linux 6.6 */
    answer(listener, with_fd);
    return *shared;
}

static double by_notify_plain(void) {
    return by_notify(0, 0);
}

static double by_notify_sync(void) {
    return by_notify(0, SYNC_WAKE_UP);
}

static double by_notify_with_fd(void) {
    return by_notify(1, SYNC_WAKE_UP);
}

/* In a child of its own, for a filter can't be removed. */
static double apart(double (*way)(void)) {
    double *outcome = mmap(0, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        *outcome = way();
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (!WIFEXITED(status) || WEXITSTATUS(status)) exit(1);
    return *outcome;
}

int main(int argc, char **argv) {
    static const struct way {
        const char *name;
        double (*cost)(void);
    } ways[] = {
        {"no trap", plainly},
        {"RET_TRAP, landing", by_trap},
        {"RET_TRACE, landing", by_trace},
        {"RET_USER_NOTIF", by_notify_plain},
        {"RET_USER_NOTIF, SYNC_WAKE_UP", by_notify_sync},
        {"RET_USER_NOTIF, SYNC_WAKE_UP, ADDFD", by_notify_with_fd},
    };
    calls = argc > 1 ? atoi(argv[1]) : 20000;
    shared = mmap(0, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
        printf("%s\"%s\": %.0f", i ? ", " : "{", ways[i].name, apart(ways[i].cost));
    puts("}");
}
