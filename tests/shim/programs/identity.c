/* getsockname and getpeername: both ends of a connection agree on who talks to whom. */
#include "test.h"

/* One end's name is the other's peer, and accept says so, too. */
static void ends_agree(const char *listen_at, const char *dialled, const char *server_shows, const char *client_shows,
                       const char *source_shown_to_server, const char *source) {
    int listener = listening(listen_at, 0), port = port_of(listener);
    meet(dialled, port, listener);
    int client = dial(dialled, port);
    struct address called = {.size = sizeof called.storage};
    int server = OK(accept(listener, &called.any, &called.size));
    struct address client_name = name_of(client), client_peer = peer_of(client), server_name = name_of(server),
                   server_peer = peer_of(server);
    TEXT(ip_of(&client_name), source);
    TEXT(ip_of(&client_peer), client_shows);
    TEXT(ip_of(&server_name), server_shows);
    TEXT(ip_of(&server_peer), source_shown_to_server);
    TEXT(show(&called), show(&server_peer));
    SAME(port_in(&client_peer), port);
    SAME(port_in(&server_name), port);
    SAME(port_in(&server_peer), port_in(&client_name));
    CHECK(port_in(&client_name) != 0);
    CHECK(port_in(&client_name) != port);
    SAME(client_name.any.sa_family, strchr(dialled, ':') ? AF_INET6 : AF_INET);
    SAME(server_name.any.sa_family, strchr(listen_at, ':') ? AF_INET6 : AF_INET);
    SAME(server_name.size, server_name.any.sa_family == AF_INET6 ? sizeof server_name.in6 : sizeof server_name.in);
    talk(client, server);
}

CASE(loopback) {
    ends_agree("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1");
}

