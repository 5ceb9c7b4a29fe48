/* getsockopt(2) and setsockopt(2) of TCP sockets: before and after connect and accept. */
#include "test.h"

static const struct {
    int level, name, value;
} settable[] = {
    {IPPROTO_TCP, TCP_NODELAY, 1},
    {IPPROTO_TCP, TCP_CORK, 1},
    {IPPROTO_TCP, TCP_KEEPIDLE, 33},
    {IPPROTO_TCP, TCP_KEEPINTVL, 12},
    {IPPROTO_TCP, TCP_KEEPCNT, 4},
    {IPPROTO_TCP, TCP_SYNCNT, 3},
    {IPPROTO_TCP, TCP_LINGER2, 9},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 5000},
    {IPPROTO_TCP, 25 /* TCP_NOTSENT_LOWAT */, 4096},
    {IPPROTO_IP, IP_TOS, 0x10},
    {IPPROTO_IP, IP_TTL, 44},
    {IPPROTO_IP, IP_RECVERR, 1},
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1},
    {SOL_SOCKET, SO_KEEPALIVE, 1},
    {SOL_SOCKET, SO_REUSEADDR, 1},
    {SOL_SOCKET, SO_REUSEPORT, 1},
    {SOL_SOCKET, SO_OOBINLINE, 1},
    {SOL_SOCKET, SO_PRIORITY, 3},
};
enum { SETTABLE = sizeof settable / sizeof *settable };

static void set_all(int fd) {
    for (int i = 0; i < SETTABLE; i++)
        if (set(fd, settable[i].level, settable[i].name, settable[i].value) < 0)
            fail("level %d option %d: %s", settable[i].level, settable[i].name, strerror(errno));
}

static void have_all(int fd) {
    for (int i = 0; i < SETTABLE; i++) {
        int value = option(fd, settable[i].level, settable[i].name);
        if (value != settable[i].value)
            fail("level %d option %d is %d, not %d", settable[i].level, settable[i].name, value, settable[i].value);
    }
}

static void tell_all(int fd) {
    for (int i = 0; i < SETTABLE; i++)
        say("level %d option %d is %d", settable[i].level, settable[i].name,
            option(fd, settable[i].level, settable[i].name));
}

CASE(set_after_connect) {
    struct pair pair = connected("127.0.0.1");
    set_all(pair.client);
    have_all(pair.client);
    set_all(pair.server);
    have_all(pair.server);
    talk(pair.client, pair.server);
}

CASE(set_before_connect) {
    int listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 4; i++) {
        int client = tcp("127.0.0.1");
        set_all(client);
        OK(CONNECT(client, "127.0.0.1", port_of(listener)));
        int server = OK(accept(listener, 0, 0));
        have_all(client);
        close(client);
        close(server);
    }
}

CASE(set_before_bind_and_listen) {
    int listener = tcp("127.0.0.1");
    set_all(listener);
    OK(BIND(listener, "127.0.0.1", 0));
    have_all(listener);
    OK(listen(listener, 5));
    have_all(listener);
}

CASE(set_between_bind_and_listen) {
    int listener = tcp("127.0.0.1");
    OK(BIND(listener, "127.0.0.1", 0));
    set_all(listener);
    OK(listen(listener, 5));
    have_all(listener);
}

CASE(set_between_bind_and_connect) {
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(set(client, IPPROTO_TCP, TCP_KEEPIDLE, 21));
    OK(BIND(client, "127.0.0.1", 0));
    set_all(client);
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    have_all(client);
}

CASE(set_and_cleared_again) {
    struct pair pair = connected("127.0.0.1");
    for (int i = 0; i < 3; i++)
        for (int value = 0; value < 2; value++) {
            OK(set(pair.client, IPPROTO_TCP, TCP_NODELAY, value));
            SAME(option(pair.client, IPPROTO_TCP, TCP_NODELAY), value);
        }
    SAME(option(pair.server, IPPROTO_TCP, TCP_NODELAY), 0);
}

CASE(set_before_the_replacement_and_cleared_after) {
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(set(client, IPPROTO_TCP, TCP_NODELAY, 1));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    SAME(option(client, IPPROTO_TCP, TCP_NODELAY), 1);
    OK(set(client, IPPROTO_TCP, TCP_NODELAY, 0));
    SAME(option(client, IPPROTO_TCP, TCP_NODELAY), 0);
}

CASE(defaults) {
    struct pair pair = connected("127.0.0.1");
    tell_all(pair.client);
    tell_all(pair.server);
    tell_all(pair.listener);
}

