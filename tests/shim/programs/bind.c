/* bind(2) and listen(2). */
#include "test.h"

CASE(port_0) {
    int one = listening("127.0.0.1", 0), other = listening("127.0.0.1", 0);
    CHECK(port_of(one) >= 1024);
    CHECK(port_of(one) != port_of(other));
    close(dial("127.0.0.1", port_of(one)));
    OK(accept(one, 0, 0));
}

CASE(port_0_is_known_before_listen) {
    int fd = tcp("127.0.0.1");
    OK(BIND(fd, "127.0.0.1", 0));
    int port = port_of(fd);
    CHECK(port >= 1024);
    OK(listen(fd, 5));
    SAME(port_of(fd), port);
}

CASE(a_privileged_port) {
    int listener = listening("127.0.0.1", 80);
    meet("127.0.0.1", 80, listener);
}

CASE(an_address_of_nobody) {
    FAILS(BIND(tcp("10.78.0.1"), "10.78.0.1", 5001), EADDRNOTAVAIL);
    FAILS(BIND(tcp("fd00:dead::1"), "fd00:dead::1", 5001), EADDRNOTAVAIL);
    FAILS(BIND(tcp("::1"), "::ffff:10.78.0.1", 5001), EADDRNOTAVAIL);
}

CASE(after_a_failure_a_good_one) {
    int fd = tcp("127.0.0.1");
    FAILS(BIND(fd, "10.78.0.1", 5002), EADDRNOTAVAIL);
    OK(BIND(fd, "127.0.0.1", 5002));
    SAME(port_of(fd), 5002);
}

CASE(twice_on_one_socket) {
    int fd = tcp("127.0.0.1");
    OK(BIND(fd, "127.0.0.1", 0));
    FAILS(BIND(fd, "127.0.0.1", 0), EINVAL);
    FAILS(BIND(fd, "127.0.0.1", 5003), EINVAL);
    OK(listen(fd, 5));
    FAILS(BIND(fd, "127.0.0.1", 5003), EINVAL);
}

CASE(of_a_connected_socket) {
    struct pair pair = connected("127.0.0.1");
    FAILS(BIND(pair.client, "127.0.0.1", 5004), EINVAL);
    FAILS(BIND(pair.server, "127.0.0.1", 5004), EINVAL);
    talk(pair.client, pair.server);
}

CASE(a_port_that_is_taken) {
    listening("127.0.0.1", 5005);
    FAILS(BIND(tcp("127.0.0.1"), "127.0.0.1", 5005), EADDRINUSE);
    FAILS(BIND(tcp("0.0.0.0"), "0.0.0.0", 5005), EADDRINUSE);
    FAILS(BIND(tcp("::"), "::", 5005), EADDRINUSE);
    OK(BIND(tcp(VIP), VIP, 5005));
    OK(BIND(tcp("::1"), "::1", 5005));
}

CASE(a_port_that_is_taken_at_any) {
    listening("0.0.0.0", 5006);
    FAILS(BIND(tcp("127.0.0.1"), "127.0.0.1", 5006), EADDRINUSE);
    FAILS(BIND(tcp(VIP), VIP, 5006), EADDRINUSE);
    FAILS(BIND(tcp("::"), "::", 5006), EADDRINUSE);
    OK(BIND(tcp("::1"), "::1", 5006));
}

CASE(a_port_that_is_taken_at_any_of_both_versions) {
    listening("::", 5007);
    FAILS(BIND(tcp("127.0.0.1"), "127.0.0.1", 5007), EADDRINUSE);
    FAILS(BIND(tcp("0.0.0.0"), "0.0.0.0", 5007), EADDRINUSE);
    FAILS(BIND(tcp("::1"), "::1", 5007), EADDRINUSE);
}

CASE(bound_only_is_taken_too) {
    OK(BIND(tcp("127.0.0.1"), "127.0.0.1", 5008));
    FAILS(BIND(tcp("127.0.0.1"), "127.0.0.1", 5008), EADDRINUSE);
}

