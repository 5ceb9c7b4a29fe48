/* poll, select and epoll of UDP sockets: a registration holds, whatever bind, connect and a first send do. */
#include <sys/select.h>

#include "udp.h"

static int add(int epoll, int fd, uint32_t events, uint64_t data) {
    struct epoll_event event = {.events = events, .data.u64 = data};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* The one event that is there, or one with no events. */
static struct epoll_event next(int epoll, int patience) {
    struct epoll_event events[4] = {0};
    int count = OK(epoll_wait(epoll, events, 4, patience));
    if (count > 1) fail("%d events at once", count);
    return events[0];
}

CASE(poll_tells_of_a_datagram) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    SAME(events_of(server, POLLIN | POLLOUT, 0), POLLOUT);
    SAME(events_of(client, POLLIN | POLLOUT, 0), POLLOUT);
    put(client, "one", &to);
    put(client, "two", &to);
    SAME(events_of(server, POLLIN | POLLOUT, 5000), POLLIN | POLLOUT);
    take(server, "one");
    SAME(events_of(server, POLLIN, 5000), POLLIN);
    take(server, "two");
    SAME(events_of(server, POLLIN, 0), 0);
}

CASE(select_tells_of_a_datagram) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    put(client, "one", &to);
    fd_set readable;
    FD_ZERO(&readable);
    FD_SET(server, &readable);
    FD_SET(client, &readable);
    SAME(select((server > client ? server : client) + 1, &readable, 0, 0, &(struct timeval){.tv_sec = 5}), 1);
    CHECK(FD_ISSET(server, &readable));
    take(server, "one");
}

/* A client in an epoll set before it has any name. */
static void before(uint32_t flags, int how) {
    int epoll = OK(epoll_create1(0)), server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    OK(add(epoll, client, EPOLLIN | flags, 0x123456789abcdef0));
    SAME(next(epoll, 0).events, 0);
    if (how == 1) OK(BIND(client, "127.0.0.1", 0));
    if (how == 2) OK(connect(client, &to.any, to.size));
    for (int i = 0; i < 3; i++) {
        put(client, "ask", how == 2 ? 0 : &to);
        struct address from = take(server, "ask");
        put(server, "tell", &from);
        struct epoll_event event = next(epoll, 5000);
        SAME(event.events, EPOLLIN);
        SAME(event.data.u64, 0x123456789abcdef0);
        if (flags & (EPOLLET | EPOLLONESHOT))
            SAME(next(epoll, 0).events, 0); /* told once */
        else
            SAME(next(epoll, 0).events, EPOLLIN);
        take(client, "tell");
        if (flags & EPOLLONESHOT) {
            struct epoll_event again = {.events = EPOLLIN | flags, .data.u64 = 0x123456789abcdef0};
            OK(epoll_ctl(epoll, EPOLL_CTL_MOD, client, &again));
        }
        SAME(next(epoll, 0).events, 0);
    }
    OK(epoll_ctl(epoll, EPOLL_CTL_DEL, client, 0));
    FAILS(epoll_ctl(epoll, EPOLL_CTL_DEL, client, 0), ENOENT);
}

CASE(level_before_the_first_send) {
    before(0, 0);
}

CASE(level_before_bind) {
    before(0, 1);
}

CASE(level_before_connect) {
    before(0, 2);
}

CASE(edge_before_the_first_send) {
    before(EPOLLET, 0);
}

CASE(edge_before_bind) {
    before(EPOLLET, 1);
}

CASE(edge_before_connect) {
    before(EPOLLET, 2);
}

CASE(one_shot_before_connect) {
    before(EPOLLONESHOT, 2);
}

CASE(each_datagram_is_an_edge) {
    int epoll = OK(epoll_create1(0)), server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server));
    OK(add(epoll, server, EPOLLIN | EPOLLET, 1));
    for (int i = 0; i < 5; i++) {
        put(client, "x", 0);
        SAME(next(epoll, 5000).events, EPOLLIN);
        SAME(next(epoll, 0).events, 0);
    }
    for (int i = 0; i < 5; i++) take(server, "x");
}

CASE(an_error_is_an_event) {
    int epoll = OK(epoll_create1(0)), client = udp("127.0.0.1");
    OK(add(epoll, client, EPOLLIN, 7));
    OK(CONNECT(client, "127.0.0.1", port_of_nobody("127.0.0.1")));
    put(client, "anyone?", 0);
    struct epoll_event event = next(epoll, 5000);
    CHECK(event.events & EPOLLERR);
    SAME(event.data.u64, 7);
    SAME(option(client, SOL_SOCKET, SO_ERROR), ECONNREFUSED);
    SAME(next(epoll, 0).events, 0);
}

CASE(two_sets_and_a_dup) {
    int one = OK(epoll_create1(0)), other = OK(epoll_create1(0)), server = bound("127.0.0.1", 0);
    int client = udp("127.0.0.1"), copy = OK(dup(client));
    struct address to = name_of(server);
    OK(add(one, client, EPOLLIN, 1));
    OK(add(other, copy, EPOLLIN, 2));
    OK(connect(client, &to.any, to.size));
    put(client, "ask", 0);
    struct address from = take(server, "ask");
    put(server, "tell", &from);
    SAME(next(one, 5000).data.u64, 1);
    SAME(next(other, 5000).data.u64, 2);
    take(copy, "tell");
    close(client);
    close(copy);
    SAME(next(one, 0).events, 0);
}

CASE(both_ways_at_once) {
    int epoll = OK(epoll_create1(0)), server = bound(VIP, 0), clients[10], heard = 0;
    struct address to = name_of(server);
    OK(add(epoll, server, EPOLLIN, 100));
    for (int i = 0; i < 10; i++) {
        clients[i] = udp(VIP);
        OK(add(epoll, clients[i], EPOLLIN, (uint64_t)i));
        put(clients[i], "ask", &to);
    }
    while (heard < 10) {
        struct epoll_event events[11];
        int count = OK(epoll_wait(epoll, events, 11, 5000));
        CHECK(count > 0);
        for (int i = 0; i < count; i++) {
            int who = (int)events[i].data.u64;
            struct address from = take(who == 100 ? server : clients[who], who == 100 ? "ask" : "tell");
            if (who == 100)
                put(server, "tell", &from);
            else
                heard++;
        }
    }
}

static int caught;

static void count(int signal) {
    (void)signal;
    caught++;
}

CASE(a_signal_on_a_datagram) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    sigset_t io, none;
    sigemptyset(&io);
    sigemptyset(&none);
    sigaddset(&io, SIGIO);
    sigprocmask(SIG_BLOCK, &io, 0);
    signal(SIGIO, count);
    OK(fcntl(server, F_SETOWN, getpid()));
    OK(fcntl(server, F_SETFL, O_ASYNC | O_NONBLOCK));
    put(client, "hello", &to);
    while (!caught) sigsuspend(&none);
    take(server, "hello");
}

static void interrupt(int signal) {
    (void)signal;
}

CASE(a_signal_ends_a_wait) {
    int server = bound("127.0.0.1", 0);
    struct sigaction action = {.sa_handler = interrupt}; /* without SA_RESTART */
    char byte;
    OK(sigaction(SIGUSR1, &action, 0));
    pid_t parent = getpid(), child = IN_CHILD(for (;;) {
                                 usleep(20000);
                                 if (kill(parent, SIGUSR1)) break;
                             });
    FAILS(recv(server, &byte, 1, 0), EINTR);
    kill(child, SIGKILL);
}