CASE(a_dup_and_a_forked_child_see_the_same) {
    struct pair pair = connected("127.0.0.1");
    OK(set(pair.client, IPPROTO_TCP, TCP_NODELAY, 1));
    int copy = OK(dup(pair.client));
    close(pair.client);
    SAME(option(copy, IPPROTO_TCP, TCP_NODELAY), 1);
    end_well(IN_CHILD(SAME(option(copy, IPPROTO_TCP, TCP_NODELAY), 1)));
}

/* An option that another descriptor of the socket, or another process, was used for. */
CASE(set_through_a_dup_before_connect) {
    int listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 4; i++) {
        int client = tcp("127.0.0.1"), copy = OK(dup(client));
        set_all(copy);
        OK(CONNECT(client, "127.0.0.1", port_of(listener)));
        have_all(client);
        close(client);
        close(copy);
        close(OK(accept(listener, 0, 0)));
    }
}

CASE(another_socket_of_the_same_number_has_none_of_it) {
    struct pair pair = connected("127.0.0.1");
    OK(set(pair.client, IPPROTO_TCP, TCP_NODELAY, 1));
    OK(set(pair.client, IPPROTO_TCP, TCP_KEEPIDLE, 99));
    close(pair.client);
    int next = dial("127.0.0.1", port_of(pair.listener));
    SAME(next, pair.client);
    SAME(option(next, IPPROTO_TCP, TCP_NODELAY), 0);
    CHECK(option(next, IPPROTO_TCP, TCP_KEEPIDLE) != 99);
}

static void what_it_is(int fd, int family) {
    SAME(option(fd, SOL_SOCKET, SO_DOMAIN), family);
    SAME(option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_TCP);
    SAME(option(fd, SOL_SOCKET, SO_TYPE), SOCK_STREAM);
    SAME(option(fd, SOL_SOCKET, SO_ERROR), 0);
}

CASE(domain_protocol_and_type) {
    struct pair four = connected("127.0.0.1"), six = connected("::1");
    int client = tcp("::1"), any = listening("::", 0);
    OK(CONNECT(client, "::ffff:127.0.0.1", port_of(four.listener)));
    what_it_is(client, AF_INET6);
    what_it_is(OK(accept(four.listener, 0, 0)), AF_INET);
    dial("127.0.0.1", port_of(any));
    what_it_is(OK(accept(any, 0, 0)), AF_INET6);
    what_it_is(tcp("127.0.0.1"), AF_INET);
    what_it_is(four.listener, AF_INET);
    what_it_is(four.client, AF_INET);
    what_it_is(four.server, AF_INET);
    what_it_is(six.listener, AF_INET6);
    what_it_is(six.client, AF_INET6);
    what_it_is(six.server, AF_INET6);
}

CASE(info) {
    struct pair pair = connected("127.0.0.1");
    struct tcp_info info;
    const struct {
        int fd, state;
    } all[] = {{pair.client, TCP_ESTABLISHED}, {pair.server, TCP_ESTABLISHED}, {pair.listener, TCP_LISTEN}};
    for (int i = 0; i < 3; i++) {
        socklen_t size = sizeof info;
        memset(&info, 0x55, sizeof info);
        OK(getsockopt(all[i].fd, IPPROTO_TCP, TCP_INFO, &info, &size));
        SAME(size, sizeof info);
        SAME(info.tcpi_state, all[i].state);
        SAME(info.tcpi_retransmits, 0);
        size = 1; /* the state alone */
        info.tcpi_state = 0x55;
        OK(getsockopt(all[i].fd, IPPROTO_TCP, TCP_INFO, &info, &size));
        SAME(size, 1);
        SAME(info.tcpi_state, all[i].state);
    }
    int bound = tcp("127.0.0.1");
    OK(BIND(bound, "127.0.0.1", 0));
    socklen_t size = sizeof info;
    OK(getsockopt(bound, IPPROTO_TCP, TCP_INFO, &info, &size));
    SAME(info.tcpi_state, TCP_CLOSE);
}

CASE(the_state_after_the_other_end_has_closed) {
    struct pair pair = connected("127.0.0.1");
    struct tcp_info info;
    socklen_t size = sizeof info;
    close(pair.server);
    char byte;
    SAME(read(pair.client, &byte, 1), 0);
    OK(getsockopt(pair.client, IPPROTO_TCP, TCP_INFO, &info, &size));
    SAME(info.tcpi_state, TCP_CLOSE_WAIT);
}

