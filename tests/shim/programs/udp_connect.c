/* connect(2) of a UDP socket: the peer that it sets, changes and takes back; who refuses. */
#include "udp.h"

static const char *const IPS[] = {"127.0.0.1", VIP, "::1", VIP6};

CASE(it_sets_both_names) {
    for (int i = 0; i < 4; i++) {
        int server = bound(IPS[i], 0);
        int client = toward(IPS[i], port_of(server));
        struct address own = name_of(client), peer = peer_of(client), to = name_of(server);
        TEXT(ip_of(&own), IPS[i]);
        CHECK(port_in(&own) != 0);
        TEXT(show(&peer), show(&to));
        put(client, "there", 0);
        struct address from = take(server, "there");
        TEXT(show(&from), show(&own));
        put(server, "back", &from);
        struct address back = take(client, "back");
        TEXT(show(&back), show(&to));
    }
}

CASE(a_connected_socket_hears_its_peer_only) {
    int server = bound("127.0.0.1", 0), stranger = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server));
    struct address to = name_of(client);
    put(stranger, "psst", &to);
    put(server, "hello", &to);
    take(client, "hello");
    nothing_in(client);
}

CASE(what_came_before_connect_stays) {
    int server = bound("127.0.0.1", 0), stranger = bound("127.0.0.1", 0), client = bound("127.0.0.1", 0);
    struct address to = name_of(client), from = name_of(server);
    put(stranger, "early", &to);
    OK(connect(client, &from.any, from.size));
    struct address who = take(client, "early");
    SAME(port_in(&who), port_of(stranger));
}

CASE(again_to_another) {
    int one = bound("127.0.0.1", 0), other = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(one));
    int port = port_of(client);
    put(client, "one", 0);
    take(one, "one");
    struct address to = name_of(other), back = name_of(client);
    OK(connect(client, &to.any, to.size));
    SAME(port_of(client), port);
    struct address peer = peer_of(client);
    TEXT(show(&peer), show(&to));
    put(client, "other", 0);
    struct address from = take(other, "other");
    TEXT(show(&from), show(&back));
    nothing_in(one);
    put(one, "late", &back);
    put(other, "in time", &back);
    take(client, "in time");
    nothing_in(client);
}

CASE(from_one_address_to_another) {
    int near = bound("127.0.0.1", 0), far = bound(VIP, 0), client = toward("127.0.0.1", port_of(near));
    struct address own = name_of(client), to = name_of(far);
    TELL(connect(client, &to.any, to.size));
    own = name_of(client);
    say("own address: %s", ip_of(&own));
    put(client, "hello", 0);
    struct address from = take(far, "hello");
    TEXT(show(&from), show(&own));
    put(far, "back", &from);
    take(client, "back");
}

static void disconnect(int fd) {
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    OK(connect(fd, &none, sizeof none));
}

CASE(taken_back) {
    for (int i = 0; i < 4; i++) {
        int one = bound(IPS[i], 0), other = bound(IPS[i], 0), client = toward(IPS[i], port_of(one));
        disconnect(client);
        struct address peer = {.size = sizeof peer.storage}, own = name_of(client);
        FAILS(getpeername(client, &peer.any, &peer.size), ENOTCONN);
        say("own name: %s, %s", ip_of(&own), port_in(&own) ? "a port" : "no port");
        FAILS(send(client, "x", 1, 0), EDESTADDRREQ);
        struct address to = name_of(other);
        chat(client, other, &to);
        OK(connect(client, &to.any, to.size));
        put(client, "again", 0);
        take(other, "again");
    }
}

CASE(taken_back_from_a_bound_one) {
    int server = bound("127.0.0.1", 0), client = bound("0.0.0.0", 5201);
    struct address to = name_of(server), from = at("127.0.0.1", 5201);
    OK(connect(client, &to.any, to.size));
    struct address own = name_of(client);
    TEXT(show(&own), "127.0.0.1:5201");
    disconnect(client);
    own = name_of(client);
    TEXT(show(&own), "0.0.0.0:5201");
    chat(server, client, &from);
    disconnect(client); /* again does no harm */
    chat(server, client, &from);
}

