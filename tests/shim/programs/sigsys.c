/* SIGSYS is the program's own, however its calls are trapped; and what could keep the kernel from telling of them:
 * masks, handlers, small stacks, children that share memory. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/select.h>
#include <sys/time.h>

#include "test.h"

/* Of linux/filter.h, linux/seccomp.h and linux/sched.h, which musl's compiler doesn't find. */
struct filter_code {
    uint16_t code;
    uint8_t if_so, if_not;
    uint32_t operand;
};
struct filter_program {
    unsigned short length;
    struct filter_code *code;
};
enum { LOAD = 0x20, IF_EQUAL = 0x15, RETURN = 0x06, MODE_FILTER = 2 };
enum { RET_TRAP = 0x30000, RET_ALLOW = 0x7fff0000 };
struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls;
};
#define CLEAR_SIGHAND 0x100000000ull

static volatile sig_atomic_t signals, reason, call;

static void note(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    signals++;
    reason = info->si_errno;
    call = info->si_syscall;
}

static void act_by(int number, void (*handler)(int, siginfo_t *, void *), int flags) {
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | flags};
    sigfillset(&action.sa_mask);
    OK(sigaction(number, &action, 0));
}

static void network_works(void) {
    int listener = listening("127.0.0.1", 0);
    meet("127.0.0.1", port_of(listener), listener);
    close(listener);
}

static int ends_by(void (*run)(void)) {
    int status;
    pid_t child = IN_CHILD({ run(); });
    OK(waitpid(child, &status, 0));
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

/* --- SIGSYS that is sent */

static void send_it(void) {
    OK(syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGSYS));
}

CASE(sent_to_a_handler) {
    act_by(SIGSYS, note, 0);
    network_works();
    SAME(signals, 0);
    send_it();
    send_it();
    SAME(signals, 2);
    network_works();
    SAME(signals, 2);
}

CASE(sent_to_none) {
    network_works();
    SAME(ends_by(send_it), SIGSYS);
    signal(SIGSYS, SIG_IGN);
    network_works();
    SAME(ends_by(send_it), 0);
    signal(SIGSYS, SIG_DFL);
    network_works();
    SAME(ends_by(send_it), SIGSYS);
}

CASE(sent_to_a_handler_that_is_for_once) {
    act_by(SIGSYS, note, SA_RESETHAND);
    network_works();
    send_it();
    SAME(signals, 1);
    network_works();
    SAME(ends_by(send_it), SIGSYS);
}

CASE(what_was_set_is_told) {
    struct sigaction was, set = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART};
    OK(sigaction(SIGSYS, 0, &was));
    CHECK(was.sa_handler == SIG_DFL);
    sigaddset(&set.sa_mask, SIGUSR1);
    OK(sigaction(SIGSYS, &set, &was));
    CHECK(was.sa_handler == SIG_DFL);
    network_works();
    OK(sigaction(SIGSYS, 0, &was));
    CHECK(was.sa_sigaction == note);
    SAME(was.sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER | SA_ONSTACK), SA_SIGINFO | SA_RESTART);
    SAME(sigismember(&was.sa_mask, SIGUSR1), 1);
    SAME(sigismember(&was.sa_mask, SIGUSR2), 0);
    CHECK(signal(SIGSYS, SIG_IGN) == (void *)note);
    CHECK(signal(SIGSYS, SIG_DFL) == SIG_IGN);
}

static volatile sig_atomic_t is_blocked;

static void look_at_mask(int number, siginfo_t *info, void *context) {
    sigset_t now;
    note(number, info, context);
    sigprocmask(SIG_BLOCK, 0, &now);
    is_blocked = sigismember(&now, SIGUSR1);
}

CASE(its_mask_counts) {
    sigset_t now;
    act_by(SIGSYS, look_at_mask, 0);
    send_it();
    SAME(signals, 1);
    SAME(is_blocked, 1);
    OK(sigprocmask(SIG_BLOCK, 0, &now));
    SAME(sigismember(&now, SIGUSR1), 0);
}

/* --- filters of the program's own */

