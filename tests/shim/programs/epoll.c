/* epoll_ctl, poll and select: a registration survives connect, bind and listen. */
#include <sys/select.h>

#include "test.h"

static int add(int epoll, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

static int modify(int epoll, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
}

/* The one event that is there, or one with no events. */
static struct epoll_event next(int epoll, int patience) {
    struct epoll_event events[4] = {0};
    int count = OK(epoll_wait(epoll, events, 4, patience));
    if (count > 1) fail("%d events at once", count);
    return events[0];
}

static void nothing_more(int epoll) {
    SAME(next(epoll, 0).events, 0);
}

/* A client that is in an epoll set before it connects; the other end, too. */
struct early {
    int epoll, listener, client, server;
};

static struct early added_before_connect(uint32_t events, int non_blocking) {
    struct early early = {OK(epoll_create1(0)), listening("127.0.0.1", 0), 0, 0};
    meet("127.0.0.1", port_of(early.listener), early.listener);
    early.client = tcp("127.0.0.1");
    if (non_blocking) OK(fcntl(early.client, F_SETFL, O_NONBLOCK));
    OK(add(early.epoll, early.client, events, 0x123456789abcdef0));
    if (non_blocking)
        FAILS(CONNECT(early.client, "127.0.0.1", port_of(early.listener)), EINPROGRESS);
    else
        OK(CONNECT(early.client, "127.0.0.1", port_of(early.listener)));
    early.server = OK(accept(early.listener, 0, 0));
    return early;
}

CASE(level_before_connect) {
    struct early early = added_before_connect(EPOLLIN | EPOLLOUT, 0);
    struct epoll_event event = next(early.epoll, 5000);
    SAME(event.events, EPOLLOUT);
    SAME(event.data.u64, 0x123456789abcdef0);
    SAME(write(early.server, "x", 1), 1);
    SAME(events_of(early.client, POLLIN, 5000), POLLIN);
    SAME(next(early.epoll, 5000).events, EPOLLIN | EPOLLOUT);
    SAME(next(early.epoll, 5000).events, EPOLLIN | EPOLLOUT);
}

CASE(non_blocking_before_connect) {
    struct early early = added_before_connect(EPOLLOUT, 1);
    struct epoll_event event = next(early.epoll, 5000);
    SAME(event.events, EPOLLOUT);
    SAME(event.data.u64, 0x123456789abcdef0);
    SAME(option(early.client, SOL_SOCKET, SO_ERROR), 0);
    talk(early.server, early.client);
}

CASE(edge_before_connect) {
    struct early early = added_before_connect(EPOLLIN | EPOLLOUT | EPOLLET, 1);
    SAME(next(early.epoll, 5000).events & EPOLLOUT, EPOLLOUT);
    nothing_more(early.epoll);
    SAME(write(early.server, "x", 1), 1);
    struct epoll_event event = next(early.epoll, 5000);
    SAME(event.events & EPOLLIN, EPOLLIN);
    SAME(event.data.u64, 0x123456789abcdef0);
    nothing_more(early.epoll);
}

CASE(oneshot_before_connect) {
    struct early early = added_before_connect(EPOLLOUT | EPOLLONESHOT, 1);
    SAME(next(early.epoll, 5000).events, EPOLLOUT);
    nothing_more(early.epoll);
    OK(modify(early.epoll, early.client, EPOLLOUT | EPOLLONESHOT, 5));
    struct epoll_event event = next(early.epoll, 5000);
    SAME(event.events, EPOLLOUT);
    SAME(event.data.u64, 5);
    nothing_more(early.epoll);
}

CASE(modified_after_connect) {
    struct early early = added_before_connect(EPOLLOUT, 0);
    OK(modify(early.epoll, early.client, EPOLLIN, 77));
    nothing_more(early.epoll);
    SAME(write(early.server, "x", 1), 1);
    struct epoll_event event = next(early.epoll, 5000);
    SAME(event.events, EPOLLIN);
    SAME(event.data.u64, 77);
}

CASE(deleted_after_connect) {
    struct early early = added_before_connect(EPOLLOUT, 0);
    FAILS(add(early.epoll, early.client, EPOLLOUT, 1), EEXIST);
    OK(epoll_ctl(early.epoll, EPOLL_CTL_DEL, early.client, 0));
    nothing_more(early.epoll);
    FAILS(epoll_ctl(early.epoll, EPOLL_CTL_DEL, early.client, 0), ENOENT);
    OK(add(early.epoll, early.client, EPOLLOUT, 9));
    SAME(next(early.epoll, 5000).data.u64, 9);
}

CASE(nothing_is_left_after_close) {
    struct early early = added_before_connect(EPOLLIN | EPOLLOUT, 0);
    close(early.client);
    nothing_more(early.epoll);
}

/* A dup of the old file must leave no ghost that reports HUP for ever. */
CASE(with_a_dup_made_before_connect) {
    int epoll = OK(epoll_create1(0)), listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1"), copy;
    copy = OK(dup(client));
    OK(add(epoll, client, EPOLLIN, 3));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    nothing_more(epoll);
    close(client);
    close(copy);
    nothing_more(epoll);
}

CASE(in_several_sets) {
    int sets[3], listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    for (int i = 0; i < 3; i++) {
        sets[i] = OK(epoll_create1(0));
        OK(add(sets[i], client, EPOLLOUT, 10 + (unsigned)i));
    }
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = next(sets[i], 5000);
        SAME(event.events, EPOLLOUT);
        SAME(event.data.u64, 10 + i);
    }
}