CASE(never_connected_taken_back) {
    int fd = udp("127.0.0.1");
    disconnect(fd);
    struct address own = name_of(fd);
    TEXT(show(&own), "0.0.0.0:0");
}

CASE(the_wrong_family) {
    int four = udp("127.0.0.1"), six = udp("::1"), only = udp("::1"), server = bound("::", 5202);
    struct address v4 = at("127.0.0.1", 5202), v6 = at("::1", 5202), un = {.size = sizeof un.un};
    un.un.sun_family = AF_UNIX;
    FAILS(connect(four, &v6.any, v6.size), EAFNOSUPPORT);
    FAILS(connect(four, &un.any, un.size), EAFNOSUPPORT);
    FAILS(connect(six, &un.any, un.size), EAFNOSUPPORT);
    FAILS(connect(four, &v4.any, 8), EINVAL);
    FAILS(connect(six, &v6.any, 20), EINVAL);
    FAILS(connect(four, &v4.any, 1), EINVAL);
    FAILS(connect(four, 0, v4.size), EFAULT);
    FAILS(connect(-1, &v4.any, v4.size), EBADF);
    TELL(connect(six, &v4.any, v4.size)); /* the kernel takes it for the mapped address */
    OK(set(only, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    TELL(connect(only, &v4.any, v4.size));
    OK(connect(four, &v4.any, v4.size)); /* none of them left a trace */
    put(four, "fine", 0);
    take(server, "fine");
}

CASE(port_0) {
    int fd = udp("127.0.0.1");
    TELL(CONNECT(fd, "127.0.0.1", 0));
    struct address to = at("127.0.0.1", 0), peer = {.size = sizeof peer.storage};
    TELL(getpeername(fd, &peer.any, &peer.size));
    FAILS(sendto(udp("127.0.0.1"), "x", 1, 0, &to.any, to.size), EINVAL);
}

CASE(the_any_address_is_loopback) {
    int server = bound("0.0.0.0", 0), client = toward("0.0.0.0", port_of(server)), six = toward("::", port_of(server));
    struct address peer = peer_of(client), peer6 = peer_of(six), to = at("0.0.0.0", port_of(server));
    TEXT(ip_of(&peer), "127.0.0.1");
    say("%s", ip_of(&peer6));
    put(client, "hello", 0);
    take(server, "hello");
    put(udp("127.0.0.1"), "hi", &to);
    struct address from = take(server, "hi");
    TEXT(ip_of(&from), "127.0.0.1");
}

CASE(to_itself) {
    int fd = bound("127.0.0.1", 0);
    struct address own = name_of(fd);
    OK(connect(fd, &own.any, own.size));
    put(fd, "me", 0);
    struct address from = take(fd, "me");
    TEXT(show(&from), show(&own));
}

CASE(each_to_the_other) {
    for (int i = 0; i < 4; i++) {
        int one = bound(IPS[i], 0), other = bound(IPS[i], 0);
        struct address at_one = name_of(one), at_other = name_of(other);
        OK(connect(one, &at_other.any, at_other.size));
        OK(connect(other, &at_one.any, at_one.size));
        for (int k = 0; k < 10; k++) talk(one, other);
    }
}

/* A server may connect a socket of its own to each client (OpenVPN, DTLS). */
CASE(a_socket_for_each_client) {
    int server = udp("127.0.0.1");
    OK(set(server, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(BIND(server, "127.0.0.1", 5203));
    for (int i = 0; i < 3; i++) {
        int client = toward("127.0.0.1", 5203), own = udp("127.0.0.1");
        put(client, "hello", 0);
        struct address from = take(server, "hello");
        OK(set(own, SOL_SOCKET, SO_REUSEADDR, 1));
        OK(BIND(own, "127.0.0.1", 5203));
        OK(connect(own, &from.any, from.size));
        for (int k = 0; k < 4; k++) talk(client, own);
        nothing_in(server);
    }
}

CASE(nobody_there_tells_the_second_send) {
    const char *ips[] = {"127.0.0.1", VIP, "::1"};
    for (int i = 0; i < 3; i++) {
        int client = toward(ips[i], port_of_nobody(ips[i]));
        put(client, "anyone?", 0); /* the first can't know */
        CHECK(events_of(client, POLLIN, 5000) & POLLERR);
        FAILS(send(client, "hello?", 6, 0), ECONNREFUSED);
        SAME(option(client, SOL_SOCKET, SO_ERROR), 0);
    }
}

CASE(nobody_there_tells_a_blocked_receiver) {
    const char *ips[] = {"127.0.0.1", VIP, "::1", VIP6};
    for (int i = 0; i < 4; i++) {
        char byte;
        int client = toward(ips[i], port_of_nobody(ips[i]));
        put(client, "anyone?", 0);
        FAILS(recv(client, &byte, 1, 0), ECONNREFUSED);
        FAILS(recv(client, &byte, 1, MSG_DONTWAIT), EAGAIN);
        put(client, "anyone?", 0);
        SAME(error_in(client), ECONNREFUSED);
        SAME(option(client, SOL_SOCKET, SO_ERROR), 0);
    }
}

CASE(nobody_there_and_then_somebody) {
    int port = port_of_nobody("127.0.0.1"), client = toward("127.0.0.1", port);
    put(client, "anyone?", 0);
    SAME(error_in(client), ECONNREFUSED);
    int server = bound("127.0.0.1", port);
    put(client, "hello", 0);
    struct address from = take(server, "hello");
    put(server, "hi", &from);
    take(client, "hi");
    close(server);
    put(client, "still there?", 0);
    SAME(error_in(client), ECONNREFUSED);
    server = bound("0.0.0.0", port);
    put(client, "hello", 0);
    take(server, "hello");
}

CASE(nobody_there_is_not_told_to_the_unconnected) {
    int fd = udp("127.0.0.1"), server = bound("127.0.0.1", 0);
    struct address nobody = at("127.0.0.1", port_of_nobody("127.0.0.1")), to = name_of(server);
    for (int i = 0; i < 5; i++) put(fd, "anyone?", &nobody);
    chat(fd, server, &to);
    SAME(option(fd, SOL_SOCKET, SO_ERROR), 0);
}

CASE(from_an_address_that_was_bound) {
    int server = bound("0.0.0.0", 0), client = bound(VIP, 0);
    struct address to = at(VIP, port_of(server)), own = name_of(client);
    OK(connect(client, &to.any, to.size));
    put(client, "hello", 0);
    struct address from = take(server, "hello");
    TEXT(show(&from), show(&own));
}

/* A dual-stack socket speaks to v4 under the mapped address. */
CASE(mapped) {
    int server = bound("0.0.0.0", 5205), six = bound("::", 0);
    struct address mapped = at("::ffff:127.0.0.1", 5205), own;
    chat(six, server, &mapped);
    OK(connect(six, &mapped.any, mapped.size));
    own = name_of(six);
    TEXT(ip_of(&own), "::ffff:127.0.0.1");
    struct address peer = peer_of(six);
    TEXT(show(&peer), "[::ffff:127.0.0.1]:5205");
    put(six, "hello", 0);
    struct address from = take(server, "hello");
    TEXT(ip_of(&from), "127.0.0.1");
    SAME(port_in(&from), port_in(&own));
    put(server, "hi", &from);
    from = take(six, "hi");
    TEXT(show(&from), "[::ffff:127.0.0.1]:5205");
    struct address own_ip = at("::ffff:" VIP, 5205);
    int other = udp("::1");
    chat(other, server, &own_ip);
}

CASE(a_mapped_server) {
    int server = bound("::ffff:" VIP, 5206), client = udp(VIP);
    struct address to = at(VIP, 5206), name = name_of(server);
    TEXT(show(&name), "[::ffff:" VIP "]:5206");
    put(client, "hello", &to);
    struct address from = take(server, "hello");
    TEXT(ip_of(&from), "::ffff:" VIP);
    SAME(port_in(&from), port_of(client));
    put(server, "hi", &from);
    from = take(client, "hi");
    TEXT(show(&from), VIP ":5206");
}

CASE(a_hundred_times) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    for (int i = 0; i < 100; i++) {
        OK(connect(client, &to.any, to.size));
        put(client, "hello", 0);
        take(server, "hello");
        if (i % 2) disconnect(client);
    }
    for (int i = 0; i < 300; i++) {
        int each = toward("127.0.0.1", port_in(&to));
        put(each, "hello", 0);
        take(server, "hello");
        close(each);
    }
}