static void filter(int number, int verdict) {
    struct filter_code code[] = {
        {LOAD, 0, 0, 0},
        {IF_EQUAL, 0, 1, (uint32_t)number},
        {RETURN, 0, 0, (uint32_t)verdict},
        {RETURN, 0, 0, RET_ALLOW},
    };
    struct filter_program program = {sizeof code / sizeof *code, code};
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(prctl(PR_SET_SECCOMP, MODE_FILTER, &program));
}

CASE(a_filter_that_tells) {
    act_by(SIGSYS, note, 0);
    filter(SYS_getpriority, RET_TRAP | 77);
    syscall(SYS_getpriority, 0, 0);
    SAME(signals, 1);
    SAME(reason, 77);
    SAME(call, SYS_getpriority);
    network_works();
    SAME(signals, 1);
}

static void call_what_is_filtered(void) {
    syscall(SYS_getpriority, 0, 0);
}

CASE(a_filter_that_kills) {
    filter(SYS_getpriority, RET_TRAP | 77);
    network_works();
    SAME(ends_by(call_what_is_filtered), SIGSYS);
    signal(SIGSYS, SIG_IGN);
    SAME(ends_by(call_what_is_filtered), SIGSYS);
}

/* A call of the network: what the program's filter says counts. */
CASE(a_filter_of_listen) {
    act_by(SIGSYS, note, 0);
    filter(SYS_listen, RET_TRAP | 78);
    int fd = tcp("127.0.0.1");
    listen(fd, 5);
    SAME(signals, 1);
    SAME(reason, 78);
    SAME(call, SYS_listen);
}

/* --- masks */

static void block_all(void) {
    sigset_t all;
    sigfillset(&all);
    OK(sigprocmask(SIG_SETMASK, &all, 0));
}

CASE(all_signals_are_blocked) {
    sigset_t all, was;
    sigfillset(&all);
    OK(sigprocmask(SIG_BLOCK, &all, &was));
    SAME(sigismember(&was, SIGUSR1), 0);
    network_works();
    OK(sigprocmask(SIG_SETMASK, &was, &all));
    SAME(sigismember(&all, SIGUSR1), 1);
    network_works();
}

static void use_network(int number, siginfo_t *info, void *context) {
    int saved = errno;
    note(number, info, context);
    network_works();
    errno = saved;
}

CASE(a_handler_that_blocks_all) {
    act_by(SIGUSR1, use_network, 0);
    OK(raise(SIGUSR1));
    SAME(signals, 1);
}

/* Every way to wait with a mask: all is blocked but SIGUSR1, whose handler uses the network; and the wait is what does
 * it, too. */
static void waits(int (*wait)(const sigset_t *mask)) {
    sigset_t mask;
    act_by(SIGUSR1, use_network, 0);
    block_all();
    sigfillset(&mask);
    sigdelset(&mask, SIGUSR1);
    OK(raise(SIGUSR1));
    SAME(signals, 0);
    FAILS(wait(&mask), EINTR);
    SAME(signals, 1);
    network_works();
}

static int in_sigsuspend(const sigset_t *mask) {
    return sigsuspend(mask);
}

static int in_ppoll(const sigset_t *mask) {
    return ppoll(0, 0, 0, mask);
}

static int in_pselect(const sigset_t *mask) {
    return pselect(0, 0, 0, 0, 0, mask);
}

static int in_epoll_pwait(const sigset_t *mask) {
    struct epoll_event event;
    return epoll_pwait(OK(epoll_create1(0)), &event, 1, -1, mask);
}

CASE(sigsuspend_with_a_mask) {
    waits(in_sigsuspend);
}

CASE(ppoll_with_a_mask) {
    waits(in_ppoll);
}

CASE(pselect_with_a_mask) {
    waits(in_pselect);
}

CASE(epoll_pwait_with_a_mask) {
    waits(in_epoll_pwait);
}