CASE(in_a_set_with_many_others) {
    int epoll = OK(epoll_create1(0)), listener = listening("127.0.0.1", 0), ends[2], client = tcp("127.0.0.1");
    for (int i = 0; i < 200; i++) {
        OK(pipe(ends));
        OK(add(epoll, ends[0], EPOLLIN, (unsigned)i));
        if (i == 150) OK(add(epoll, client, EPOLLOUT, 1000));
    }
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    struct epoll_event event = next(epoll, 5000);
    SAME(event.data.u64, 1000);
    SAME(event.events, EPOLLOUT);
    OK(modify(epoll, client, EPOLLIN, 1));
    SAME(write(ends[1], "x", 1), 1);
    SAME(next(epoll, 5000).data.u64, 199);
}

CASE(in_a_set_made_by_the_old_call) {
    int epoll = OK(epoll_create(5)), listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(add(epoll, client, EPOLLOUT, 4));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    SAME(next(epoll, 5000).data.u64, 4);
}

CASE(in_a_set_of_a_set) {
    int outer = OK(epoll_create1(0)), inner = OK(epoll_create1(0)), listener = listening("127.0.0.1", 0),
        client = tcp("127.0.0.1");
    OK(add(outer, inner, EPOLLIN, 1));
    OK(add(inner, client, EPOLLOUT, 2));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    SAME(next(outer, 5000).data.u64, 1);
    SAME(next(inner, 5000).data.u64, 2);
}

CASE(before_listen) {
    int epoll = OK(epoll_create1(0)), listener = tcp("127.0.0.1");
    OK(add(epoll, listener, EPOLLIN, 6));
    OK(BIND(listener, "127.0.0.1", 0));
    OK(listen(listener, 5));
    nothing_more(epoll);
    int client = dial("127.0.0.1", port_of(listener));
    struct epoll_event event = next(epoll, 5000);
    SAME(event.events, EPOLLIN);
    SAME(event.data.u64, 6);
    talk(client, OK(accept(listener, 0, 0)));
    nothing_more(epoll);
    OK(epoll_ctl(epoll, EPOLL_CTL_DEL, listener, 0));
}

CASE(between_bind_and_listen) {
    int epoll = OK(epoll_create1(0)), listener = tcp("127.0.0.1");
    OK(BIND(listener, "127.0.0.1", 0));
    OK(add(epoll, listener, EPOLLIN | EPOLLET, 6));
    OK(listen(listener, 5));
    dial("127.0.0.1", port_of(listener));
    SAME(next(epoll, 5000).data.u64, 6);
    nothing_more(epoll);
    dial("127.0.0.1", port_of(listener));
    SAME(next(epoll, 5000).data.u64, 6);
}

CASE(between_bind_and_connect) {
    int epoll = OK(epoll_create1(0)), listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(BIND(client, "127.0.0.1", 0));
    OK(add(epoll, client, EPOLLOUT, 7));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    struct epoll_event event = next(epoll, 5000);
    SAME(event.events, EPOLLOUT);
    SAME(event.data.u64, 7);
}

CASE(after_a_refused_connect) {
    int epoll = OK(epoll_create1(0)), listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(add(epoll, client, EPOLLOUT, 7));
    FAILS(CONNECT(client, "127.0.0.1", 9), ECONNREFUSED);
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    SAME(next(epoll, 5000).events, EPOLLOUT);
    OK(epoll_ctl(epoll, EPOLL_CTL_DEL, client, 0));
}

