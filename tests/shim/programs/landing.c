/* What a program has a right to find as it was after a call, and ways to leave one: for the tracer, which has the call
 * made on another stack. */
#include <pthread.h>
#include <setjmp.h>
#include <sys/time.h>

#include "test.h"

#if defined(__x86_64__)
struct state {
    unsigned long general[10]; /* rbx rbp rdi rsi rdx r8 r9 r10 r12 r15 */
    unsigned char vector[2][16];
    unsigned long flags;
};

/* getsockname(fd, addr, size), with all that isn't an argument set to something, and what it is afterwards. */
static long call(long fd, void *addr, void *size, struct state *after) {
    long result;
    register long r12 __asm__("r12") = 12;
    register long r13 __asm__("r13") = (long)after;
    register long r8 __asm__("r8") = 8;
    register long r9 __asm__("r9") = 9;
    register long r10 __asm__("r10") = 10;
    register long r15 __asm__("r15") = 15;
    __asm__ volatile(
        "pcmpeqd %%xmm5, %%xmm5\n"
        "movq %%r12, %%xmm15\n"
        "stc\n"
        "syscall\n"
        "pushfq\n"
        "popq 112(%%r13)\n"
        "mov %%rbx, 0(%%r13)\n"
        "mov %%rdi, 16(%%r13)\n"
        "mov %%rsi, 24(%%r13)\n"
        "mov %%rdx, 32(%%r13)\n"
        "mov %%r8, 40(%%r13)\n"
        "mov %%r9, 48(%%r13)\n"
        "mov %%r10, 56(%%r13)\n"
        "mov %%r12, 64(%%r13)\n"
        "mov %%r15, 72(%%r13)\n"
        "movdqu %%xmm5, 80(%%r13)\n"
        "movdqu %%xmm15, 96(%%r13)\n"
        : "=a"(result)
        : "0"((long)SYS_getsockname), "b"(11l), "D"(fd), "S"(addr), "d"(size), "r"(r8), "r"(r9), "r"(r10), "r"(r12),
          "r"(r13), "r"(r15)
        : "rcx", "r11", "memory", "xmm5", "xmm15", "cc");
    return result;
}

CASE(registers_are_kept) {
    struct state after = {0};
    struct address name = {.size = sizeof name.storage};
    int listener = listening("127.0.0.1", 0);
    SAME(call(listener, &name.any, &name.size, &after), 0);
    SAME(after.general[0], 11);
    SAME(after.general[2], listener);
    SAME(after.general[3], (long)&name.any);
    SAME(after.general[4], (long)&name.size);
    SAME(after.general[5], 8);
    SAME(after.general[6], 9);
    SAME(after.general[7], 10);
    SAME(after.general[8], 12);
    SAME(after.general[9], 15);
    for (int i = 0; i < 16; i++) SAME(after.vector[0][i], 255);
    SAME(after.vector[1][0], 12);
    SAME(after.flags & 1, 1);
}
#endif

static volatile sig_atomic_t signals;
static int served_port;
static sigjmp_buf away;

static void every(long microseconds, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    OK(sigaction(SIGALRM, &action, 0));
    OK(setitimer(ITIMER_REAL, &timer, 0));
}

static void own_stack(void) {
    static char space[65536];
    stack_t stack = {.ss_sp = space, .ss_size = sizeof space};
    OK(sigaltstack(&stack, 0));
}

static void leave(int number) {
    (void)number;
    siglongjmp(away, 1);
}

/* More often than there is room for calls within calls. */
static void leave_often(int flags) {
    int listener = listening("127.0.0.1", 0);
    for (volatile int i = 0; i < 40; i++) {
        if (sigsetjmp(away, 1)) continue;
        every(2000, leave, flags);
        accept(listener, 0, 0);
    }
    every(0, leave, flags);
    meet("127.0.0.1", port_of(listener), listener);
}

CASE(a_call_that_is_left) {
    leave_often(0);
}

CASE(a_call_that_is_left_from_another_stack) {
    own_stack();
    leave_often(SA_ONSTACK);
}

static void dial_in_handler(int number) {
    (void)number;
    int saved = errno, fd = socket(AF_INET, SOCK_STREAM, 0);
    CONNECT(fd, "127.0.0.1", served_port);
    struct address name = {.size = sizeof name.storage};
    getpeername(fd, &name.any, &name.size);
    signals += port_in(&name) == served_port;
    close(fd);
    errno = saved;
}

/* The handler makes calls while the accept that it interrupts waits; then that goes on. */
static void accept_all_the_while(int flags) {
    int listener = listening("127.0.0.1", 0), mine = listening("127.0.0.1", 0), port = port_of(mine);
    served_port = port_of(listener);
    OK(listen(listener, 4096)); /* nobody accepts */
    pid_t child = IN_CHILD({
        for (int i = 0; i < 10; i++) {
            usleep(20000); /* so that accept waits */
            close(dial("127.0.0.1", port));
        }
    });
    every(5000, dial_in_handler, SA_RESTART | flags);
    for (int i = 0; i < 10; i++) {
        struct address name = {.size = sizeof name.storage};
        int server = OK(accept(mine, &name.any, &name.size));
        TEXT(ip_of(&name), "127.0.0.1");
        close(server);
    }
    every(0, dial_in_handler, SA_RESTART | flags);
    end_well(child);
    CHECK(signals > 10);
}

CASE(calls_within_a_call) {
    accept_all_the_while(0);
}

CASE(calls_within_a_call_on_another_stack) {
    own_stack();
    accept_all_the_while(SA_ONSTACK);
}

static void *ask_once(void *listener) {
    SAME(port_of(*(int *)listener) > 0, 1);
    return 0;
}

static void *make_threads(void *listener) {
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        SAME(pthread_create(&thread, 0, ask_once, listener), 0);
        SAME(pthread_join(thread, 0), 0);
    }
    return 0;
}

/* Each makes calls, on what was another one's stack. */
CASE(threads_that_come_and_go) {
    int listener = listening("127.0.0.1", 0);
    pthread_t makers[8];
    for (int i = 0; i < 8; i++) SAME(pthread_create(&makers[i], 0, make_threads, &listener), 0);
    for (int i = 0; i < 8; i++) SAME(pthread_join(makers[i], 0), 0);
}