CASE(they_wait_and_time_out) {
    int ends[2], epoll = OK(epoll_create1(0));
    struct timespec moment = {0, 1000000};
    struct epoll_event event = {.events = EPOLLIN};
    sigset_t all;
    fd_set set;
    sigfillset(&all);
    OK(pipe(ends));
    struct pollfd each = {ends[0], POLLIN, 0};
    OK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event));
    SAME(ppoll(&each, 1, &moment, &all), 0);
    SAME(pselect(0, 0, 0, 0, &moment, &all), 0);
    SAME(epoll_pwait(epoll, &event, 1, 1, &all), 0);
    SAME(write(ends[1], "x", 1), 1);
    FD_ZERO(&set);
    FD_SET(ends[0], &set);
    SAME(ppoll(&each, 1, 0, &all), 1);
    SAME(pselect(ends[0] + 1, &set, 0, 0, 0, &all), 1);
    SAME(epoll_pwait(epoll, &event, 1, -1, &all), 1);
    network_works();
}

CASE(pointers_that_lead_nowhere) {
    void *wild = (void *)8;
    struct sigaction none = {0};
    FAILS(syscall(SYS_rt_sigprocmask, SIG_SETMASK, wild, 0, 8), EFAULT);
    FAILS(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, 0, 7), EINVAL);
    FAILS(syscall(SYS_rt_sigprocmask, 17, &none, 0, 8), EINVAL);
    FAILS(syscall(SYS_rt_sigaction, SIGUSR1, wild, 0, 8), EFAULT);
    FAILS(syscall(SYS_rt_sigaction, SIGSYS, wild, 0, 8), EFAULT);
    FAILS(syscall(SYS_rt_sigaction, SIGSYS, 0, wild, 8), EFAULT);
    FAILS(syscall(SYS_rt_sigaction, SIGSYS, &none, 0, 7), EINVAL);
    FAILS(syscall(SYS_rt_sigaction, SIGKILL, &none, 0, 8), EINVAL);
    FAILS(syscall(SYS_rt_sigsuspend, wild, 8), EFAULT);
    FAILS(syscall(SYS_ppoll, 0, 0, 0, wild, 8), EFAULT);
    FAILS(syscall(SYS_pselect6, 0, 0, 0, 0, 0, wild), EFAULT);
    FAILS(syscall(SYS_epoll_pwait, OK(epoll_create1(0)), &none, 1, 0, wild, 8), EFAULT);
    network_works();
}

/* --- exec */

CASE(only_the_network) {
    network_works();
}

static int starts_again(const char *name) {
    int status;
    pid_t child = IN_CHILD({
        OK(dup2(OK(open("/dev/null", O_WRONLY)), 1));
        execl("/proc/self/exe", "self", name, (char *)0);
        _exit(100);
    });
    OK(waitpid(child, &status, 0));
    return status;
}

CASE(masks_and_actions_over_exec) {
    act_by(SIGSYS, note, 0);
    SAME(starts_again("sent_to_none"), 0);
    block_all();
    SAME(starts_again("only_the_network"), 0);
}

/* --- stacks */

CASE(a_small_stack_for_signals) {
    static char space[2048];
    stack_t small = {.ss_sp = space, .ss_size = sizeof space};
    if (sigaltstack(&small, 0) < 0) SAME(errno, ENOMEM); /* this machine's frames don't fit at all */
    network_works();
}

static void *in_thread(void *unused) {
    network_works();
    return unused;
}

CASE(small_stacks_of_threads) {
    pthread_attr_t attributes;
    pthread_t threads[20];
    pthread_attr_init(&attributes);
    SAME(pthread_attr_setstacksize(&attributes, 32768), 0);
    for (int i = 0; i < 20; i++) SAME(pthread_create(&threads[i], &attributes, in_thread, 0), 0);
    for (int i = 0; i < 20; i++) SAME(pthread_join(threads[i], 0), 0);
}

#if defined(__x86_64__)
/* What a function may keep below the stack pointer. */
CASE(the_red_zone) {
    long first, last, result;
    __asm__ volatile("movq $1234, -8(%%rsp)\n"
                     "movq $5678, -128(%%rsp)\n"
                     "syscall\n"
                     "movq -8(%%rsp), %1\n"
                     "movq -128(%%rsp), %2\n"
                     : "=a"(result), "=&r"(first), "=&r"(last)
                     : "0"((long)SYS_listen), "D"(-1l), "S"(1l)
                     : "rcx", "r11", "memory");
    SAME(result, -EBADF);
    SAME(first, 1234);
    SAME(last, 5678);
}
#endif

/* More threads wait in a call than there were stacks at first. */
static void *accept_one(void *listener) {
    close(OK(accept(*(int *)listener, 0, 0)));
    network_works();
    return 0;
}

