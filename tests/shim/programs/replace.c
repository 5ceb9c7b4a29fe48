/* What a descriptor keeps when connect, bind or listen puts another file under it. */
#include "test.h"

/* Runs `check` on a descriptor that `prepare` has set up, after connect (four times: see meet), bind and listen. */
static void each_way(void (*prepare)(int fd), void (*check)(int fd)) {
    int listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 4; i++) {
        int client = tcp("127.0.0.1");
        prepare(client);
        if (CONNECT(client, "127.0.0.1", port_of(listener)) < 0) {
            SAME(errno, EINPROGRESS);
            SAME(events_of(client, POLLOUT, 5000), POLLOUT);
        }
        check(client);
        OK(accept(listener, 0, 0));
        close(client);
    }
    int bound = tcp("127.0.0.1"), unbound = tcp("127.0.0.1");
    prepare(bound);
    OK(BIND(bound, "127.0.0.1", 0));
    check(bound);
    OK(listen(bound, 5));
    check(bound);
    prepare(unbound);
    OK(listen(unbound, 5));
    check(unbound);
    int both = tcp("127.0.0.1");
    prepare(both);
    OK(BIND(both, "127.0.0.1", 0));
    if (CONNECT(both, "127.0.0.1", port_of(listener)) < 0) SAME(errno, EINPROGRESS);
    check(both);
}

static void make_non_blocking(int fd) {
    OK(fcntl(fd, F_SETFL, OK(fcntl(fd, F_GETFL)) | O_NONBLOCK));
}

static void is_non_blocking(int fd) {
    SAME(OK(fcntl(fd, F_GETFL)), O_RDWR | O_NONBLOCK);
    SAME(OK(fcntl(fd, F_GETFD)), 0);
}

CASE(non_blocking) {
    each_way(make_non_blocking, is_non_blocking);
}

static void nothing(int fd) {
    (void)fd;
}

static void is_blocking(int fd) {
    SAME(OK(fcntl(fd, F_GETFL)), O_RDWR);
    SAME(OK(fcntl(fd, F_GETFD)), 0);
}

CASE(blocking_and_open_at_exec) {
    each_way(nothing, is_blocking);
}

static void close_at_exec(int fd) {
    OK(fcntl(fd, F_SETFD, FD_CLOEXEC));
}

static void closes_at_exec(int fd) {
    SAME(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
}

CASE(close_on_exec) {
    each_way(close_at_exec, closes_at_exec);
}

static void limit_time(int fd) {
    struct timeval receive = {3, 0}, send = {4, 0};
    OK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &receive, sizeof receive));
    OK(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &send, sizeof send));
}

static void has_limits(int fd) {
    struct timeval receive, send;
    socklen_t size = sizeof receive;
    OK(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &receive, &size));
    OK(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &send, &size));
    SAME(receive.tv_sec, 3);
    SAME(send.tv_sec, 4);
}

CASE(timeouts) {
    each_way(limit_time, has_limits);
}

static void own(int fd) {
    OK(fcntl(fd, F_SETOWN, getpid()));
    OK(fcntl(fd, F_SETSIG, SIGUSR1));
}

static void owned(int fd) {
    SAME(fcntl(fd, F_GETOWN), getpid());
    SAME(fcntl(fd, F_GETSIG), SIGUSR1);
}

CASE(owner_and_signal) {
    each_way(own, owned);
}

static void own_by_group(int fd) {
    OK(fcntl(fd, F_SETOWN, -getpgrp()));
}

static void owned_by_group(int fd) {
    SAME(fcntl(fd, F_GETOWN), -getpgrp());
}

CASE(owner_that_is_a_group) {
    each_way(own_by_group, owned_by_group);
}

static volatile sig_atomic_t signalled;

static void note_signal(int number) {
    (void)number;
    signalled = 1;
}

CASE(signal_driven_io_goes_on) {
    signal(SIGIO, note_signal);
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(fcntl(client, F_SETOWN, getpid()));
    OK(fcntl(client, F_SETFL, O_ASYNC));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    CHECK(OK(fcntl(client, F_GETFL)) & O_ASYNC);
    int server = OK(accept(listener, 0, 0));
    signalled = 0;
    SAME(write(server, "x", 1), 1);
    SAME(events_of(client, POLLIN, 5000), POLLIN);
    CHECK(signalled);
}

static void enlarge(int fd) {
    OK(set(fd, SOL_SOCKET, SO_RCVBUF, 50000));
    OK(set(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
    struct linger linger = {1, 5};
    OK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
}

static void is_large(int fd) {
    SAME(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    struct linger linger = {0, 0};
    socklen_t size = sizeof linger;
    OK(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &size));
    SAME(linger.l_onoff, 1);
    SAME(linger.l_linger, 5);
}

CASE(options_of_every_socket) {
    each_way(enlarge, is_large);
}

CASE(the_number_and_no_others) {
    int listener = listening("127.0.0.1", 0), before = OK(dup(0));
    close(before);
    for (int i = 0; i < 5; i++) {
        int client = dial("127.0.0.1", port_of(listener));
        SAME(client, before);
        close(client);
    }
    int next = OK(dup(0));
    SAME(next, before); /* nothing was left open at a low number */
}

CASE(low_numbers) {
    for (int low = 0; low < 3; low++) {
        int listener = listening("127.0.0.1", 0), saved = OK(dup(low)), port = port_of(listener);
        for (int i = 0; i < 4; i++) {
            close(low);
            int client = OK(socket(AF_INET, SOCK_STREAM, 0)), back;
            struct address to = at("127.0.0.1", port), peer = {.size = sizeof peer.storage};
            int connected = connect(client, &to.any, to.size), named = getpeername(client, &peer.any, &peer.size);
            back = dup2(saved, low);
            SAME(client, low);
            SAME(connected, 0);
            SAME(named, 0);
            SAME(back, low);
            TEXT(show(&peer), show(&to));
            close(OK(accept(listener, 0, 0)));
        }
    }
}

CASE(high_numbers) {
    int listener = listening("127.0.0.1", 0), fresh = tcp("127.0.0.1"), high = OK(fcntl(fresh, F_DUPFD, 1500));
    close(fresh);
    OK(CONNECT(high, "127.0.0.1", port_of(listener)));
    talk(high, OK(accept(listener, 0, 0)));
    int bound = OK(fcntl(tcp("127.0.0.1"), F_DUPFD, 1600));
    OK(BIND(bound, "127.0.0.1", 0));
    OK(listen(bound, 5));
    meet("127.0.0.1", port_of(bound), bound);
}
