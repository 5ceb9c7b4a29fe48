/* Datagrams: every call that sends and receives, sizes, queues, timeouts, shutdown. */
#include <pthread.h>

#include "udp.h"

enum { LARGEST = 65507 };

/* Two sockets: the client connected to the server, or not. */
struct two {
    int client, server;
    struct address to, from;
};

static struct two two(const char *ip, int connected) {
    struct two made = {.client = bound(ip, 0), .server = bound(ip, 0)};
    made.to = name_of(made.server);
    made.from = name_of(made.client);
    if (connected) OK(connect(made.client, &made.to.any, made.to.size));
    return made;
}

CASE(every_call_of_a_connected_one) {
    struct two it = two("127.0.0.1", 1);
    char got[16] = "";
    struct iovec parts[2] = {{"wri", 3}, {"tev", 3}}, into[2] = {{got, 2}, {got + 2, 10}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    SAME(write(it.client, "write", 5), 5);
    take(it.server, "write");
    SAME(writev(it.client, parts, 2), 6);
    take(it.server, "writev");
    SAME(send(it.client, "send", 4, 0), 4);
    take(it.server, "send");
    SAME(sendto(it.client, "sendto", 6, 0, 0, 0), 6);
    take(it.server, "sendto");
    SAME(sendto(it.client, "to", 2, 0, &it.to.any, it.to.size), 2); /* never EISCONN */
    take(it.server, "to");
    SAME(sendmsg(it.client, &message, 0), 6);
    take(it.server, "writev");
    struct address self = it.from;
    OK(connect(it.server, &self.any, self.size));
    put(it.server, "one", 0);
    SAME(read(it.client, got, sizeof got), 3);
    put(it.server, "twosome", 0);
    SAME(readv(it.client, into, 2), 7);
    TEXT(got, "twosome");
    put(it.server, "three", 0);
    SAME(recv(it.client, got, sizeof got, 0), 5);
    put(it.server, "four", 0);
    SAME(recvfrom(it.client, got, sizeof got, 0, 0, 0), 4);
    message = (struct msghdr){.msg_iov = into, .msg_iovlen = 2};
    put(it.server, "sixsix", 0);
    SAME(recvmsg(it.client, &message, 0), 6);
    SAME(message.msg_flags, 0);
    SAME(message.msg_namelen, 0);
    TEXT(got, "sixsixe"); /* and the rest is as it was */
}

CASE(a_connected_one_may_send_elsewhere) {
    struct two it = two("127.0.0.1", 1);
    int other = bound("127.0.0.1", 0);
    struct address elsewhere = name_of(other);
    put(it.client, "aside", &elsewhere);
    struct address from = take(other, "aside");
    TEXT(show(&from), show(&it.from));
    struct address peer = peer_of(it.client);
    TEXT(show(&peer), show(&it.to));
    put(it.client, "home", 0);
    take(it.server, "home");
    put(other, "not heard", &from);
    nothing_in(it.client);
}

CASE(an_unconnected_one_talks_to_many) {
    enum { MANY = 20 };
    int client = udp("127.0.0.1"), servers[MANY];
    struct address names[MANY];
    for (int i = 0; i < MANY; i++) {
        servers[i] = bound(i % 2 ? "127.0.0.1" : VIP, 0);
        names[i] = name_of(servers[i]);
    }
    for (int i = 0; i < MANY; i++) put(client, "ask", &names[i]);
    int port = port_of(client);
    for (int i = 0; i < MANY; i++) {
        struct address from = take(servers[i], "ask");
        SAME(port_in(&from), port);
        TEXT(ip_of(&from), ip_of(&names[i]));
        put(servers[i], "tell", &from);
        from = take(client, "tell");
        TEXT(show(&from), show(&names[i]));
    }
}

CASE(of_v6) {
    const char *ips[] = {"::1", VIP6};
    for (int i = 0; i < 2; i++) {
        struct two it = two(ips[i], 0), connected = two(ips[i], 1);
        chat(it.client, it.server, &it.to);
        put(connected.client, "hello", 0);
        struct address from = take(connected.server, "hello");
        TEXT(show(&from), show(&connected.from));
    }
}

CASE(bounds_are_kept) {
    struct two it = two("127.0.0.1", 0);
    const char *texts[] = {"a", "bc", "def", "", "g"};
    for (int i = 0; i < 5; i++) put(it.client, texts[i], &it.to);
    for (int i = 0; i < 5; i++) take(it.server, texts[i]);
    nothing_in(it.server);
}

CASE(a_datagram_of_nothing) {
    struct two it = two("127.0.0.1", 1);
    char byte = 'x';
    SAME(send(it.client, 0, 0, 0), 0);
    SAME(events_of(it.server, POLLIN, 5000), POLLIN);
    struct address from = {.size = sizeof from.storage};
    SAME(recvfrom(it.server, &byte, 1, 0, &from.any, &from.size), 0);
    TEXT(show(&from), show(&it.from));
    SAME(byte, 'x');
    nothing_in(it.server);
    SAME(write(it.client, "", 0), 0);
    SAME(recv(it.server, &byte, 1, 0), 0);
    SAME(sendto(it.client, "", 0, 0, &it.to.any, it.to.size), 0);
    SAME(recv(it.server, 0, 0, 0), 0);
    nothing_in(it.server);
}

CASE(cut_to_the_room_there_is) {
    struct two it = two("127.0.0.1", 1);
    char got[16] = "";
    struct iovec part = {got, 4};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    put(it.client, "truncated", 0);
    put(it.client, "truncated", 0);
    put(it.client, "truncated", 0);
    put(it.client, "truncated", 0);
    put(it.client, "whole", 0);
    SAME(recv(it.server, got, 4, 0), 4);
    TEXT(got, "trun");
    SAME(recv(it.server, got, 4, MSG_TRUNC), 9); /* what it was */
    SAME(recvmsg(it.server, &message, 0), 4);
    SAME(message.msg_flags, MSG_TRUNC);
    SAME(recvmsg(it.server, &message, MSG_TRUNC), 9);
    SAME(message.msg_flags, MSG_TRUNC);
    take(it.server, "whole");
}

CASE(peek) {
    struct two it = two("127.0.0.1", 0);
    char got[16] = "";
    put(it.client, "first", &it.to);
    put(it.client, "second", &it.to);
    for (int i = 0; i < 3; i++) {
        struct address from = {.size = sizeof from.storage};
        SAME(recvfrom(it.server, got, 16, MSG_PEEK, &from.any, &from.size), 5);
        TEXT(got, "first");
        TEXT(show(&from), show(&it.from));
    }
    SAME(recv(it.server, 0, 0, MSG_PEEK | MSG_TRUNC), 5); /* how much room does it need? */
    take(it.server, "first");
    take(it.server, "second");
    FAILS(recv(it.server, got, 16, MSG_PEEK | MSG_DONTWAIT), EAGAIN);
}

CASE(waiting_bytes) {
    struct two it = two("127.0.0.1", 1);
    int count = -1;
    OK(ioctl(it.server, FIONREAD, &count));
    SAME(count, 0);
    put(it.client, "three", 0);
    put(it.client, "and more", 0);
    SAME(events_of(it.server, POLLIN, 5000), POLLIN);
    OK(ioctl(it.server, FIONREAD, &count));
    SAME(count, 5); /* of the next one */
    take(it.server, "three");
    take(it.server, "and more");
    OK(ioctl(it.client, TIOCOUTQ, &count));
    SAME(count, 0);
}

CASE(nothing_to_receive) {
    struct two it = two("127.0.0.1", 0);
    struct address from = {.size = sizeof from.storage};
    char byte;
    FAILS(recv(it.server, &byte, 1, MSG_DONTWAIT), EAGAIN);
    FAILS(recvfrom(it.server, &byte, 1, MSG_DONTWAIT, &from.any, &from.size), EAGAIN);
    OK(fcntl(it.server, F_SETFL, O_NONBLOCK));
    FAILS(recv(it.server, &byte, 1, 0), EAGAIN);
    FAILS(read(it.server, &byte, 1), EAGAIN);
    FAILS(recv(udp("::1"), &byte, 1, MSG_DONTWAIT), EAGAIN); /* nor one that was never bound */
    int made = OK(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    FAILS(recv(made, &byte, 1, 0), EAGAIN);
    OK(CONNECT(made, "127.0.0.1", port_of(it.server)));
    FAILS(recv(made, &byte, 1, 0), EAGAIN);
    SAME(OK(fcntl(made, F_GETFD)), FD_CLOEXEC);
}

CASE(a_timeout) {
    struct two it = two("127.0.0.1", 0);
    struct timeval patience = {.tv_usec = 50000}, got;
    socklen_t size = sizeof got;
    char byte;
    OK(setsockopt(it.server, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience));
    FAILS(recv(it.server, &byte, 1, 0), EAGAIN);
    int early = udp("127.0.0.1"); /* set before bind and connect, it holds after them */
    OK(setsockopt(early, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience));
    OK(BIND(early, "127.0.0.1", 0));
    FAILS(recv(early, &byte, 1, 0), EAGAIN);
    OK(connect(early, &it.to.any, it.to.size));
    FAILS(recv(early, &byte, 1, 0), EAGAIN);
    OK(getsockopt(early, SOL_SOCKET, SO_RCVTIMEO, &got, &size));
    SAME(got.tv_usec / 10000, 5);
}

CASE(a_datagram_wakes_a_receiver) {
    struct two it = two(VIP, 0);
    pid_t child = IN_CHILD(for (int i = 0; i < 100; i++) take(it.server, "wake up"));
    for (int i = 0; i < 100; i++) put(it.client, "wake up", &it.to);
    end_well(child);
}

CASE(sizes) {
    static char sent[LARGEST + 1], got[LARGEST + 1];
    const size_t sizes[] = {1, 512, 1400, 1472, 1473, 4096, 9000, 16384, 32768, 65000, LARGEST};
    for (int i = 0; i < LARGEST; i++) sent[i] = (char)(i * 7 % 251);
    for (int connected = 0; connected < 2; connected++) {
        struct two it = two(connected ? VIP : "127.0.0.1", connected);
        for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            memset(got, 0, sizeof got);
            SAME(sendto(it.client, sent, sizes[i], 0, connected ? 0 : &it.to.any, connected ? 0 : it.to.size),
                 sizes[i]);
            SAME(recv(it.server, got, sizeof got, 0), sizes[i]);
            SAME(memcmp(sent, got, sizes[i]), 0);
        }
        FAILS(sendto(it.client, sent, LARGEST + 1, 0, &it.to.any, it.to.size), EMSGSIZE);
        FAILS(sendto(it.client, sent, 1 << 20, 0, &it.to.any, it.to.size), EMSGSIZE);
        if (connected) FAILS(send(it.client, sent, LARGEST + 1, 0), EMSGSIZE);
        nothing_in(it.server);
        chat(it.client, it.server, &it.to); /* as good as ever */
    }
}

CASE(the_largest_of_v6) {
    static char sent[65536], got[65536];
    for (int i = 0; i < 65536; i++) sent[i] = (char)(i * 11 % 241);
    struct two it = two("::1", 0);
    SAME(sendto(it.client, sent, LARGEST, 0, &it.to.any, it.to.size), LARGEST);
    SAME(recv(it.server, got, sizeof got, 0), LARGEST);
    SAME(memcmp(sent, got, LARGEST), 0);
    SAME(sendto(it.client, sent, 65527, 0, &it.to.any, it.to.size), 65527);
    SAME(recv(it.server, got, sizeof got, 0), 65527);
    FAILS(sendto(it.client, sent, 65528, 0, &it.to.any, it.to.size), EMSGSIZE);
}

/* What finds no room is lost; the sender isn't held up. */
CASE(a_full_queue) {
    enum { SENT = 3000 };
    for (int connected = 0; connected < 2; connected++) {
        struct two it = two("127.0.0.1", connected);
        OK(set(it.server, SOL_SOCKET, SO_RCVBUF, 16384));
        char text[600] = "";
        int came = 0, last = -1;
        for (int i = 0; i < SENT; i++) {
            snprintf(text, sizeof text, "%d", i);
            SAME(sendto(it.client, text, sizeof text, 0, connected ? 0 : &it.to.any, connected ? 0 : it.to.size),
                 sizeof text);
        }
        while (recv(it.server, text, sizeof text, MSG_DONTWAIT) > 0) {
            CHECK(atoi(text) > last);
            last = atoi(text);
            came++;
        }
        SAME(errno, EAGAIN);
        CHECK(came > 0);
        CHECK(came < SENT / 2);
        SAME(events_of(it.client, POLLOUT, 0), POLLOUT);
        chat(it.client, it.server, &it.to); /* there is room again */
    }
}

CASE(in_order) {
    struct two it = two(VIP, 1);
    for (int i = 0; i < 2000; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        put(it.client, text, 0);
        if (i % 20 == 19)
            for (int k = i - 19; k <= i; k++) {
                snprintf(text, sizeof text, "%d", k);
                take(it.server, text);
            }
    }
}

CASE(more_to_come) {
    struct two it = two("127.0.0.1", 1);
    SAME(send(it.client, "one ", 4, MSG_MORE), 4);
    nothing_in(it.server);
    SAME(send(it.client, "datagram", 8, 0), 8);
    take(it.server, "one datagram");
    OK(set(it.client, IPPROTO_UDP, UDP_CORK, 1));
    put(it.client, "cor", 0);
    put(it.client, "ked", 0);
    OK(set(it.client, IPPROTO_UDP, UDP_CORK, 0));
    take(it.server, "corked");
}

CASE(out_of_band) {
    struct two it = two("127.0.0.1", 1);
    FAILS(send(it.client, "x", 1, MSG_OOB), EOPNOTSUPP);
}

CASE(shut_down) {
    struct two it = two("127.0.0.1", 1);
    char byte;
    OK(shutdown(it.client, SHUT_WR));
    FAILS(send(it.client, "x", 1, MSG_NOSIGNAL), EPIPE);
    put(it.server, "still heard", &it.from);
    take(it.client, "still heard");
    OK(shutdown(it.client, SHUT_RD));
    SAME(recv(it.client, &byte, 1, 0), 0);
    FAILS(shutdown(it.server, 9), EINVAL);
    FAILS(shutdown(it.server, SHUT_RD), ENOTCONN); /* but it is done: */
    SAME(recv(it.server, &byte, 1, 0), 0);
}

static void *wait_for_a_datagram(void *fd) {
    char bytes[16];
    return (void *)(recv(*(int *)fd, bytes, sizeof bytes, 0) + 1);
}

/* How programs wake a thread that waits for a datagram. */
CASE(shutdown_wakes_a_receiver) {
    int fds[] = {bound("127.0.0.1", 0), toward("127.0.0.1", 5301)};
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        void *got;
        SAME(pthread_create(&thread, 0, wait_for_a_datagram, &fds[i]), 0);
        TELL(shutdown(fds[i], SHUT_RDWR)); /* before or while it waits */
        SAME(pthread_join(thread, &got), 0);
        SAME((long)got, 1);
    }
}