CASE(many_threads_wait) {
    enum { MANY = 100 };
    pthread_t threads[MANY];
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    OK(listen(listener, MANY));
    for (int i = 0; i < MANY; i++) SAME(pthread_create(&threads[i], 0, accept_one, &listener), 0);
    for (int i = 0; i < MANY; i++) close(dial("127.0.0.1", port));
    for (int i = 0; i < MANY; i++) SAME(pthread_join(threads[i], 0), 0);
}

/* --- children */

static volatile int port_to_dial;
static volatile pid_t forked;

static void fork_in_handler(int number, siginfo_t *info, void *context) {
    int saved = errno;
    note(number, info, context);
    if (!forked) forked = fork() ? 1 : -1;
    errno = saved;
}

/* Both return into the accept that was interrupted, and both get their client. */
static void fork_within_a_call(int flags) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    struct itimerval soon = {{0, 0}, {0, 20000}};
    act_by(SIGALRM, fork_in_handler, SA_RESTART | flags);
    pid_t clients = IN_CHILD({
        usleep(100000);
        for (int i = 0; i < 2; i++) {
            char byte;
            int client = dial("127.0.0.1", port);
            SAME(read(client, &byte, 1), 1);
        }
    });
    OK(setitimer(ITIMER_REAL, &soon, 0));
    int server = OK(accept(listener, 0, 0));
    SAME(write(server, "x", 1), 1);
    SAME(signals, 1);
    network_works();
    if (forked < 0) _exit(0);
    end_well(clients);
    end_well(-1);
}

CASE(a_fork_within_a_call) {
    fork_within_a_call(0);
}

CASE(a_fork_within_a_call_on_another_stack) {
    static char space[65536];
    stack_t stack = {.ss_sp = space, .ss_size = sizeof space};
    OK(sigaltstack(&stack, 0));
    fork_within_a_call(SA_ONSTACK);
}

/* It shares its parent's memory, but not what its parent has set. */
CASE(a_vfork_child_sets_its_own) {
    act_by(SIGSYS, note, 0);
    pid_t child = vfork();
    if (child == 0) {
        struct sigaction action = {.sa_handler = SIG_DFL};
        sigaction(SIGSYS, &action, 0);
        sigaction(SIGUSR1, &action, 0);
        listen(-1, 5);
        _exit(0);
    }
    end_well(child);
    send_it();
    SAME(signals, 1);
    network_works();
}

/* In kB (proc_pid_status(5)). */
static long memory_size(void) {
    char line[200];
    long size = -1;
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file);
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "VmSize: %ld", &size) == 1) break;
    fclose(file);
    return size;
}

/* Each leaves its parent's memory in the middle of a call. */
static void execute_often(int times) {
    char *arguments[] = {"true", 0}, *environment[] = {0};
    for (volatile int i = 0; i < times; i++) {
        pid_t child = vfork();
        if (child == 0) {
            execve(i % 2 ? "/bin/true" : "/nowhere", arguments, environment);
            _exit(0);
        }
        end_well(child);
    }
}

CASE(vfork_children_that_execute) {
    execute_often(20);
    long size = memory_size();
    execute_often(200);
    CHECK(memory_size() - size < 2048);
    network_works();
}

#if defined(SYS_clone3)
static pid_t clone_by_three(uint64_t flags) {
    struct clone_arguments arguments = {.flags = flags, .exit_signal = SIGCHLD};
    fflush(stdout);
    return (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
}

CASE(clone3) {
    pid_t child = OK(clone_by_three(0));
    if (child == 0) {
        network_works();
        _exit(0);
    }
    end_well(child);
    FAILS(syscall(SYS_clone3, (void *)8, sizeof(struct clone_arguments)), EFAULT);
    network_works();
}

/* Its child has no handlers. It works, or isn't there; a child that is ended by a signal is neither. */
CASE(clone3_that_clears_handlers) {
    pid_t child = clone_by_three(CLEAR_SIGHAND);
    if (child == 0) {
        network_works();
        _exit(0);
    }
    if (child > 0)
        end_well(child);
    else
        SAME(errno, ENOSYS);
    network_works();
}
#endif
