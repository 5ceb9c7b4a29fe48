/* Pointers that lead nowhere, and descriptors that are none: errors, as the kernel says, and no crash. */
#include <sys/mman.h>

#include "test.h"

enum { PLACES = 4 };
static char *places[PLACES]; /* each leads nowhere */
static char *edge;           /* the last byte that can be used of a page */

static void find_places(void) {
    char *pages = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(pages != MAP_FAILED);
    OK(mprotect(pages + 4096, 4096, PROT_NONE));
    OK(munmap(pages + 8192, 4096));
    places[0] = (char *)1;
    places[1] = (char *)-1;
    places[2] = pages + 4096;
    places[3] = pages + 8192;
    edge = pages + 4095;
}

/* A fresh socket, a bound one, a listener, both ends of a connection. */
static int sockets[5];

static void make_sockets(const char *ip) {
    struct pair pair = connected(ip);
    sockets[0] = tcp(ip);
    sockets[1] = tcp(ip);
    OK(BIND(sockets[1], ip, 0));
    sockets[2] = pair.listener;
    sockets[3] = pair.client;
    sockets[4] = pair.server;
    find_places();
}

CASE(addresses_to_read) {
    struct address to = at("127.0.0.1", 9);
    make_sockets("127.0.0.1");
    for (int i = 0; i < 5; i++)
        for (int k = 0; k < PLACES; k++) {
            struct sockaddr *nowhere = (struct sockaddr *)places[k];
            FAILS(connect(sockets[i], nowhere, to.size), EFAULT);
            FAILS(bind(sockets[i], nowhere, to.size), EFAULT);
            FAILS(syscall(SYS_connect, sockets[i], nowhere, to.size), EFAULT);
            FAILS(connect(sockets[i], nowhere, 1000), EINVAL);
            FAILS(bind(sockets[i], nowhere, -1), EINVAL);
            TELL(connect(sockets[i], nowhere, 0)); /* nothing is read */
        }
}

CASE(addresses_to_write) {
    make_sockets("127.0.0.1");
    for (int k = 0; k < PLACES; k++) {
        struct sockaddr *nowhere = (struct sockaddr *)places[k];
        struct address got;
        for (int i = 1; i < 5; i++) {
            got.size = sizeof got.storage;
            FAILS(getsockname(sockets[i], nowhere, &got.size), EFAULT);
            FAILS(getsockname(sockets[i], &got.any, (socklen_t *)nowhere), EFAULT);
            FAILS(syscall(SYS_getsockname, sockets[i], nowhere, &got.size), EFAULT);
            if (i < 3) {
                FAILS(getpeername(sockets[i], nowhere, &got.size), ENOTCONN);
                continue;
            }
            FAILS(getpeername(sockets[i], nowhere, &got.size), EFAULT);
            FAILS(getpeername(sockets[i], &got.any, (socklen_t *)nowhere), EFAULT);
        }
    }
}

/* The connection is lost, as it is without us. */
CASE(accept_to_nowhere) {
    make_sockets("127.0.0.1");
    int listener = sockets[2], port = port_of(listener);
    for (int k = 0; k < PLACES; k++) {
        struct address got = {.size = sizeof got.storage};
        for (int i = 0; i < 2; i++) dial("127.0.0.1", port);
        FAILS(accept(listener, (struct sockaddr *)places[k], &got.size), EFAULT);
        FAILS(accept4(listener, &got.any, (socklen_t *)places[k], 0), EFAULT);
    }
    meet("127.0.0.1", port, listener);
    FAILS(accept(sockets[0], (struct sockaddr *)places[0], (socklen_t *)places[1]), EINVAL);
}

