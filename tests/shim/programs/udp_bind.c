/* bind(2) of a UDP socket, and the name that getsockname shows at each stage. */
#include "udp.h"

static void tell_name(int fd) {
    struct address name = name_of(fd);
    say("%s:%s", ip_of(&name), port_in(&name) ? "a port" : "0");
}

CASE(names_at_each_stage) {
    const char *ips[] = {"127.0.0.1", VIP, "::1", VIP6};
    for (int i = 0; i < 4; i++) {
        int server = bound(ips[i], 0), client = udp(ips[i]);
        struct address at_server = name_of(server), peer = {.size = sizeof peer.storage};
        TEXT(ip_of(&at_server), ips[i]);
        tell_name(client);
        put(client, "autobind", &at_server);
        tell_name(client);
        int port = port_of(client);
        FAILS(getpeername(client, &peer.any, &peer.size), ENOTCONN);
        struct address from = take(server, "autobind");
        SAME(port_in(&from), port);
        TEXT(ip_of(&from), ips[i]);
        OK(connect(client, &at_server.any, at_server.size));
        SAME(port_of(client), port);
        tell_name(client);
        peer = peer_of(client);
        TEXT(show(&peer), show(&at_server));
    }
}

CASE(port_0) {
    int one = bound("127.0.0.1", 0), other = bound("127.0.0.1", 0), six = bound("::1", 0);
    CHECK(port_of(one) >= 1024);
    CHECK(port_of(one) != port_of(other));
    CHECK(port_of(six) >= 1024);
    struct address to = name_of(other);
    chat(one, other, &to);
}

CASE(any_address_is_reached_by_all) {
    int server = bound("0.0.0.0", 5101);
    struct address name = name_of(server);
    TEXT(show(&name), "0.0.0.0:5101");
    const char *ips[] = {"127.0.0.1", VIP, "127.0.0.1"};
    for (int i = 0; i < 3; i++) {
        struct address to = at(ips[i], 5101);
        int client = udp("127.0.0.1");
        chat(client, server, &to);
        put(client, "again", &to);
        struct address from = take(server, "again");
        SAME(port_in(&from), port_of(client));
        TEXT(ip_of(&from), ips[i]);
    }
}

CASE(any_address_of_v6_is_reached_by_all) {
    int server = bound("::", 5102);
    const char *ips[] = {"::1", VIP6, "127.0.0.1", VIP};
    for (int i = 0; i < 4; i++) {
        struct address to = at(ips[i], 5102);
        int client = udp(ips[i]);
        chat(client, server, &to);
        put(client, "again", &to);
        struct address from = take(server, "again");
        say("%s", ip_of(&from));
        SAME(from.any.sa_family, AF_INET6);
        SAME(from.size, sizeof from.in6);
    }
}

CASE(loopback_is_reached_by_loopback_only) {
    int server = bound("127.0.0.1", 5103), client = udp("127.0.0.1");
    struct address loopback = at("127.0.0.1", 5103), own = at(VIP, 5103);
    put(client, "lost", &own);
    chat(client, server, &loopback);
    nothing_in(server);
}

CASE(own_ip_is_reached_by_it_only) {
    int server = bound(VIP, 5104), client = udp(VIP);
    struct address loopback = at("127.0.0.1", 5104), own = at(VIP, 5104);
    put(client, "lost", &loopback);
    chat(client, server, &own);
    nothing_in(server);
}

CASE(v4_loopback_is_not_v6_loopback) {
    int four = bound("127.0.0.1", 5105), six = bound("::1", 5105), client = udp("::1");
    struct address to = at("::1", 5105);
    chat(client, six, &to);
    nothing_in(four);
}

CASE(another_loopback_address) {
    int server = bound("127.0.0.2", 5106), client = udp("127.0.0.1");
    struct address to = at("127.0.0.2", 5106), name = name_of(server);
    TEXT(show(&name), "127.0.0.2:5106");
    chat(client, server, &to);
}

CASE(twice_on_one_socket) {
    int fd = bound("127.0.0.1", 0), port = port_of(fd), client = udp("127.0.0.1");
    FAILS(BIND(fd, "127.0.0.1", 0), EINVAL);
    FAILS(BIND(fd, "127.0.0.1", 5109), EINVAL);
    SAME(port_of(fd), port);
    struct address to = name_of(fd);
    chat(client, fd, &to);
}

CASE(after_an_autobind) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    put(client, "x", &to);
    FAILS(BIND(client, "127.0.0.1", 5110), EINVAL);
}

CASE(a_port_that_is_taken) {
    int first = bound("127.0.0.1", 5111);
    FAILS(BIND(udp("127.0.0.1"), "127.0.0.1", 5111), EADDRINUSE);
    FAILS(BIND(udp("0.0.0.0"), "0.0.0.0", 5111), EADDRINUSE);
    FAILS(BIND(udp("::"), "::", 5111), EADDRINUSE);
    OK(BIND(udp(VIP), VIP, 5111));
    OK(BIND(udp("::1"), "::1", 5111));
    OK(listen(listening("127.0.0.1", 5111), 5)); /* TCP's ports are others */
    (void)first;
}

CASE(a_port_that_is_taken_at_any) {
    bound("0.0.0.0", 5112);
    FAILS(BIND(udp("127.0.0.1"), "127.0.0.1", 5112), EADDRINUSE);
    FAILS(BIND(udp(VIP), VIP, 5112), EADDRINUSE);
    FAILS(BIND(udp("::"), "::", 5112), EADDRINUSE);
    OK(BIND(udp("::1"), "::1", 5112));
}

