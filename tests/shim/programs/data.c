/* Data on a connected socket: every call that may carry an address, half-close, and the calls that no hook sees. */
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include "test.h"

static int pipe_with(const char *text, int *read_end) {
    int ends[2];
    OK(pipe(ends));
    SAME(write(ends[1], text, strlen(text)), strlen(text));
    *read_end = ends[0];
    return ends[1];
}

static void arrives(int fd, const char *text) {
    char got[100] = "";
    size_t filled = 0;
    while (filled < strlen(text)) {
        int count = OK(read(fd, got + filled, strlen(text) - filled));
        if (!count) fail("the end instead of \"%s\"", text + filled);
        filled += (size_t)count;
    }
    TEXT(got, text);
}

CASE(sendto_without_an_address) {
    struct pair pair = connected("127.0.0.1");
    SAME(sendto(pair.client, "hello", 5, 0, 0, 0), 5);
    arrives(pair.server, "hello");
    SAME(send(pair.server, "hello", 5, MSG_NOSIGNAL), 5);
    arrives(pair.client, "hello");
}

/* TCP takes no notice of the address (tcp_sendmsg in net/ipv4/tcp.c). */
CASE(sendto_with_an_address) {
    struct pair pair = connected("127.0.0.1");
    struct address peer = peer_of(pair.client), other = at("10.78.0.1", 9);
    SAME(sendto(pair.client, "one", 3, 0, &peer.any, peer.size), 3);
    SAME(sendto(pair.client, "two", 3, 0, &other.any, other.size), 3);
    SAME(sendto(pair.server, "back", 4, 0, &other.any, other.size), 4);
    arrives(pair.server, "onetwo");
    arrives(pair.client, "back");
}

CASE(sendmsg_with_an_address) {
    struct pair pair = connected("127.0.0.1");
    struct address other = at("10.78.0.1", 9);
    struct iovec parts[] = {{"one", 3}, {"two", 3}};
    struct msghdr message = {.msg_name = &other.any, .msg_namelen = other.size, .msg_iov = parts, .msg_iovlen = 2};
    SAME(sendmsg(pair.client, &message, 0), 6);
    arrives(pair.server, "onetwo");
    SAME(message.msg_namelen, other.size);
    message.msg_name = 0;
    message.msg_namelen = 0;
    SAME(sendmsg(pair.server, &message, 0), 6);
    arrives(pair.client, "onetwo");
}

CASE(sendmmsg_of_two) {
    struct pair pair = connected("127.0.0.1");
    struct iovec one = {"one", 3}, two = {"two", 3};
    struct mmsghdr messages[] = {{.msg_hdr = {.msg_iov = &one, .msg_iovlen = 1}},
                                 {.msg_hdr = {.msg_iov = &two, .msg_iovlen = 1}}};
    SAME(sendmmsg(pair.client, messages, 2, 0), 2);
    arrives(pair.server, "onetwo");
}

CASE(sending_on_what_is_not_connected) {
    struct address to = at("127.0.0.1", 9);
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1}, named = message;
    named.msg_name = &to.any;
    named.msg_namelen = to.size;
    int fresh = tcp("127.0.0.1"), bound = tcp("127.0.0.1"), others[] = {bound, listening("127.0.0.1", 0)};
    OK(BIND(bound, "127.0.0.1", 0));
    FAILS(send(fresh, "x", 1, MSG_NOSIGNAL), EPIPE);
    FAILS(sendto(fresh, "x", 1, MSG_NOSIGNAL, &to.any, to.size), EPIPE);
    FAILS(sendmsg(fresh, &message, MSG_NOSIGNAL), EPIPE);
    FAILS(sendmsg(fresh, &named, MSG_NOSIGNAL), EPIPE);
    for (int i = 0; i < 2; i++) { /* EPIPE on TCP, ENOTCONN on a Unix socket: no hook sees send */
        SAME(send(others[i], "x", 1, MSG_NOSIGNAL), -1);
        SAME(sendto(others[i], "x", 1, MSG_NOSIGNAL, &to.any, to.size), -1);
        SAME(sendmsg(others[i], &message, MSG_NOSIGNAL), -1);
        SAME(sendmsg(others[i], &named, MSG_NOSIGNAL), -1);
    }
}