CASE(any_by_loopback) {
    ends_agree("0.0.0.0", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1");
}

CASE(another_loopback_address) {
    int listener = listening("0.0.0.0", 0), client = dial("127.0.0.2", port_of(listener));
    struct address peer = peer_of(client);
    TEXT(ip_of(&peer), "127.0.0.2");
    int server = OK(accept(listener, 0, 0));
    struct address name = name_of(server), from = peer_of(server), own = name_of(client);
    TEXT(ip_of(&name), "127.0.0.2");
    TEXT(show(&from), show(&own));
}

CASE(the_virtual_ip) {
    ends_agree(VIP, VIP, VIP, VIP, VIP, VIP);
}

CASE(any_by_the_virtual_ip) {
    ends_agree("0.0.0.0", VIP, VIP, VIP, VIP, VIP);
}

CASE(v6_loopback) {
    ends_agree("::1", "::1", "::1", "::1", "::1", "::1");
}

CASE(v6_virtual_ip) {
    ends_agree(VIP6, VIP6, VIP6, VIP6, VIP6, VIP6);
}

CASE(v6_any_by_v6) {
    ends_agree("::", "::1", "::1", "::1", "::1", "::1");
    ends_agree("::", VIP6, VIP6, VIP6, VIP6, VIP6);
}

CASE(v6_any_by_v4) {
    ends_agree("::", "127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1");
    ends_agree("::", VIP, "::ffff:" VIP, VIP, "::ffff:" VIP, VIP);
}

CASE(v4_mapped_client) {
    ends_agree("127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1");
    ends_agree(VIP, "::ffff:" VIP, VIP, "::ffff:" VIP, VIP, "::ffff:" VIP);
}

CASE(v4_mapped_listener) {
    ends_agree("::ffff:127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1");
    ends_agree("::ffff:" VIP, "::ffff:" VIP, "::ffff:" VIP, "::ffff:" VIP, "::ffff:" VIP, "::ffff:" VIP);
}

CASE(a_listener_shows_what_it_bound) {
    static const char *const all[] = {"0.0.0.0", "127.0.0.1", VIP, "::", "::1", VIP6, "::ffff:127.0.0.1"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int fd = tcp(all[i]);
        OK(BIND(fd, all[i], 5000 + (int)i));
        struct address bound = name_of(fd), wanted = at(all[i], 5000 + (int)i);
        TEXT(show(&bound), show(&wanted));
        OK(listen(fd, 5));
        struct address after = name_of(fd);
        TEXT(show(&after), show(&wanted));
        SAME(after.size, wanted.size);
    }
}

CASE(a_fresh_socket_has_no_name) {
    struct address v4 = name_of(tcp("127.0.0.1")), v6 = name_of(tcp("::1")), peer = {.size = sizeof peer.storage};
    TEXT(show(&v4), "0.0.0.0:0");
    TEXT(show(&v6), "[::]:0");
    FAILS(getpeername(tcp("127.0.0.1"), &peer.any, &peer.size), ENOTCONN);
}

CASE(a_listener_has_no_peer) {
    struct address peer = {.size = sizeof peer.storage};
    int bound = tcp("127.0.0.1");
    OK(BIND(bound, "127.0.0.1", 0));
    FAILS(getpeername(bound, &peer.any, &peer.size), ENOTCONN);
    OK(listen(bound, 5));
    FAILS(getpeername(bound, &peer.any, &peer.size), ENOTCONN);
}

/* getsockname and getpeername of each kind of our sockets, with every kind of buffer. */
static void buffers(int (*call)(int, struct sockaddr *, socklen_t *), int fd) {
    struct address name;
    memset(&name, 0x55, sizeof name);
    name.size = 4;
    OK(call(fd, &name.any, &name.size));
    SAME(name.size, sizeof name.in);
    CHECK(name.in.sin_port != 0);
    SAME(((unsigned char *)&name.in)[4], 0x55);
    name.size = 0;
    OK(call(fd, &name.any, &name.size));
    SAME(name.size, sizeof name.in);
    name.size = sizeof name.storage;
    OK(call(fd, &name.any, &name.size));
    SAME(name.size, sizeof name.in);
    for (size_t i = 0; i < sizeof name.in.sin_zero; i++) SAME(name.in.sin_zero[i], 0);
    SAME(((unsigned char *)&name.in)[sizeof name.in], 0x55);
    FAILS(call(fd, 0, &name.size), EFAULT);
    FAILS(call(fd, &name.any, 0), EFAULT);
    name.size = (socklen_t)-1;
    FAILS(call(fd, &name.any, &name.size), EINVAL);
}

CASE(buffers_of_a_listener) {
    buffers(getsockname, listening("127.0.0.1", 0));
}

CASE(buffers_of_a_client) {
    struct pair pair = connected("127.0.0.1");
    buffers(getsockname, pair.client);
    buffers(getpeername, pair.client);
}

CASE(buffers_of_an_accepted_socket) {
    struct pair pair = connected("127.0.0.1");
    buffers(getsockname, pair.server);
    buffers(getpeername, pair.server);
}

/* The peer's name stays while there is something to read; afterwards TCP and a Unix socket say ENOTCONN or go on. */
CASE(after_the_other_end_has_closed) {
    struct pair pair = connected("127.0.0.1");
    struct address before = name_of(pair.server), peer = peer_of(pair.server);
    close(pair.client);
    char byte;
    SAME(read(pair.server, &byte, 1), 0);
    struct address after = name_of(pair.server), peer_after = peer_of(pair.server);
    TEXT(show(&after), show(&before));
    TEXT(show(&peer_after), show(&peer));
}

CASE(after_the_listener_has_closed) {
    struct pair pair = connected("127.0.0.1");
    struct address before = name_of(pair.server), peer = peer_of(pair.client);
    close(pair.listener);
    struct address after = name_of(pair.server), peer_after = peer_of(pair.client);
    TEXT(show(&after), show(&before));
    TEXT(show(&peer_after), show(&peer));
}

CASE(each_connection_has_its_own_port) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), ports[50];
    for (int i = 0; i < 50; i++) {
        ports[i] = port_of(dial("127.0.0.1", port));
        for (int k = 0; k < i; k++) CHECK(ports[k] != ports[i]);
    }
}