CASE(maxseg) {
    struct pair pair = connected("127.0.0.1");
    CHECK(option(pair.client, IPPROTO_TCP, TCP_MAXSEG) >= 536);
    CHECK(option(pair.server, IPPROTO_TCP, TCP_MAXSEG) >= 536);
    CHECK(option(pair.listener, IPPROTO_TCP, TCP_MAXSEG) >= 536);
    OK(set(pair.client, IPPROTO_TCP, TCP_MAXSEG, 1000));
    FAILS(set(pair.client, IPPROTO_TCP, TCP_MAXSEG, 10), EINVAL);
}

CASE(congestion_control_is_a_text) {
    struct pair pair = connected("127.0.0.1");
    char name[16] = "";
    socklen_t size = sizeof name;
    OK(getsockopt(pair.client, IPPROTO_TCP, TCP_CONGESTION, name, &size));
    CHECK(strlen(name) > 2);
    OK(setsockopt(pair.client, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    FAILS(setsockopt(pair.client, IPPROTO_TCP, TCP_CONGESTION, "nothing", 7), ENOENT);
    size = sizeof name;
    OK(getsockopt(pair.client, IPPROTO_TCP, TCP_CONGESTION, name, &size));
    TEXT(name, "reno");
}

static void bad_values(int fd) {
    int on = 1;
    socklen_t size = sizeof on;
    FAILS(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, 2), EINVAL);
    FAILS(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, 0, sizeof on), EFAULT);
    FAILS(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, -1), EINVAL);
    FAILS(set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 0), EINVAL);
    FAILS(set(fd, IPPROTO_TCP, TCP_KEEPIDLE, 1000000), EINVAL);
    FAILS(set(fd, IPPROTO_TCP, TCP_KEEPCNT, 128), EINVAL);
    FAILS(set(fd, IPPROTO_TCP, TCP_SYNCNT, 0), EINVAL);
    FAILS(set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, -1), EINVAL);
    FAILS(set(fd, IPPROTO_TCP, 9999, 1), ENOPROTOOPT);
    FAILS(getsockopt(fd, IPPROTO_TCP, 9999, &on, &size), ENOPROTOOPT);
    FAILS(set(fd, SOL_SOCKET, 9999, 1), ENOPROTOOPT);
    FAILS(getsockopt(fd, SOL_SOCKET, 9999, &on, &size), ENOPROTOOPT);
    FAILS(set(fd, IPPROTO_IP, IP_TTL, 256), EINVAL);
    FAILS(set(fd, IPPROTO_UDP, 1, 1), ENOPROTOOPT);
    TELL(getsockopt(fd, IPPROTO_UDP, 1, &on, &size));
    FAILS(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, 0), EFAULT);
    FAILS(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, 0, &size), EFAULT);
    FAILS(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, 0, &size), EFAULT);
    FAILS(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &on, 0), EFAULT);
    FAILS(set(fd, SOL_SOCKET, SO_DOMAIN, 1), ENOPROTOOPT);
    FAILS(set(fd, SOL_SOCKET, SO_PROTOCOL, 1), ENOPROTOOPT);
    FAILS(set(fd, SOL_SOCKET, SO_PEERCRED, 1), ENOPROTOOPT);
    size = (socklen_t)-1;
    FAILS(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &size), EINVAL);
    SAME(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
}

CASE(bad_values_of_a_client) {
    bad_values(connected("127.0.0.1").client);
}

CASE(bad_values_of_an_accepted_socket) {
    bad_values(connected("127.0.0.1").server);
}

CASE(bad_values_of_a_listener) {
    bad_values(listening("127.0.0.1", 0));
}

CASE(bad_values_of_a_fresh_socket) {
    bad_values(tcp("127.0.0.1"));
}

CASE(short_buffers) {
    struct pair pair = connected("127.0.0.1");
    unsigned char bytes[8];
    socklen_t size;
    OK(set(pair.client, IPPROTO_TCP, TCP_NODELAY, 1));
    for (int i = 0; i < 3; i++) {
        int name = i == 0 ? TCP_NODELAY : i == 1 ? SO_DOMAIN : SO_REUSEPORT, level = i ? SOL_SOCKET : IPPROTO_TCP;
        memset(bytes, 0x55, sizeof bytes);
        size = 2;
        OK(getsockopt(pair.client, level, name, bytes, &size));
        SAME(size, 2);
        SAME(bytes[2], 0x55);
        size = 0;
        OK(getsockopt(pair.client, level, name, bytes, &size));
        SAME(size, 0);
        size = sizeof bytes;
        OK(getsockopt(pair.client, level, name, bytes, &size));
        SAME(size, 4);
        SAME(bytes[4], 0x55);
    }
}