CASE(receiving_on_what_is_not_connected) {
    char byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    int fresh = tcp("127.0.0.1"), bound = tcp("127.0.0.1"), others[] = {bound, listening("127.0.0.1", 0)};
    OK(BIND(bound, "127.0.0.1", 0));
    FAILS(recv(fresh, &byte, 1, 0), ENOTCONN);
    FAILS(recvfrom(fresh, &byte, 1, 0, 0, 0), ENOTCONN);
    FAILS(recvmsg(fresh, &message, 0), ENOTCONN);
    FAILS(read(fresh, &byte, 1), ENOTCONN);
    for (int i = 0; i < 2; i++) { /* ENOTCONN on TCP, EINVAL on a Unix socket: no hook sees read */
        SAME(recv(others[i], &byte, 1, 0), -1);
        SAME(recvfrom(others[i], &byte, 1, 0, 0, 0), -1);
        SAME(recvmsg(others[i], &message, 0), -1);
        SAME(read(others[i], &byte, 1), -1);
    }
}

CASE(recvfrom_gives_no_address) {
    struct pair pair = connected("127.0.0.1");
    char got[9] = "";
    struct address from;
    memset(&from, 0x55, sizeof from);
    from.size = sizeof from.storage;
    SAME(write(pair.client, "hello", 5), 5);
    SAME(recvfrom(pair.server, got, 5, MSG_WAITALL, &from.any, &from.size), 5);
    TEXT(got, "hello");
    SAME(from.size, 0);
    SAME(((unsigned char *)&from.storage)[0], 0x55);
    SAME(write(pair.server, "again", 5), 5);
    from.size = sizeof from.storage;
    SAME(recvfrom(pair.client, got, 5, MSG_WAITALL, &from.any, &from.size), 5);
    SAME(from.size, 0);
}

CASE(recvmsg_gives_no_address) {
    struct pair pair = connected("127.0.0.1");
    char got[9] = "";
    struct address from;
    struct iovec part = {got, 5};
    struct msghdr message = {
        .msg_name = &from.storage, .msg_namelen = sizeof from.storage, .msg_iov = &part, .msg_iovlen = 1};
    memset(&from, 0x55, sizeof from);
    SAME(write(pair.client, "hello", 5), 5);
    SAME(recvmsg(pair.server, &message, MSG_WAITALL), 5);
    TEXT(got, "hello");
    SAME(message.msg_namelen, 0);
    SAME(((unsigned char *)&from.storage)[0], 0x55);
    SAME(message.msg_flags & MSG_CTRUNC, 0);
}

CASE(recvfrom_at_the_end_and_with_nothing) {
    struct pair pair = connected("127.0.0.1");
    char byte;
    struct address from = {.size = sizeof from.storage};
    FAILS(recvfrom(pair.server, &byte, 1, MSG_DONTWAIT, &from.any, &from.size), EAGAIN);
    close(pair.client);
    SAME(recvfrom(pair.server, &byte, 1, 0, &from.any, &from.size), 0);
    SAME(from.size, 0);
}

CASE(peek) {
    struct pair pair = connected("127.0.0.1");
    char got[9] = "";
    SAME(write(pair.client, "hello", 5), 5);
    SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
    SAME(recv(pair.server, got, 2, MSG_PEEK), 2);
    TEXT(got, "he");
    arrives(pair.server, "hello");
}

CASE(writev_and_readv) {
    struct pair pair = connected("127.0.0.1");
    char first[4] = "", second[4] = "";
    struct iovec parts[] = {{"one", 3}, {"two", 3}}, into[] = {{first, 3}, {second, 3}};
    SAME(writev(pair.client, parts, 2), 6);
    SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
    SAME(readv(pair.server, into, 2), 6);
    TEXT(first, "one");
    TEXT(second, "two");
}

CASE(sendfile_sends) {
    struct pair pair = connected("127.0.0.1");
    char name[] = "/tmp/test-XXXXXX";
    int file = OK(mkstemp(name));
    unlink(name);
    SAME(write(file, "from a file", 11), 11);
    off_t start = 5;
    SAME(sendfile(pair.client, file, &start, 6), 6);
    arrives(pair.server, "a file");
}