CASE(options) {
    static const int names[][2] = {{SOL_SOCKET, SO_DOMAIN},    {SOL_SOCKET, SO_PEERCRED}, {SOL_SOCKET, SO_KEEPALIVE},
                                   {IPPROTO_TCP, TCP_NODELAY}, {IPPROTO_TCP, TCP_INFO},   {IPPROTO_IP, IP_TOS},
                                   {SOL_SOCKET, SO_REUSEPORT}, {SOL_SOCKET, SO_REUSEADDR}};
    make_sockets("127.0.0.1");
    for (int i = 0; i < 5; i++) {
        OK(set(sockets[i], IPPROTO_TCP, TCP_NODELAY, 1));
        for (int k = 0; k < PLACES; k++)
            for (int n = 0; n < 8; n++) {
                int value;
                socklen_t size = sizeof value;
                FAILS(getsockopt(sockets[i], names[n][0], names[n][1], places[k], &size), EFAULT);
                FAILS(getsockopt(sockets[i], names[n][0], names[n][1], &value, (socklen_t *)places[k]), EFAULT);
                if (n < 2 || n == 4) continue;
                FAILS(setsockopt(sockets[i], names[n][0], names[n][1], places[k], sizeof value), EFAULT);
            }
    }
}

CASE(data) {
    make_sockets("127.0.0.1");
    struct address from = {.size = sizeof from.storage};
    char byte;
    for (int k = 0; k < PLACES; k++) {
        FAILS(send(sockets[3], places[k], 1, 0), EFAULT);
        FAILS(sendto(sockets[3], places[k], 1, 0, 0, 0), EFAULT);
        carries(sockets[3], sockets[4], "goes on");
        SAME(write(sockets[3], "x", 1), 1);
        FAILS(recvfrom(sockets[4], &byte, 1, 0, &from.any, (socklen_t *)places[k]), EFAULT);
        SAME(recvfrom(sockets[4], &byte, 1, MSG_DONTWAIT, &from.any, &from.size), -1); /* it is lost */
    }
}

/* Right before the end of what there is: nothing beyond is touched. */
CASE(at_the_edge) {
    make_sockets("127.0.0.1");
    struct address to = name_of(sockets[2]);
    struct sockaddr *near = (struct sockaddr *)(edge + 1 - to.size);
    int *number = (int *)(edge + 1 - sizeof(int));
    socklen_t size = to.size;
    memcpy(near, &to.any, to.size);
    OK(connect(sockets[0], near, to.size));
    memset(near, 0, to.size);
    OK(getpeername(sockets[0], near, &size));
    SAME(memcmp(near, &to.any, to.size), 0);
    size = sizeof *number;
    OK(getsockopt(sockets[0], IPPROTO_TCP, TCP_NODELAY, number, &size));
    SAME(*number, 0);
    *number = sizeof to.in;
    OK(getsockname(sockets[0], &to.any, (socklen_t *)number));
    SAME(*number, sizeof to.in);
    size = sizeof to.in; /* more room than there is */
    FAILS(getsockname(sockets[0], (struct sockaddr *)(edge - 1), &size), EFAULT);
}

/* The descriptor comes first. */
CASE(no_socket) {
    static const int numbers[] = {-1, 12345, 0};
    struct address to = at("127.0.0.1", 9);
    find_places();
    close(0);
    SAME(OK(open("/dev/null", O_RDONLY)), 0);
    for (int i = 0; i < 3; i++) {
        int error = numbers[i] ? EBADF : ENOTSOCK;
        socklen_t size = to.size;
        for (int k = 0; k < PLACES; k++) {
            struct sockaddr *nowhere = (struct sockaddr *)places[k];
            FAILS(bind(numbers[i], nowhere, to.size), error);
            TELL(connect(numbers[i], nowhere, to.size)); /* it depends on the kernel what comes first */
            FAILS(getsockname(numbers[i], nowhere, &size), error);
            FAILS(getpeername(numbers[i], nowhere, &size), error);
            FAILS(getsockopt(numbers[i], SOL_SOCKET, SO_DOMAIN, nowhere, &size), error);
            FAILS(setsockopt(numbers[i], IPPROTO_TCP, TCP_NODELAY, nowhere, 4), error);
            FAILS(accept(numbers[i], nowhere, &size), error);
        }
        FAILS(listen(numbers[i], 5), error);
        FAILS(shutdown(numbers[i], SHUT_RDWR), error);
        FAILS(shutdown(numbers[i], 9), error);
    }
}
