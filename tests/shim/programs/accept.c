/* accept(2) and accept4. */
#include "test.h"

static int one_waits(const char *ip) {
    int listener = listening(ip, 0);
    dial(ip, port_of(listener));
    return listener;
}

CASE(no_address_wanted) {
    OK(accept(one_waits("127.0.0.1"), 0, 0));
    OK(accept4(one_waits("127.0.0.1"), 0, 0, 0));
    OK(accept4(one_waits("::1"), 0, 0, SOCK_CLOEXEC));
}

CASE(an_address_without_a_size) {
    struct address got;
    FAILS(accept(one_waits("127.0.0.1"), &got.any, 0), EFAULT);
}

CASE(a_size_without_an_address) {
    socklen_t size = 77;
    OK(accept(one_waits("127.0.0.1"), 0, &size));
    SAME(size, 77);
}

CASE(tells_who_calls) {
    int listener = listening("127.0.0.1", 0), client = dial("127.0.0.1", port_of(listener));
    struct address got = {.size = sizeof got.storage}, own = name_of(client);
    OK(accept(listener, &got.any, &got.size));
    SAME(got.size, sizeof(struct sockaddr_in));
    TEXT(show(&got), show(&own));
}

CASE(tells_who_calls_over_v6) {
    int listener = listening("::1", 0), client = dial("::1", port_of(listener));
    struct address got = {.size = sizeof got.storage}, own = name_of(client);
    OK(accept4(listener, &got.any, &got.size, 0));
    SAME(got.size, sizeof(struct sockaddr_in6));
    TEXT(show(&got), show(&own));
}

CASE(a_short_buffer_is_not_overrun) {
    int listener = one_waits("127.0.0.1");
    struct address got;
    memset(&got, 0x55, sizeof got);
    got.size = 6;
    OK(accept(listener, &got.any, &got.size));
    SAME(got.size, sizeof(struct sockaddr_in)); /* what it would have taken */
    SAME(got.any.sa_family, AF_INET);
    SAME(((unsigned char *)&got.in)[6], 0x55);
}

CASE(an_empty_buffer) {
    struct address got;
    memset(&got, 0x55, sizeof got);
    got.size = 0;
    OK(accept(one_waits("127.0.0.1"), &got.any, &got.size));
    SAME(got.size, sizeof(struct sockaddr_in));
    SAME(((unsigned char *)&got.in)[0], 0x55);
}

CASE(a_negative_size) {
    struct address got = {.size = (socklen_t)-1};
    FAILS(accept(one_waits("127.0.0.1"), &got.any, &got.size), EINVAL);
}

CASE(a_large_buffer) {
    struct {
        struct sockaddr_in in;
        char more[500];
    } got;
    memset(&got, 0x55, sizeof got);
    socklen_t size = sizeof got;
    OK(accept(one_waits("127.0.0.1"), (void *)&got, &size));
    SAME(size, sizeof got.in);
    SAME(got.more[0], 0x55);
    for (size_t i = 0; i < sizeof got.in.sin_zero; i++) SAME(got.in.sin_zero[i], 0);
}

CASE(descriptor_0) {
    int listener = one_waits("127.0.0.1");
    struct address got = {.size = sizeof got.storage};
    close(0);
    SAME(accept(listener, &got.any, &got.size), 0);
    TEXT(ip_of(&got), "127.0.0.1");
    struct address peer = peer_of(0);
    TEXT(show(&peer), show(&got));
}

CASE(flags) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    for (int i = 0; i < 4; i++) dial("127.0.0.1", port);
    int none = OK(accept4(listener, 0, 0, 0)), cloexec = OK(accept4(listener, 0, 0, SOCK_CLOEXEC)),
        nonblock = OK(accept4(listener, 0, 0, SOCK_NONBLOCK)), plain = OK(accept(listener, 0, 0));
    SAME(OK(fcntl(none, F_GETFD)), 0);
    SAME(OK(fcntl(plain, F_GETFD)), 0);
    SAME(OK(fcntl(cloexec, F_GETFD)), FD_CLOEXEC);
    SAME(OK(fcntl(none, F_GETFL)) & O_NONBLOCK, 0);
    SAME(OK(fcntl(nonblock, F_GETFL)) & O_NONBLOCK, O_NONBLOCK);
    OK(fcntl(listener, F_SETFL, O_NONBLOCK)); /* musl calls accept then (accept4.c there), and nobody is there */
    FAILS(accept4(listener, 0, 0, 0x10), EINVAL);
}

CASE(what_it_gives_blocks_whatever_the_listener_does) {
    int listener = one_waits("127.0.0.1");
    OK(fcntl(listener, F_SETFL, O_NONBLOCK));
    OK(fcntl(listener, F_SETFD, FD_CLOEXEC));
    SAME(events_of(listener, POLLIN, 5000), POLLIN);
    int server = OK(accept(listener, 0, 0));
    SAME(OK(fcntl(server, F_GETFL)) & O_NONBLOCK, 0);
    SAME(OK(fcntl(server, F_GETFD)), 0);
    FAILS(accept(listener, 0, 0), EAGAIN);
}