CASE(splice_both_ways) {
    struct pair pair = connected("127.0.0.1");
    int from, to[2];
    pipe_with("spliced", &from);
    OK(pipe(to));
    SAME(splice(from, 0, pair.client, 0, 7, 0), 7);
    SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
    SAME(splice(pair.server, 0, to[1], 0, 7, 0), 7);
    arrives(to[0], "spliced");
}

CASE(half_close) {
    struct pair pair = connected("127.0.0.1");
    char byte;
    SAME(write(pair.client, "question", 8), 8);
    OK(shutdown(pair.client, SHUT_WR));
    arrives(pair.server, "question");
    SAME(read(pair.server, &byte, 1), 0);
    SAME(write(pair.server, "answer", 6), 6);
    arrives(pair.client, "answer");
    FAILS(send(pair.client, "x", 1, MSG_NOSIGNAL), EPIPE);
    OK(shutdown(pair.server, SHUT_WR));
    SAME(read(pair.client, &byte, 1), 0);
}

CASE(half_close_by_the_server) {
    struct pair pair = connected("127.0.0.1");
    char byte;
    OK(shutdown(pair.server, SHUT_WR));
    SAME(read(pair.client, &byte, 1), 0);
    SAME(write(pair.client, "still", 5), 5);
    arrives(pair.server, "still");
}

CASE(shutdown_of_what_is_not_connected) {
    int bound = tcp("127.0.0.1"), listener = listening("127.0.0.1", 0);
    OK(BIND(bound, "127.0.0.1", 0));
    FAILS(shutdown(tcp("127.0.0.1"), SHUT_RDWR), ENOTCONN);
    FAILS(shutdown(bound, SHUT_RDWR), ENOTCONN);
    FAILS(shutdown(bound, 9), EINVAL);
    FAILS(syscall(SYS_shutdown, bound, SHUT_WR), ENOTCONN);
    OK(shutdown(listener, SHUT_WR)); /* which means nothing */
    meet("127.0.0.1", port_of(listener), listener);
    FAILS(shutdown(connected("127.0.0.1").client, 9), EINVAL);
}

CASE(a_close_with_data_unread) {
    struct pair pair = connected("127.0.0.1");
    char byte;
    SAME(write(pair.client, "unread", 6), 6);
    SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
    close(pair.server);
    FAILS(read(pair.client, &byte, 1), ECONNRESET);
}

CASE(a_write_after_the_other_end_has_reset) {
    struct pair pair = connected("127.0.0.1");
    SAME(write(pair.client, "unread", 6), 6);
    SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
    close(pair.server);
    char byte;
    FAILS(read(pair.client, &byte, 1), ECONNRESET);
    if (write(pair.client, "x", 1) < 0) SAME(errno, EPIPE); /* so on TCP: docs/compatibility.md */
    FAILS(write(pair.client, "x", 1), EPIPE);
}

/* What the other end answers has come, when there is an answer. */
static void settle(int fd) {
    CHECK(events_of(fd, 0, 5000) & POLLHUP);
}