CASE(what_kind_of_socket) {
    const char *ips[] = {"127.0.0.1", "::1"};
    for (int i = 0; i < 2; i++) {
        int server = bound(ips[i], 0), fd = udp(ips[i]);
        struct address to = name_of(server);
        for (int stage = 0; stage < 4; stage++) {
            if (stage == 1) OK(BIND(fd, ips[i], 0));
            if (stage == 2) chat(fd, server, &to);
            if (stage == 3) OK(connect(fd, &to.any, to.size));
            SAME(option(fd, SOL_SOCKET, SO_TYPE), SOCK_DGRAM);
            SAME(option(fd, SOL_SOCKET, SO_PROTOCOL), IPPROTO_UDP);
            SAME(option(fd, SOL_SOCKET, SO_DOMAIN), i ? AF_INET6 : AF_INET);
            SAME(option(fd, SOL_SOCKET, SO_ACCEPTCONN), 0);
            SAME(option(fd, SOL_SOCKET, SO_ERROR), 0);
        }
    }
}

CASE(options_stay) {
    int server = bound("127.0.0.1", 0), fd = udp("127.0.0.1");
    struct address to = name_of(server);
    OK(set(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    OK(set(fd, SOL_SOCKET, SO_BROADCAST, 1));
    OK(set(fd, SOL_SOCKET, SO_RCVBUF, 50000));
    OK(set(fd, SOL_SOCKET, SO_SNDBUF, 60000));
    OK(set(fd, IPPROTO_IP, IP_TTL, 9));
    OK(set(fd, IPPROTO_IP, IP_TOS, 0x10));
    OK(set(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO));
    for (int stage = 0; stage < 4; stage++) {
        if (stage == 1) OK(BIND(fd, "127.0.0.1", 0));
        if (stage == 2) chat(fd, server, &to);
        if (stage == 3) OK(connect(fd, &to.any, to.size));
        SAME(option(fd, SOL_SOCKET, SO_REUSEADDR), 1);
        SAME(option(fd, SOL_SOCKET, SO_BROADCAST), 1);
        SAME(option(fd, SOL_SOCKET, SO_RCVBUF), 100000);
        SAME(option(fd, SOL_SOCKET, SO_SNDBUF), 120000);
        SAME(option(fd, IPPROTO_IP, IP_TTL), 9);
        SAME(option(fd, IPPROTO_IP, IP_TOS), 0x10);
        SAME(option(fd, IPPROTO_IP, IP_MTU_DISCOVER), IP_PMTUDISC_DO);
    }
    TELL(set(fd, IPPROTO_TCP, TCP_NODELAY, 1));
    TELL(set(fd, SOL_SOCKET, SO_KEEPALIVE, 1));
    TELL(listen(fd, 5));
    TELL(accept(fd, 0, 0));
}
