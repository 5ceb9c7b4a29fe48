/* Sockets that are Unix sockets before they connect (shim/fresh.h), in the world "warm"; TCP's own in the others. */
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "test.h"

/* unix(7): the kernel lists it by its inode. */
static int is_unix(int fd) {
    char line[512], wanted[32];
    struct stat status;
    int found = 0;
    OK(fstat(fd, &status));
    snprintf(wanted, sizeof wanted, " %lu\n", (unsigned long)status.st_ino);
    FILE *list = fopen("/proc/net/unix", "r");
    CHECK(list);
    while (fgets(line, sizeof line, list)) found |= strlen(line) > strlen(wanted) && strstr(line, wanted) != 0;
    fclose(list);
    return found;
}

/* Else all this would test nothing. */
CASE(is_what_it_is) {
    SAME(is_unix(tcp("127.0.0.1")), WARM);
    SAME(is_unix(tcp("::1")), WARM);
    SAME(is_unix(OK(socket(AF_INET, SOCK_DGRAM, 0))), 0);
}

CASE(many) {
    int v4 = listening("127.0.0.1", 0), v6 = listening("::1", 0);
    for (int i = 0; i < 30; i++) {
        meet("127.0.0.1", port_of(v4), v4);
        meet("::1", port_of(v6), v6);
    }
}

CASE(by_another_number) {
    int listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 6; i++) {
        int fd = tcp("127.0.0.1"), copy = OK(dup(fd));
        OK(CONNECT(copy, "127.0.0.1", port_of(listener)));
        close(fd);
        talk(copy, OK(accept(listener, 0, 0)));
        close(copy);
    }
}

CASE(by_another_process) {
    int listener = listening("127.0.0.1", 0), channel[2];
    OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel));
    for (int i = 0; i < 6; i++) {
        pid_t child = IN_CHILD({
            OK(open("/dev/null", O_RDONLY)); /* so that it has another number */
            int fd = receive_passed(channel[1]);
            struct address own = name_of(fd);
            TEXT(show(&own), "0.0.0.0:0");
            OK(CONNECT(fd, "127.0.0.1", port_of(listener)));
            carries(fd, fd, "");
        });
        int fd = tcp("127.0.0.1");
        pass(channel[0], fd);
        close(fd);
        end_well(child);
        close(OK(accept(listener, 0, 0)));
    }
}

/* Edge-triggered, and what there is to know before the connect has been told (Boost.Asio waits in another thread). */
CASE(epoll_has_told_before) {
    int listener = listening("127.0.0.1", 0);
    meet("127.0.0.1", port_of(listener), listener);
    for (int i = 0; i < 6; i++) {
        int fd = tcp("127.0.0.1"), set = OK(epoll_create1(0));
        struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
        OK(fcntl(fd, F_SETFL, O_NONBLOCK));
        OK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
        SAME(epoll_wait(set, &event, 1, 1000), 1);
        SAME(epoll_wait(set, &event, 1, 0), 0);
        FAILS(CONNECT(fd, "127.0.0.1", port_of(listener)), EINPROGRESS);
        SAME(epoll_wait(set, &event, 1, 1000), 1);
        SAME(event.events, EPOLLOUT);
        talk(fd, OK(accept(listener, 0, 0)));
        close(fd);
        close(set);
    }
}