CASE(peercred_knows_nobody) {
    struct pair pair = connected("127.0.0.1");
    int all[] = {pair.client, pair.server, pair.listener, tcp("127.0.0.1")};
    for (int i = 0; i < 4; i++) {
        struct ucred who = {1, 1, 1};
        socklen_t size = sizeof who;
        OK(getsockopt(all[i], SOL_SOCKET, SO_PEERCRED, &who, &size));
        SAME(size, sizeof who);
        SAME(who.pid, 0);
        SAME(who.uid, (uid_t)-1);
        SAME(who.gid, (gid_t)-1);
    }
}

CASE(buffer_sizes) {
    struct pair pair = connected("127.0.0.1");
    OK(set(pair.client, SOL_SOCKET, SO_SNDBUF, 100000));
    SAME(option(pair.client, SOL_SOCKET, SO_SNDBUF), 200000); /* the kernel doubles it, socket(7) */
    OK(set(pair.client, SOL_SOCKET, SO_RCVBUF, 100000));
    SAME(option(pair.client, SOL_SOCKET, SO_RCVBUF), 200000);
}

CASE(timeouts_and_linger) {
    struct pair pair = connected("127.0.0.1");
    struct timeval set_to = {0, 20000}, got;
    struct linger linger = {1, 7}, lingers = {0, 0};
    socklen_t size = sizeof got;
    char byte;
    OK(setsockopt(pair.client, SOL_SOCKET, SO_RCVTIMEO, &set_to, sizeof set_to));
    OK(getsockopt(pair.client, SOL_SOCKET, SO_RCVTIMEO, &got, &size));
    SAME(got.tv_usec, 20000);
    FAILS(read(pair.client, &byte, 1), EAGAIN);
    OK(setsockopt(pair.client, SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
    size = sizeof lingers;
    OK(getsockopt(pair.client, SOL_SOCKET, SO_LINGER, &lingers, &size));
    SAME(lingers.l_onoff, 1);
    SAME(lingers.l_linger, 7);
}

CASE(version_6_options) {
    struct pair pair = connected("::1");
    OK(set(pair.client, IPPROTO_IPV6, IPV6_TCLASS, 0x20));
    SAME(option(pair.client, IPPROTO_IPV6, IPV6_TCLASS), 0x20);
    OK(set(pair.client, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9));
    SAME(option(pair.client, IPPROTO_IPV6, IPV6_UNICAST_HOPS), 9);
    say("at ::1: %d", option(pair.listener, IPPROTO_IPV6, IPV6_V6ONLY));
    say("at ::: %d", option(listening("::", 0), IPPROTO_IPV6, IPV6_V6ONLY));
    say("client: %d", option(pair.client, IPPROTO_IPV6, IPV6_V6ONLY));
    say("server: %d", option(pair.server, IPPROTO_IPV6, IPV6_V6ONLY));
    struct pair four = connected("127.0.0.1");
    int value;
    socklen_t size = sizeof value;
    TELL(getsockopt(four.client, IPPROTO_IPV6, IPV6_V6ONLY, &value, &size));
    TELL(set(four.client, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    TELL(set(four.client, IPPROTO_IPV6, IPV6_TCLASS, 1));
    TELL(set(pair.client, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    TELL(set(pair.server, IPPROTO_IPV6, IPV6_V6ONLY, 1));
}

/* As many sockets as it takes to overwrite old records. */
CASE(many_sockets_with_options) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    for (int i = 0; i < 3000; i++) {
        int client = tcp("127.0.0.1");
        OK(set(client, IPPROTO_TCP, TCP_NODELAY, 1));
        OK(CONNECT(client, "127.0.0.1", port));
        int server = OK(accept(listener, 0, 0));
        SAME(option(client, IPPROTO_TCP, TCP_NODELAY), 1);
        SAME(option(server, IPPROTO_TCP, TCP_NODELAY), 0);
        close(client);
        close(server);
    }
}

CASE(a_long_lived_socket_keeps_its_options) {
    struct pair old = connected("127.0.0.1");
    OK(set(old.client, IPPROTO_TCP, TCP_NODELAY, 1));
    OK(set(old.server, IPPROTO_TCP, TCP_KEEPIDLE, 123));
    int port = port_of(old.listener);
    for (int i = 0; i < 1500; i++) {
        int client = dial("127.0.0.1", port), server = OK(accept(old.listener, 0, 0));
        OK(set(client, IPPROTO_TCP, TCP_NODELAY, 1));
        OK(set(server, IPPROTO_TCP, TCP_NODELAY, 1));
        close(client);
        close(server);
    }
    SAME(option(old.client, IPPROTO_TCP, TCP_NODELAY), 1);
    SAME(option(old.server, IPPROTO_TCP, TCP_KEEPIDLE), 123);
}
