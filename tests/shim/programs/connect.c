/* connect(2): what it returns and what the socket is afterwards. */
#include <sys/resource.h>
#include <sys/time.h>

#include "test.h"

CASE(blocking) {
    struct pair pair = connected("127.0.0.1");
    talk(pair.client, pair.server);
    SAME(option(pair.client, SOL_SOCKET, SO_ERROR), 0);
}

CASE(blocking_v6) {
    struct pair pair = connected("::1");
    talk(pair.client, pair.server);
}

CASE(to_the_virtual_ip) {
    struct pair pair = connected(VIP);
    talk(pair.client, pair.server);
}

CASE(to_the_virtual_ip_v6) {
    struct pair pair = connected(VIP6);
    talk(pair.client, pair.server);
}

static void finish_in_background(const char *ip) {
    int listener = listening(ip, 0);
    for (int i = 0; i < 4; i++) {
        int client = tcp(ip);
        OK(fcntl(client, F_SETFL, O_NONBLOCK));
        FAILS(CONNECT(client, ip, port_of(listener)), EINPROGRESS);
        SAME(events_of(client, POLLOUT, 5000), POLLOUT);
        SAME(option(client, SOL_SOCKET, SO_ERROR), 0);
        talk(client, OK(accept(listener, 0, 0)));
    }
}

CASE(non_blocking) {
    finish_in_background("127.0.0.1");
}

CASE(non_blocking_v6) {
    finish_in_background("::1");
}

CASE(non_blocking_from_the_start) {
    int listener = listening("127.0.0.1", 0), client = OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP));
    FAILS(CONNECT(client, "127.0.0.1", port_of(listener)), EINPROGRESS);
    SAME(events_of(client, POLLOUT, 5000), POLLOUT);
    CHECK(OK(fcntl(client, F_GETFL)) & O_NONBLOCK);
}

/* After EINPROGRESS one more connect is allowed to say 0 (connect(2)), the next one must be EISCONN. */
CASE(again_after_non_blocking) {
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1"), port = port_of(listener);
    OK(fcntl(client, F_SETFL, O_NONBLOCK));
    FAILS(CONNECT(client, "127.0.0.1", port), EINPROGRESS);
    SAME(events_of(client, POLLOUT, 5000), POLLOUT);
    int again = CONNECT(client, "127.0.0.1", port);
    CHECK(again == 0 || errno == EISCONN);
    FAILS(CONNECT(client, "127.0.0.1", port), EISCONN);
}

CASE(again) {
    struct pair pair = connected("127.0.0.1");
    FAILS(CONNECT(pair.client, "127.0.0.1", port_of(pair.listener)), EISCONN);
    FAILS(CONNECT(pair.client, "127.0.0.1", 1), EISCONN);
    talk(pair.client, pair.server);
}

CASE(an_accepted_socket) {
    struct pair pair = connected("127.0.0.1");
    FAILS(CONNECT(pair.server, "127.0.0.1", port_of(pair.listener)), EISCONN);
    talk(pair.client, pair.server);
}

CASE(a_listener) {
    int listener = listening("127.0.0.1", 0);
    FAILS(CONNECT(listener, "127.0.0.1", port_of(listener)), EISCONN);
    dial("127.0.0.1", port_of(listener));
}

CASE(a_port_that_nobody_listens_on) {
    int v4 = tcp("127.0.0.1"), v6 = tcp("::1"), virtual = tcp(VIP);
    FAILS(CONNECT(v4, "127.0.0.1", 9), ECONNREFUSED);
    FAILS(CONNECT(v6, "::1", 9), ECONNREFUSED);
    FAILS(CONNECT(virtual, VIP, 9), ECONNREFUSED);
}

CASE(a_port_that_is_bound_but_not_listened_on) {
    int bound = tcp("127.0.0.1"), client = tcp("127.0.0.1");
    OK(BIND(bound, "127.0.0.1", 0));
    FAILS(CONNECT(client, "127.0.0.1", port_of(bound)), ECONNREFUSED);
}

CASE(a_port_whose_listener_has_closed) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), client = tcp("127.0.0.1");
    close(dial("127.0.0.1", port));
    close(listener);
    FAILS(CONNECT(client, "127.0.0.1", port), ECONNREFUSED);
}