CASE(added_in_the_parent_connected_in_the_child) {
    int epoll = OK(epoll_create1(0)), listener = listening("127.0.0.1", 0), client = tcp("127.0.0.1");
    OK(add(epoll, client, EPOLLOUT, 5));
    end_well(IN_CHILD({
        OK(CONNECT(client, "127.0.0.1", port_of(listener)));
        struct epoll_event event = next(epoll, 5000);
        SAME(event.events, EPOLLOUT);
        SAME(event.data.u64, 5);
    }));
}

CASE(numbers_used_again) {
    int epoll = OK(epoll_create1(0)), listener = listening("127.0.0.1", 0), port = port_of(listener);
    meet("127.0.0.1", port, listener);
    for (unsigned i = 0; i < 300; i++) {
        int client = tcp("127.0.0.1");
        OK(add(epoll, client, EPOLLOUT | EPOLLIN, i));
        OK(CONNECT(client, "127.0.0.1", port));
        SAME(next(epoll, 5000).data.u64, i);
        close(OK(accept(listener, 0, 0)));
        close(client);
        nothing_more(epoll);
    }
}

CASE(many_sets_come_and_go) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    for (unsigned i = 0; i < 200; i++) {
        int epoll = OK(epoll_create1(0)), pad = OK(dup(0)), client = tcp("127.0.0.1");
        OK(add(epoll, client, EPOLLOUT, i));
        OK(CONNECT(client, "127.0.0.1", port));
        SAME(next(epoll, 5000).data.u64, i);
        OK(epoll_ctl(epoll, EPOLL_CTL_DEL, client, 0));
        close(client);
        if (i % 3) close(epoll);
        close(pad);
        close(OK(accept(listener, 0, 0)));
    }
}

CASE(of_a_bad_descriptor) {
    int epoll = OK(epoll_create1(0)), client = tcp("127.0.0.1");
    FAILS(add(epoll, -1, EPOLLIN, 0), EBADF);
    FAILS(add(-1, client, EPOLLIN, 0), EBADF);
    FAILS(add(client, client, EPOLLIN, 0), EINVAL);
    FAILS(modify(epoll, client, EPOLLIN, 0), ENOENT);
    FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, client, 0), EFAULT);
    FAILS(epoll_ctl(epoll, 99, client, &(struct epoll_event){0}), EINVAL);
    FAILS(add(epoll, OK(open("/etc/passwd", O_RDONLY)), EPOLLIN, 0), EPERM);
}

CASE(of_pipes_and_pairs) {
    int epoll = OK(epoll_create1(0)), ends[2], pair[2];
    OK(pipe(ends));
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    OK(add(epoll, ends[0], EPOLLIN, 1));
    OK(add(epoll, pair[0], EPOLLIN, 2));
    SAME(write(pair[1], "x", 1), 1);
    SAME(next(epoll, 5000).data.u64, 2);
}

CASE(poll_tells_of_the_end) {
    struct pair pair = connected("127.0.0.1");
    SAME(events_of(pair.server, POLLIN | POLLOUT, 0), POLLOUT);
    SAME(write(pair.client, "x", 1), 1);
    SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
    OK(shutdown(pair.client, SHUT_WR));
    SAME(events_of(pair.server, POLLIN | POLLRDHUP, 5000), POLLIN | POLLRDHUP);
    char got[4];
    SAME(read(pair.server, got, sizeof got), 1);
    SAME(read(pair.server, got, sizeof got), 0);
}

CASE(select_works_on_all_three) {
    struct pair pair = connected("127.0.0.1");
    dial("127.0.0.1", port_of(pair.listener));
    SAME(write(pair.client, "x", 1), 1);
    SAME(events_of(pair.server, POLLIN, 5000), POLLIN);
    fd_set readable, writable;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_SET(pair.listener, &readable);
    FD_SET(pair.server, &readable);
    FD_SET(pair.client, &readable);
    FD_SET(pair.client, &writable);
    SAME(select(1000, &readable, &writable, 0, &(struct timeval){5, 0}), 3);
    CHECK(FD_ISSET(pair.listener, &readable));
    CHECK(FD_ISSET(pair.server, &readable));
    CHECK(!FD_ISSET(pair.client, &readable));
    CHECK(FD_ISSET(pair.client, &writable));
}