CASE(the_version_6_only) {
    int six = tcp("::"), four = tcp("0.0.0.0");
    OK(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    OK(BIND(six, "::", 5009));
    OK(BIND(four, "0.0.0.0", 5009));
    OK(listen(six, 5));
    OK(listen(four, 5));
    SAME(option(six, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    FAILS(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 0), EINVAL);
    int by_four = dial("127.0.0.1", 5009), by_six = dial("::1", 5009);
    talk(by_four, OK(accept(four, 0, 0)));
    talk(by_six, OK(accept(six, 0, 0)));
}

CASE(the_version_6_only_refuses_v4) {
    int six = tcp("::");
    OK(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    OK(BIND(six, "::", 5010));
    OK(listen(six, 5));
    FAILS(CONNECT(tcp("127.0.0.1"), "127.0.0.1", 5010), ECONNREFUSED);
    close(dial("::1", 5010));
}

/* node and Go listen on both at one port. */
CASE(v6_any_and_v4_any_of_one_port_by_v6only) {
    int on = 1, six = tcp("::"), four = tcp("127.0.0.1");
    OK(setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on));
    OK(BIND(six, "::1", 5011));
    OK(BIND(four, "127.0.0.1", 5011));
    OK(listen(six, 511));
    OK(listen(four, 511));
    close(dial("::1", 5011));
    close(dial("127.0.0.1", 5011));
    OK(accept(six, 0, 0));
    OK(accept(four, 0, 0));
}

CASE(v6only_asks_for_what_it_says) {
    int six = tcp("::"), none = tcp("::");
    SAME(option(six, IPPROTO_IPV6, IPV6_V6ONLY), 0);
    OK(set(six, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    SAME(option(six, IPPROTO_IPV6, IPV6_V6ONLY), 1);
    FAILS(BIND(six, "::ffff:127.0.0.1", 5012), EINVAL);
    OK(BIND(none, "::", 5012));
    SAME(option(none, IPPROTO_IPV6, IPV6_V6ONLY), 0);
}

CASE(again_right_after_close) {
    for (int i = 0; i < 20; i++) {
        int listener = tcp("127.0.0.1");
        OK(set(listener, SOL_SOCKET, SO_REUSEADDR, 1));
        OK(BIND(listener, "127.0.0.1", 5013));
        OK(listen(listener, 5));
        int client = dial("127.0.0.1", 5013), server = OK(accept(listener, 0, 0));
        close(listener);
        close(server);
        close(client);
    }
}

CASE(again_right_after_close_while_a_connection_lives) {
    int first = tcp("127.0.0.1"), second = tcp("127.0.0.1");
    OK(set(first, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(set(second, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(BIND(first, "127.0.0.1", 5014));
    OK(listen(first, 5));
    int client = dial("127.0.0.1", 5014), server = OK(accept(first, 0, 0));
    close(first);
    OK(BIND(second, "127.0.0.1", 5014));
    OK(listen(second, 5));
    talk(client, server);
    meet("127.0.0.1", 5014, second);
}

CASE(closed_by_its_last_holder_only) {
    int listener = listening("127.0.0.1", 5015), copy = dup(listener);
    close(listener);
    FAILS(BIND(tcp("127.0.0.1"), "127.0.0.1", 5015), EADDRINUSE);
    close(dial("127.0.0.1", 5015));
    OK(accept(copy, 0, 0));
    close(copy);
    OK(BIND(tcp("127.0.0.1"), "127.0.0.1", 5016));
}

CASE(reuseaddr_gives_no_second_listener) {
    int first = tcp("127.0.0.1"), second = tcp("127.0.0.1");
    OK(set(first, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(set(second, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(BIND(first, "127.0.0.1", 5017));
    OK(listen(first, 5));
    FAILS(BIND(second, "127.0.0.1", 5017), EADDRINUSE);
}

CASE(reuseaddr_lets_two_bind_and_one_listen) {
    int first = tcp("127.0.0.1"), second = tcp("127.0.0.1");
    OK(set(first, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(set(second, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(BIND(first, "127.0.0.1", 5018));
    OK(BIND(second, "127.0.0.1", 5018));
    OK(listen(first, 5));
    FAILS(listen(second, 5), EADDRINUSE);
    meet("127.0.0.1", 5018, first);
}

CASE(reuseport_shares) {
    int listeners[3];
    for (int i = 0; i < 3; i++) {
        listeners[i] = tcp("127.0.0.1");
        OK(set(listeners[i], SOL_SOCKET, SO_REUSEPORT, 1));
        OK(BIND(listeners[i], "127.0.0.1", 5019));
        OK(listen(listeners[i], 64));
        SAME(option(listeners[i], SOL_SOCKET, SO_REUSEPORT), 1);
    }
    int reached[3] = {0};
    struct pollfd each[3];
    for (int i = 0; i < 3; i++) each[i] = (struct pollfd){.fd = listeners[i], .events = POLLIN};
    for (int n = 0; n < 60; n++) {
        int client = dial("127.0.0.1", 5019);
        CHECK(poll(each, 3, 5000) == 1);
        for (int i = 0; i < 3; i++)
            if (each[i].revents) {
                talk(client, OK(accept(listeners[i], 0, 0)));
                reached[i]++;
            }
        close(client);
    }
    for (int i = 0; i < 3; i++) CHECK(reached[i] > 0);
}

CASE(reuseport_needs_both) {
    int first = tcp("127.0.0.1"), second = tcp("127.0.0.1"), third = tcp("127.0.0.1");
    OK(set(first, SOL_SOCKET, SO_REUSEPORT, 1));
    OK(BIND(first, "127.0.0.1", 5020));
    FAILS(BIND(second, "127.0.0.1", 5020), EADDRINUSE);
    OK(set(second, SOL_SOCKET, SO_REUSEPORT, 1));
    OK(BIND(second, "127.0.0.1", 5020));
    FAILS(BIND(third, "127.0.0.1", 5020), EADDRINUSE);
}

CASE(a_closed_member_of_reuseport_is_not_dialled) {
    int first = tcp("127.0.0.1"), second = tcp("127.0.0.1");
    OK(set(first, SOL_SOCKET, SO_REUSEPORT, 1));
    OK(set(second, SOL_SOCKET, SO_REUSEPORT, 1));
    OK(BIND(first, "127.0.0.1", 5021));
    OK(listen(first, 64));
    OK(BIND(second, "127.0.0.1", 5021));
    OK(listen(second, 64));
    close(first);
    for (int i = 0; i < 10; i++) meet("127.0.0.1", 5021, second);
}

CASE(bad_addresses) {
    bind_to_bad_addresses(tcp, 5022);
}

CASE(listen_without_bind) {
    int four = tcp("0.0.0.0"), six = tcp("::");
    OK(listen(four, 5));
    OK(listen(six, 5));
    struct address name = name_of(four), name6 = name_of(six);
    TEXT(ip_of(&name), "0.0.0.0");
    TEXT(ip_of(&name6), "::");
    CHECK(port_of(four) >= 1024);
    CHECK(port_of(six) != port_of(four));
    meet("127.0.0.1", port_of(four), four);
    meet("127.0.0.1", port_of(six), six);
    meet("::1", port_of(six), six);
}

CASE(listen_again) {
    int listener = listening("127.0.0.1", 0);
    OK(listen(listener, 1));
    OK(listen(listener, 500));
    meet("127.0.0.1", port_of(listener), listener);
}

CASE(listen_of_what_is_connected) {
    struct pair pair = connected("127.0.0.1");
    FAILS(listen(pair.client, 5), EINVAL);
    FAILS(listen(pair.server, 5), EINVAL);
    FAILS(listen(-1, 5), EBADF);
    talk(pair.client, pair.server);
}

CASE(listen_with_odd_backlogs) {
    int zero = tcp("127.0.0.1"), negative = tcp("127.0.0.1"), huge = tcp("127.0.0.1");
    OK(listen(zero, 0));
    OK(listen(negative, -1));
    OK(listen(huge, 0x7fffffff));
    meet("127.0.0.1", port_of(zero), zero);
    meet("127.0.0.1", port_of(negative), negative);
}

CASE(a_listener_tells_that_it_is_one) {
    int fd = tcp("127.0.0.1");
    SAME(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
    OK(BIND(fd, "127.0.0.1", 0));
    SAME(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
    OK(listen(fd, 5));
    SAME(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 1);
}

CASE(two_addresses_two_services) {
    int one = listening("127.0.0.1", 5023), other = listening(VIP, 5023);
    meet("127.0.0.1", 5023, one);
    meet(VIP, 5023, other);
}

CASE(a_loopback_listener_is_not_at_the_virtual_ip) {
    listening("127.0.0.1", 5024);
    FAILS(CONNECT(tcp(VIP), VIP, 5024), ECONNREFUSED);
}