CASE(once_more_after_a_refusal) {
    int client = tcp("127.0.0.1"), bound = tcp("127.0.0.1");
    OK(BIND(bound, "127.0.0.1", 0));
    FAILS(CONNECT(client, "127.0.0.1", port_of(bound)), ECONNREFUSED);
    OK(listen(bound, 5));
    OK(CONNECT(client, "127.0.0.1", port_of(bound)));
    talk(client, OK(accept(bound, 0, 0)));
}

CASE(non_blocking_to_a_dead_port) {
    int client = tcp("127.0.0.1");
    OK(fcntl(client, F_SETFL, O_NONBLOCK));
    SAME(CONNECT(client, "127.0.0.1", 9), -1);
    if (errno == EINPROGRESS) { /* else it was told at once, as connect(2) allows */
        CHECK(events_of(client, POLLOUT, 5000) & POLLERR);
        SAME(option(client, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
        SAME(option(client, SOL_SOCKET, SO_ERROR), 0);
    } else {
        SAME(errno, ECONNREFUSED);
    }
}

CASE(an_address_of_nobody) {
    FAILS(CONNECT(tcp("10.78.0.1"), "10.78.0.1", 80), ENETUNREACH);
    FAILS(CONNECT(tcp("fd00:dead::1"), "fd00:dead::1", 80), ENETUNREACH);
}

CASE(the_any_address_is_this_host) {
    int listener = listening("0.0.0.0", 0), client = dial("0.0.0.0", port_of(listener));
    struct address peer = peer_of(client), own = name_of(client);
    TEXT(ip_of(&peer), "127.0.0.1");
    TEXT(ip_of(&own), "127.0.0.1");
    talk(client, OK(accept(listener, 0, 0)));
}

CASE(the_any_address_of_v6_is_this_host) {
    int listener = listening("::", 0), client = dial("::", port_of(listener));
    struct address peer = peer_of(client);
    TEXT(ip_of(&peer), "::1");
    talk(client, OK(accept(listener, 0, 0)));
}

CASE(bad_addresses) {
    struct address v4 = at("127.0.0.1", 80), v6 = at("::1", 80), un = {.size = sizeof un.un};
    un.un.sun_family = AF_UNIX;
    int four = tcp("127.0.0.1"), six = tcp("::1");
    FAILS(connect(four, &v4.any, 8), EINVAL);
    FAILS(connect(six, &v6.any, 20), EINVAL);
    FAILS(connect(four, &v6.any, v6.size), EAFNOSUPPORT);
    FAILS(connect(six, &v4.any, v4.size), EINVAL); /* too short for IPv6, before its family is looked at */
    FAILS(connect(six, &v4.any, v6.size), EAFNOSUPPORT);
    FAILS(connect(four, &un.any, un.size), EAFNOSUPPORT);
    FAILS(connect(four, 0, v4.size), EFAULT);
    FAILS(connect(four, &v4.any, 0), EINVAL);
    FAILS(connect(four, &v4.any, 1), EINVAL);
    FAILS(connect(four, &v4.any, -1), EINVAL);
    FAILS(connect(-1, &v4.any, v4.size), EBADF);
    FAILS(connect(0x7fffffff, &v4.any, v4.size), EBADF);
}

CASE(bad_addresses_of_a_bound_socket) {
    struct address v4 = at("127.0.0.1", 80), v6 = at("::1", 80);
    int bound = tcp("127.0.0.1");
    OK(BIND(bound, "127.0.0.1", 0));
    FAILS(connect(bound, &v4.any, 8), EINVAL);
    FAILS(connect(bound, &v6.any, v6.size), EAFNOSUPPORT);
    FAILS(connect(bound, 0, v4.size), EFAULT);
}

CASE(a_socket_that_was_bound_keeps_its_port) {
    int listener = listening(VIP, 0), client = tcp(VIP);
    OK(BIND(client, VIP, 4001));
    OK(CONNECT(client, VIP, port_of(listener)));
    struct address got = {.size = sizeof got.storage}, own = name_of(client);
    OK(accept(listener, &got.any, &got.size));
    TEXT(show(&got), VIP ":4001");
    TEXT(show(&own), VIP ":4001");
}

CASE(a_socket_bound_to_any_keeps_its_port) {
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(BIND(client, "0.0.0.0", 4002));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    struct address own = name_of(client);
    TEXT(show(&own), "127.0.0.1:4002");
}

CASE(a_socket_bound_to_port_0_keeps_the_port_it_got) {
    int listener = listening(VIP, 0), client = tcp(VIP);
    OK(BIND(client, VIP, 0));
    int port = port_of(client);
    CHECK(port != 0);
    OK(CONNECT(client, VIP, port_of(listener)));
    SAME(port_of(client), port);
}

CASE(a_socket_bound_to_the_virtual_ip_dials_loopback) {
    int listener = listening("127.0.0.1", 0), client = tcp(VIP);
    OK(BIND(client, VIP, 0));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    struct address own = name_of(client), got = {.size = sizeof got.storage};
    TEXT(ip_of(&own), VIP);
    OK(accept(listener, &got.any, &got.size));
    TEXT(show(&got), show(&own));
}

CASE(two_from_one_port_to_one_place) {
    int listener = listening(VIP, 0), on = 1, first = tcp(VIP), second = tcp(VIP);
    OK(setsockopt(first, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    OK(setsockopt(second, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
    OK(BIND(first, VIP, 4003));
    OK(CONNECT(first, VIP, port_of(listener)));
    OK(BIND(second, VIP, 4003));
    FAILS(CONNECT(second, VIP, port_of(listener)), EADDRNOTAVAIL);
    int other = listening(VIP, 0);
    OK(CONNECT(second, VIP, port_of(other)));
}

CASE(unspec_disconnects) {
    struct pair pair = connected("127.0.0.1");
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    char byte;
    OK(connect(pair.client, &nowhere, sizeof nowhere));
    CHECK(read(pair.server, &byte, 1) <= 0); /* a reset or the end */
    struct address peer = {.size = sizeof peer.storage};
    FAILS(getpeername(pair.client, &peer.any, &peer.size), ENOTCONN);
    OK(CONNECT(pair.client, "127.0.0.1", port_of(pair.listener)));
    talk(pair.client, OK(accept(pair.listener, 0, 0)));
}

CASE(unspec_of_a_socket_that_is_not_connected) {
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int fresh = tcp("127.0.0.1"), listener = listening("127.0.0.1", 0);
    OK(connect(fresh, &nowhere, sizeof nowhere));
    OK(CONNECT(fresh, "127.0.0.1", port_of(listener)));
    talk(fresh, OK(accept(listener, 0, 0)));
}

CASE(unspec_of_a_bound_socket_keeps_its_port) {
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(BIND(client, "127.0.0.1", 4004));
    OK(connect(client, &nowhere, sizeof nowhere));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    SAME(port_of(client), 4004);
}

CASE(before_the_server_accepts) {
    int listener = listening("127.0.0.1", 0), client = dial("127.0.0.1", port_of(listener));
    SAME(write(client, "early", 5), 5);
    close(client);
    int server = OK(accept(listener, 0, 0));
    char got[9] = "";
    SAME(read(server, got, sizeof got - 1), 5);
    TEXT(got, "early");
    SAME(read(server, got, 1), 0);
}

CASE(mptcp) {
    int listener = listening("127.0.0.1", 0), client = socket(AF_INET, SOCK_STREAM, 262);
    if (client < 0) return; /* a kernel without it */
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    talk(client, OK(accept(listener, 0, 0)));
}

extern int __connect(int fd, const struct sockaddr *address, socklen_t size) __attribute__((weak));

CASE(by_its_other_name) {
    if (!__connect) return; /* musl has none */
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    struct address to = at("127.0.0.1", port_of(listener));
    OK(__connect(client, &to.any, to.size));
    struct address peer = peer_of(client);
    TEXT(show(&peer), show(&to));
    FAILS(__connect(-1, &to.any, to.size), EBADF);
}

/* A queue that stays full: TCP's client gives up when SO_SNDTIMEO says so (socket(7)). The queue is larger here. */
CASE(a_full_queue_and_a_time_limit) {
    struct timeval limit = {0, 100000};
    struct rlimit all;
    OK(getrlimit(RLIMIT_NOFILE, &all));
    all.rlim_cur = all.rlim_max;
    OK(setrlimit(RLIMIT_NOFILE, &all));
    int listener = tcp("127.0.0.1");
    OK(BIND(listener, "127.0.0.1", 0));
    OK(listen(listener, 1));
    for (int i = 0, port = port_of(listener); i < 5000; i++) {
        int client = socket(AF_INET, SOCK_STREAM, 0);
        if (client < 0) return; /* so many descriptors are not allowed here */
        OK(setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit));
        if (CONNECT(client, "127.0.0.1", port) == 0) continue;
        SAME(errno, EINPROGRESS);
        return;
    }
    fail("the queue has no end");
}