CASE(nobody_calls) {
    int listener = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    OK(BIND(listener, "127.0.0.1", 0));
    OK(listen(listener, 5));
    FAILS(accept(listener, 0, 0), EAGAIN);
    SAME(events_of(listener, POLLIN, 0), 0);
    dial("127.0.0.1", port_of(listener));
    SAME(events_of(listener, POLLIN, 5000), POLLIN);
    OK(accept(listener, 0, 0));
}

CASE(what_does_not_listen) {
    struct pair pair = connected("127.0.0.1");
    int fresh = tcp("127.0.0.1"), bound = tcp("127.0.0.1");
    OK(BIND(bound, "127.0.0.1", 0));
    FAILS(accept(fresh, 0, 0), EINVAL);
    FAILS(accept(bound, 0, 0), EINVAL);
    FAILS(accept(pair.client, 0, 0), EINVAL);
    FAILS(accept(pair.server, 0, 0), EINVAL);
    FAILS(accept4(fresh, 0, 0, SOCK_CLOEXEC), EINVAL);
    FAILS(accept(-1, 0, 0), EBADF);
}

CASE(no_descriptor_left) {
    int listener = one_waits("127.0.0.1"), last = -1, fd;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0) last = fd;
    FAILS(accept(listener, 0, 0), EMFILE);
    close(last);
    SAME(accept(listener, 0, 0), last); /* it still waits */
}

CASE(in_the_order_of_the_calls) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), clients[10];
    for (int i = 0; i < 10; i++) clients[i] = dial("127.0.0.1", port);
    for (int i = 0; i < 10; i++) {
        struct address got = {.size = sizeof got.storage}, own = name_of(clients[i]);
        OK(accept(listener, &got.any, &got.size));
        TEXT(show(&got), show(&own));
    }
}

CASE(inherits_the_listeners_tcp_options) {
    int listener = tcp("127.0.0.1");
    OK(set(listener, IPPROTO_TCP, TCP_NODELAY, 1));
    OK(set(listener, IPPROTO_TCP, TCP_KEEPIDLE, 77));
    OK(BIND(listener, "127.0.0.1", 0));
    OK(listen(listener, 5));
    OK(set(listener, IPPROTO_TCP, TCP_KEEPCNT, 5));
    dial("127.0.0.1", port_of(listener));
    int server = OK(accept(listener, 0, 0));
    SAME(option(server, IPPROTO_TCP, TCP_NODELAY), 1);
    SAME(option(server, IPPROTO_TCP, TCP_KEEPIDLE), 77);
    SAME(option(server, IPPROTO_TCP, TCP_KEEPCNT), 5);
    SAME(option(server, SOL_SOCKET, SO_ACCEPTCONN), 0);
}

CASE(inherits_the_listeners_timeouts_and_keepalive) {
    int listener = listening("127.0.0.1", 0);
    struct timeval little = {0, 30000}, got = {0, 0};
    socklen_t size = sizeof got;
    char byte;
    OK(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &little, sizeof little));
    OK(set(listener, SOL_SOCKET, SO_KEEPALIVE, 1));
    dial("127.0.0.1", port_of(listener));
    int server = OK(accept(listener, 0, 0));
    SAME(option(server, SOL_SOCKET, SO_KEEPALIVE), 1);
    OK(getsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &got, &size));
    CHECK(got.tv_usec > 0);
    FAILS(read(server, &byte, 1), EAGAIN);
}

CASE(a_timeout) {
    int listener = listening("127.0.0.1", 0);
    struct timeval little = {0, 1000};
    OK(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &little, sizeof little));
    FAILS(accept(listener, 0, 0), EAGAIN);
}

CASE(a_shutdown_listener) {
    int listener = listening("127.0.0.1", 0);
    OK(shutdown(listener, SHUT_RDWR));
    FAILS(accept(listener, 0, 0), EINVAL);
    int hurried = listening("127.0.0.1", 0);
    OK(fcntl(hurried, F_SETFL, O_NONBLOCK));
    FAILS(accept(hurried, 0, 0), EAGAIN);
    OK(shutdown(hurried, SHUT_RD));
    FAILS(accept(hurried, 0, 0), EINVAL);
}

CASE(a_connection_that_the_client_has_closed) {
    int listener = listening("127.0.0.1", 0), client = dial("127.0.0.1", port_of(listener));
    struct address got = {.size = sizeof got.storage}, own = name_of(client);
    char byte;
    close(client);
    int server = OK(accept(listener, &got.any, &got.size));
    TEXT(show(&got), show(&own));
    SAME(read(server, &byte, 1), 0);
}