static long send_two(int fd, int how) {
    struct address to = at("127.0.0.1", 9);
    struct iovec parts[] = {{"x", 1}, {"y", 1}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    struct mmsghdr several = {.msg_hdr = message};
    switch (how) {
    case 0:
        return send(fd, "xy", 2, MSG_NOSIGNAL);
    case 1:
        return sendto(fd, "xy", 2, MSG_NOSIGNAL, 0, 0);
    case 2:
        return sendto(fd, "xy", 2, MSG_NOSIGNAL, &to.any, to.size);
    case 3:
        return sendmsg(fd, &message, MSG_NOSIGNAL);
    case 4:
        return sendmmsg(fd, &several, 1, MSG_NOSIGNAL) == 1 ? (long)several.msg_len : -1;
    case 5:
        return syscall(SYS_sendto, fd, "xy", 2, MSG_NOSIGNAL, 0, 0);
    case 6:
        return write(fd, "xy", 2);
    default:
        return writev(fd, parts, 2);
    }
}

static void send_after_a_close(const int *ways, int count) {
    char byte;
    for (int i = 0; i < count; i++) {
        int how = ways[i];
        struct pair pair = connected("127.0.0.1");
        close(how % 2 ? pair.client : pair.server);
        int left = how % 2 ? pair.server : pair.client;
        SAME(read(left, &byte, 1), 0);
        SAME(send_two(left, how), 2);
        settle(left);
        FAILS(send_two(left, how), EPIPE);
        FAILS(send_two(left, how), EPIPE);
        SAME(read(left, &byte, 1), 0);
    }
}

/* Those that the tracer traps (tracer/filter.c), and the others. */
static const int with_message_or_address[] = {2, 3, 4}, plain[] = {0, 1, 5, 6, 7};

CASE(messages_after_the_other_end_has_closed) {
    send_after_a_close(with_message_or_address, 3);
}

CASE(sends_after_the_other_end_has_closed) {
    send_after_a_close(plain, 5);
}

/* They put nothing on the wire, so nothing comes back. */
CASE(empty_sends_after_the_other_end_has_closed) {
    char byte;
    struct pair pair = connected("127.0.0.1");
    close(pair.server);
    SAME(read(pair.client, &byte, 1), 0);
    for (int i = 0; i < 3; i++) SAME(send(pair.client, "", 0, MSG_NOSIGNAL), 0);
    SAME(send(pair.client, "xy", 2, MSG_NOSIGNAL), 2);
    settle(pair.client);
    FAILS(send(pair.client, "", 0, MSG_NOSIGNAL), EPIPE);
}

static void send_after_a_close_with_data_unread(const int *ways, int count) {
    for (int i = 0; i < count; i++) {
        int how = ways[i];
        struct pair pair = connected("127.0.0.1");
        SAME(write(pair.client, "unread", 6), 6);
        SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
        close(pair.server);
        settle(pair.client);
        FAILS(send_two(pair.client, how), ECONNRESET);
        FAILS(send_two(pair.client, how), EPIPE);
    }
}

CASE(messages_after_the_other_end_has_closed_with_data_unread) {
    send_after_a_close_with_data_unread(with_message_or_address, 3);
}

CASE(sends_after_the_other_end_has_closed_with_data_unread) {
    send_after_a_close_with_data_unread(plain, 5);
}

CASE(a_shutdown_when_it_is_over) {
    char byte;
    struct pair pair = connected("127.0.0.1");
    close(pair.server);
    SAME(read(pair.client, &byte, 1), 0);
    SAME(send(pair.client, "x", 1, MSG_NOSIGNAL), 1);
    settle(pair.client);
    FAILS(shutdown(pair.client, SHUT_RDWR), ENOTCONN);
    FAILS(shutdown(pair.client, 9), EINVAL);
    pair = connected("127.0.0.1");
    OK(shutdown(pair.client, SHUT_WR));
    OK(shutdown(pair.client, SHUT_WR));
    SAME(read(pair.server, &byte, 1), 0);
    OK(shutdown(pair.server, SHUT_WR));
    SAME(read(pair.client, &byte, 1), 0);
    FAILS(shutdown(pair.client, SHUT_RDWR), ENOTCONN);
    pair = connected("127.0.0.1");
    close(pair.server);
    SAME(read(pair.client, &byte, 1), 0);
    OK(shutdown(pair.client, SHUT_RDWR));
}

CASE(sends_after_both_ends_have_ended_theirs) {
    for (int how = 0; how < 8; how++) {
        struct pair pair = connected("127.0.0.1");
        OK(shutdown(pair.client, how % 2 ? SHUT_WR : SHUT_RDWR));
        close(pair.server);
        FAILS(send_two(pair.client, how), EPIPE);
    }
}

CASE(a_long_send_after_the_other_end_has_closed) {
    static char much[32 << 20];
    struct pair pair = connected("127.0.0.1");
    close(pair.server);
    long taken = send(pair.client, much, sizeof much, MSG_NOSIGNAL);
    CHECK(taken > 0 && taken < (long)sizeof much);
    settle(pair.client);
    FAILS(send(pair.client, much, sizeof much, MSG_NOSIGNAL), EPIPE);
}

/* One connection has one first send, whoever has it. */
CASE(sends_after_the_other_end_has_closed_by_several) {
    struct pair pair = connected("127.0.0.1");
    int copy = OK(dup(pair.client));
    close(pair.server);
    end_well(IN_CHILD(SAME(send(pair.client, "x", 1, MSG_NOSIGNAL), 1)));
    settle(copy);
    FAILS(send(copy, "x", 1, MSG_NOSIGNAL), EPIPE);
}

CASE(out_of_band) {
    struct pair pair = connected("127.0.0.1");
    char byte = 0;
    SAME(send(pair.client, "!", 1, MSG_OOB), 1);
    SAME(events_of(pair.server, POLLPRI, 5000), POLLPRI);
    SAME(recv(pair.server, &byte, 1, MSG_OOB), 1);
    SAME(byte, '!');
}

static int urgent;

static void note_urgent(int number) {
    (void)number;
    urgent++;
}

CASE(out_of_band_among_other_data) {
    struct pair pair = connected("127.0.0.1");
    char got[9] = "";
    int at_mark = -1;
    signal(SIGURG, note_urgent);
    OK(fcntl(pair.server, F_SETOWN, getpid()));
    SAME(send(pair.client, "before", 6, 0), 6);
    SAME(send(pair.client, "!", 1, MSG_OOB), 1);
    SAME(send(pair.client, "after", 5, 0), 5);
    SAME(events_of(pair.server, POLLPRI, 5000), POLLPRI);
    SAME(urgent, 1);
    OK(ioctl(pair.server, SIOCATMARK, &at_mark));
    SAME(at_mark, 0);
    SAME(recv(pair.server, got, 8, 0), 6); /* up to the mark */
    TEXT(got, "before");
    OK(ioctl(pair.server, SIOCATMARK, &at_mark));
    SAME(at_mark, 1);
    SAME(recv(pair.server, got, 1, MSG_OOB | MSG_PEEK), 1);
    SAME(recv(pair.server, got, 1, MSG_OOB), 1);
    SAME(got[0], '!');
    arrives(pair.server, "after");
    FAILS(recv(pair.server, got, 1, MSG_OOB), EINVAL);
}

CASE(out_of_band_in_line) {
    struct pair pair = connected("127.0.0.1");
    OK(set(pair.server, SOL_SOCKET, SO_OOBINLINE, 1));
    SAME(send(pair.client, "in", 2, 0), 2);
    SAME(send(pair.client, "!", 1, MSG_OOB), 1);
    arrives(pair.server, "in!");
    FAILS(recv(pair.server, &(char){0}, 1, MSG_OOB), EINVAL);
}

#ifndef SIOCINQ
#define SIOCINQ FIONREAD /* linux/sockios.h */
#define SIOCOUTQ TIOCOUTQ
#endif

/* What is on its way is counted with what the kernel needs for it; a program waits for 0. */
CASE(queues) {
    struct pair pair = connected("127.0.0.1");
    int count = -1;
    OK(ioctl(pair.client, SIOCOUTQ, &count));
    SAME(count, 0);
    SAME(write(pair.client, "four", 4), 4);
    SAME(write(pair.client, "more", 4), 4);
    SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
    OK(ioctl(pair.server, SIOCINQ, &count));
    SAME(count, 8);
    arrives(pair.server, "four");
    OK(ioctl(pair.server, FIONREAD, &count));
    SAME(count, 4);
    arrives(pair.server, "more");
    OK(ioctl(pair.server, SIOCINQ, &count));
    SAME(count, 0);
    for (count = -1; count;) OK(ioctl(pair.client, SIOCOUTQ, &count)); /* TCP's acknowledgement takes a moment */
    FAILS(ioctl(pair.listener, SIOCINQ, &count), EINVAL);
}

/* Either it works, with the notice that says that the data may be changed, or it is refused when it is asked for. */
CASE(zero_copy) {
    struct pair pair = connected("127.0.0.1");
    if (set(pair.client, SOL_SOCKET, SO_ZEROCOPY, 1) < 0) {
        SAME(errno, EOPNOTSUPP);
        SAME(option(pair.client, SOL_SOCKET, SO_ZEROCOPY), 0);
        SAME(send(pair.client, "data", 4, MSG_ZEROCOPY), 4); /* which means nothing then */
        arrives(pair.server, "data");
        return;
    }
    char control[100];
    struct msghdr message = {.msg_control = control, .msg_controllen = sizeof control};
    SAME(send(pair.client, "data", 4, MSG_ZEROCOPY), 4);
    arrives(pair.server, "data");
    CHECK(events_of(pair.client, 0, 5000) & POLLERR);
    OK(recvmsg(pair.client, &message, MSG_ERRQUEUE));
}

CASE(zero_copy_asked_for_before_connect) {
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    int wanted = set(client, SOL_SOCKET, SO_ZEROCOPY, 1) == 0;
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    SAME(option(client, SOL_SOCKET, SO_ZEROCOPY), wanted);
    talk(client, OK(accept(listener, 0, 0)));
}

/* TLS in the kernel: a program goes on without (OpenSSL, nginx). */
CASE(tls_in_the_kernel) {
    struct pair pair = connected("127.0.0.1");
    if (setsockopt(pair.client, IPPROTO_TCP, TCP_ULP, "tls", 4) == 0) return;
    CHECK(errno == ENOENT || errno == ENOTCONN || errno == EPERM);
    talk(pair.client, pair.server);
}

static void fast_open(int by_message) {
    int listener = listening("127.0.0.1", 0);
    OK(set(listener, IPPROTO_TCP, TCP_FASTOPEN, 5));
    for (int i = 0; i < 4; i++) {
        int client = tcp("127.0.0.1");
        struct address to = at("127.0.0.1", port_of(listener));
        struct iovec part = {"first", 5};
        struct msghdr message = {.msg_name = &to.any, .msg_namelen = to.size, .msg_iov = &part, .msg_iovlen = 1};
        SAME(by_message ? sendmsg(client, &message, MSG_FASTOPEN)
                        : sendto(client, "first", 5, MSG_FASTOPEN, &to.any, to.size),
             5);
        int server = OK(accept(listener, 0, 0));
        arrives(server, "first");
        SAME(write(client, "second", 6), 6);
        arrives(server, "second");
        struct address peer = peer_of(client);
        TEXT(show(&peer), show(&to));
    }
}

CASE(fast_open_by_sendto) {
    fast_open(0);
}

CASE(fast_open_by_sendmsg) {
    fast_open(1);
}

CASE(fast_open_to_a_dead_port) {
    struct address to = at("127.0.0.1", 9);
    FAILS(sendto(tcp("127.0.0.1"), "first", 5, MSG_FASTOPEN | MSG_NOSIGNAL, &to.any, to.size), ECONNREFUSED);
}

CASE(fast_open_of_a_connected_socket) {
    struct pair pair = connected("127.0.0.1");
    struct address to = peer_of(pair.client);
    FAILS(sendto(pair.client, "x", 1, MSG_FASTOPEN, &to.any, to.size), EISCONN);
}

/* TCP_FASTOPEN_CONNECT: connect returns at once, the first write connects; here it is connected by then. */
CASE(fast_open_by_connect) {
    int listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(set(client, IPPROTO_TCP, 30 /* TCP_FASTOPEN_CONNECT */, 1));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    SAME(write(client, "first", 5), 5);
    arrives(OK(accept(listener, 0, 0)), "first");
}

CASE(much_data_with_nobody_reading_yet) {
    struct pair pair = connected("127.0.0.1");
    char block[4096];
    memset(block, 7, sizeof block);
    OK(fcntl(pair.client, F_SETFL, O_NONBLOCK));
    long sent = 0, got = 0;
    for (ssize_t size; (size = write(pair.client, block, sizeof block)) > 0;) sent += size;
    SAME(errno, EAGAIN);
    CHECK(sent > 150000);
    SAME(events_of(pair.client, POLLOUT, 0), 0);
    close(pair.client);
    for (ssize_t size; (size = read(pair.server, block, sizeof block)) > 0;) got += size;
    SAME(got, sent);
}

/* Each small write costs a Unix socket some 700 bytes of its buffer. */
CASE(many_small_writes_with_nobody_reading_yet) {
    struct pair pair = connected("127.0.0.1");
    for (int i = 0; i < 2000; i++) {
        SAME(send(pair.client, "x", 1, MSG_DONTWAIT), 1);
        SAME(send(pair.server, "y", 1, MSG_DONTWAIT), 1);
    }
}
