/* A program without a C library: its system calls are instructions of its own, wherever they stand. Built with
 * -static -nostdlib. A child is the client of its parent; "ok" when each has seen the other's true names. */
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/syscall.h>

enum { PORT = 7001 };

static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

/* The i386 table's socket(2): not with this program's addresses, but it needs none. */
static long foreign_socket(void) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(359l), "b"((long)AF_INET), "c"((long)SOCK_STREAM), "d"(0l));
    return result;
}

static void check(long value, const char *what, int size) {
    if (value >= 0) return;
    call(SYS_write, 1, (long)what, size, 0, 0);
    call(SYS_exit_group, 1, 0, 0, 0, 0);
}

#define TRY(what, ...)                            \
    ({                                            \
        long outcome_ = call(__VA_ARGS__);        \
        check(outcome_, what "\n", sizeof(what)); \
        outcome_;                                 \
    })

static struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = __builtin_bswap16(PORT)};

static void be_client(void) {
    struct sockaddr_in peer, own;
    socklen_t size = sizeof peer;
    long fd = TRY("client socket", SYS_socket, AF_INET, SOCK_STREAM, 0, 0, 0);
    TRY("connect", SYS_connect, fd, (long)&here, sizeof here, 0, 0);
    TRY("getpeername", SYS_getpeername, fd, (long)&peer, (long)&size, 0, 0);
    check(peer.sin_port == here.sin_port ? 0 : -1, "peer\n", 5);
    TRY("getsockname", SYS_getsockname, fd, (long)&own, (long)&size, 0, 0);
    TRY("write", SYS_write, fd, (long)&own.sin_port, sizeof own.sin_port, 0, 0);
    call(SYS_exit_group, 0, 0, 0, 0, 0);
}

static void be_server(void) {
    struct sockaddr_in peer;
    socklen_t size = sizeof peer;
    unsigned short told = 0;
    int status = -1;
    long fd = TRY("socket", SYS_socket, AF_INET, SOCK_STREAM, 0, 0, 0);
    TRY("bind", SYS_bind, fd, (long)&here, sizeof here, 0, 0);
    TRY("listen", SYS_listen, fd, 8, 0, 0, 0);
    for (int i = 0; i < 5; i++) {
        if (TRY("fork", SYS_fork, 0, 0, 0, 0, 0) == 0) be_client();
        long server = TRY("accept", SYS_accept, fd, (long)&peer, (long)&size, 0, 0);
        TRY("read", SYS_read, server, (long)&told, sizeof told, 0, 0);
        check(told == peer.sin_port ? 0 : -1, "port\n", 5);
        TRY("close", SYS_close, server, 0, 0, 0, 0);
        TRY("wait", SYS_wait4, -1, (long)&status, 0, 0, 0);
        check(status == 0 ? 0 : -1, "child\n", 6);
    }
    check(foreign_socket() == -38 /* ENOSYS */ ? 0 : -1, "int 0x80\n", 9);
}

__attribute__((used, noreturn)) static void start(void) {
    be_server();
    call(SYS_write, 1, (long)"ok\n", 3, 0, 0);
    for (;;) call(SYS_exit_group, 0, 0, 0, 0, 0);
}

__asm__(".globl _start\n"
        "_start:\n"
        "    and $-16, %rsp\n"
        "    call start\n");