CASE(options_of_before) {
    int listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 4; i++) {
        int fd = tcp("127.0.0.1");
        OK(set(fd, IPPROTO_TCP, TCP_NODELAY, 2));
        OK(set(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
        OK(set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 77));
        FAILS(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &fd, 3), EINVAL);
        SAME(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
        OK(CONNECT(fd, "127.0.0.1", port_of(listener)));
        SAME(option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
        SAME(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
        SAME(option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 77);
        SAME(option(fd, SOL_SOCKET, SO_DOMAIN), AF_INET);
        OK(set(fd, IPPROTO_TCP, TCP_NODELAY, 0));
        SAME(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
        close(fd);
        close(OK(accept(listener, 0, 0)));
    }
}

CASE(flags_of_before) {
    int listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 4; i++) {
        int blocks = OK(socket(AF_INET, SOCK_STREAM, 0)), fd = OK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
        OK(CONNECT(blocks, "127.0.0.1", port_of(listener)));
        SAME(OK(fcntl(blocks, F_GETFL)) & O_NONBLOCK, 0);
        SAME(OK(fcntl(blocks, F_GETFD)), 0);
        OK(fcntl(fd, F_SETFL, O_NONBLOCK));
        FAILS(CONNECT(fd, "127.0.0.1", port_of(listener)), EINPROGRESS);
        SAME(OK(fcntl(fd, F_GETFL)) & O_NONBLOCK, O_NONBLOCK);
        SAME(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
        close(blocks);
        close(fd);
        close(OK(accept(listener, 0, 0)));
        close(OK(accept(listener, 0, 0)));
    }
}

CASE(what_isn_t_connected_says_so) {
    struct address peer = {.size = sizeof peer.storage};
    int fd = tcp("127.0.0.1");
    SAME(events_of(fd, POLLIN | POLLOUT, 0), POLLOUT | POLLHUP);
    FAILS(getpeername(fd, &peer.any, &peer.size), ENOTCONN);
    FAILS(write(fd, "x", 1), EPIPE);
    fd = tcp("127.0.0.1");
    FAILS(send(fd, "x", 1, 0), EPIPE);
    fd = tcp("127.0.0.1");
    FAILS(shutdown(fd, SHUT_RDWR), ENOTCONN);
    fd = tcp("127.0.0.1");
    FAILS(accept(fd, 0, 0), EINVAL);
}

CASE(a_client_that_serves_next) {
    for (int i = 0; i < 3; i++) {
        int listener = listening("127.0.0.1", 0);
        meet("127.0.0.1", port_of(listener), listener);
    }
}

/* A file of the program's has the number: the kernel's word holds. */
CASE(the_number_is_another_file_s) {
    int ends[2], files[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    OK(pipe(files));
    int listener = listening("127.0.0.1", 0), fd = tcp("127.0.0.1");
    OK(dup2(ends[0], fd));
    FAILS(CONNECT(fd, "127.0.0.1", port_of(listener)), EINVAL);
    carries(ends[1], fd, "through");
    fd = tcp("127.0.0.1");
    OK(dup2(files[0], fd));
    FAILS(CONNECT(fd, "127.0.0.1", port_of(listener)), ENOTSOCK);
    int udp = OK(socket(AF_INET, SOCK_DGRAM, 0));
    fd = tcp("127.0.0.1");
    OK(dup2(udp, fd));
    OK(CONNECT(fd, "127.0.0.1", port_of(listener)));
    SAME(option(fd, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
    fd = tcp("127.0.0.1");
    int client = dial("127.0.0.1", port_of(listener));
    OK(dup2(client, fd));
    FAILS(CONNECT(fd, "127.0.0.1", port_of(listener)), EISCONN);
    OK(set(fd, SOL_SOCKET, SO_REUSEPORT, 1));
    talk(fd, OK(accept(listener, 0, 0)));
}

/* There, the kernel answers. */
static void connect_elsewhere(void) {
    FAILS(CONNECT(tcp("10.9.9.9"), "10.9.9.9", 80), ENETUNREACH);
}

CASE(in_a_namespace_of_its_own) {
    if (unshare(CLONE_NEWNET) < 0) return; /* an ordinary user may not */
    connect_elsewhere();
    connect_elsewhere();
}

static int elsewhere(void *nothing) {
    (void)nothing;
    connect_elsewhere();
    return 0;
}

CASE(in_a_child_with_a_namespace_of_its_own) {
    char *stack = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(stack != MAP_FAILED);
    pid_t child = clone(elsewhere, stack + (1 << 20), CLONE_NEWNET | SIGCHLD, 0);
    if (child >= 0) end_well(child);
}

/* To become TCP's own it takes a descriptor for a moment. */
CASE(without_a_descriptor) {
    int fd = tcp("127.0.0.1");
    struct rlimit limit, none;
    OK(getrlimit(RLIMIT_NOFILE, &limit));
    none = (struct rlimit){(rlim_t)fd + 1, limit.rlim_max};
    for (int i = 0; i < fd; i++)
        if (fcntl(i, F_GETFD) < 0) OK(dup2(fd, i)); /* each below it is in use */
    OK(setrlimit(RLIMIT_NOFILE, &none));
    for (int i = 0; i < 2; i++) {
        CHECK(CONNECT(fd, "127.0.0.1", 9) < 0);
        CHECK(errno == ECONNREFUSED || errno == EMFILE);
    }
    OK(setrlimit(RLIMIT_NOFILE, &limit));
    CHECK(CONNECT(fd, "127.0.0.1", 9) < 0);
    SAME(errno, ECONNREFUSED);
}