CASE(a_port_that_is_taken_at_any_of_both_versions) {
    bound("::", 5113);
    FAILS(BIND(udp("127.0.0.1"), "127.0.0.1", 5113), EADDRINUSE);
    FAILS(BIND(udp("0.0.0.0"), "0.0.0.0", 5113), EADDRINUSE);
    FAILS(BIND(udp("::1"), "::1", 5113), EADDRINUSE);
}

CASE(free_after_close) {
    for (int i = 0; i < 10; i++) {
        int server = bound("0.0.0.0", 5114), copy = dup(server), client = udp("127.0.0.1");
        close(server);
        FAILS(BIND(udp("127.0.0.1"), "127.0.0.1", 5114), EADDRINUSE);
        struct address to = at("127.0.0.1", 5114);
        chat(client, copy, &to);
        close(copy);
        close(client);
    }
}

CASE(the_version_6_only) {
    int six = udp("::"), four;
    OK(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    OK(BIND(six, "::", 5115));
    four = bound("0.0.0.0", 5115);
    SAME(option(six, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    FAILS(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 0), EINVAL);
    struct address to = at("127.0.0.1", 5115), to6 = at("::1", 5115);
    chat(udp("127.0.0.1"), four, &to);
    chat(udp("::1"), six, &to6);
    nothing_in(four);
    nothing_in(six);
}

CASE(v6only_takes_no_mapped_address) {
    int six = udp("::"), other = bound("127.0.0.1", 0);
    OK(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    TELL(BIND(six, "::ffff:127.0.0.1", 5116));
    struct address to = at("::ffff:127.0.0.1", port_of(other));
    TELL(sendto(six, "x", 1, 0, &to.any, to.size));
    TELL(connect(six, &to.any, to.size));
}

/* Two may share a port when both say so; a datagram comes to one of them. */
CASE(reuseaddr_shares) {
    int first = udp("127.0.0.1"), second = udp("127.0.0.1"), third = udp("127.0.0.1"), client = udp("127.0.0.1");
    OK(set(first, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(BIND(first, "127.0.0.1", 5117));
    FAILS(BIND(third, "127.0.0.1", 5117), EADDRINUSE);
    OK(set(second, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(BIND(second, "127.0.0.1", 5117));
    struct address to = at("127.0.0.1", 5117);
    put(client, "one of us", &to);
    struct pollfd each[2] = {{.fd = first, .events = POLLIN}, {.fd = second, .events = POLLIN}};
    SAME(poll(each, 2, 5000), 1);
    say("the %s", each[1].revents ? "last" : "first");
    take(each[1].revents ? second : first, "one of us");
    close(second);
    chat(client, first, &to);
}

/* As name servers bind: each address, and any for the rest. */
CASE(the_closer_address_wins) {
    int any = udp("0.0.0.0"), loopback = udp("127.0.0.1"), client = udp("127.0.0.1");
    OK(set(any, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(set(loopback, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(BIND(any, "0.0.0.0", 5118));
    OK(BIND(loopback, "127.0.0.1", 5118));
    struct address near = at("127.0.0.1", 5118), far = at(VIP, 5118);
    chat(client, loopback, &near);
    chat(client, any, &far);
    chat(client, loopback, &near);
    nothing_in(any);
    nothing_in(loopback);
}

CASE(reuseport_shares) {
    int servers[3], reached[3] = {0};
    struct pollfd each[3];
    for (int i = 0; i < 3; i++) {
        servers[i] = udp("127.0.0.1");
        OK(set(servers[i], SOL_SOCKET, SO_REUSEPORT, 1));
        OK(BIND(servers[i], "127.0.0.1", 5119));
        SAME(option(servers[i], SOL_SOCKET, SO_REUSEPORT), 1);
        each[i] = (struct pollfd){.fd = servers[i], .events = POLLIN};
    }
    struct address to = at("127.0.0.1", 5119);
    for (int n = 0; n < 60; n++) {
        int client = udp("127.0.0.1"), last = -1;
        for (int k = 0; k < 3; k++) { /* a client stays with its server */
            put(client, "hello", &to);
            SAME(poll(each, 3, 5000), 1);
            for (int i = 0; i < 3; i++)
                if (each[i].revents) {
                    take(servers[i], "hello");
                    if (last >= 0) SAME(i, last);
                    last = i;
                }
        }
        reached[last]++;
        close(client);
    }
    for (int i = 0; i < 3; i++) CHECK(reached[i] > 0);
    FAILS(BIND(udp("127.0.0.1"), "127.0.0.1", 5119), EADDRINUSE);
    close(servers[0]);
    close(servers[1]);
    for (int i = 0; i < 10; i++) chat(udp("127.0.0.1"), servers[2], &to);
}

CASE(a_privileged_port) {
    int server = bound("0.0.0.0", 123);
    struct address to = at(VIP, 123);
    chat(udp(VIP), server, &to);
}

CASE(bad_addresses) {
    bind_to_bad_addresses(udp, 5120);
}

/* As resolvers do, which want ports that can't be guessed. */
CASE(many_ports_at_once) {
    int fds[200], server = bound(VIP, 0);
    struct address to = name_of(server);
    for (int i = 0; i < 200; i++) fds[i] = bound("0.0.0.0", 20000 + i);
    for (int i = 0; i < 200; i++) {
        put(fds[i], "from", &to);
        struct address from = take(server, "from");
        SAME(port_in(&from), 20000 + i);
    }
}
