/* Signals that come while a call is under way, and calls from a signal handler. */
#include <sys/time.h>

#include "test.h"

static volatile sig_atomic_t signals;

static void count(int number) {
    (void)number;
    signals++;
}

static void every(long microseconds, int flags) {
    struct sigaction action = {.sa_handler = count, .sa_flags = flags};
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    OK(sigaction(SIGALRM, &action, 0));
    OK(setitimer(ITIMER_REAL, &timer, 0));
}

CASE(accept_is_interrupted) {
    int listener = listening("127.0.0.1", 0);
    every(20000, 0);
    FAILS(accept(listener, 0, 0), EINTR);
    FAILS(accept4(listener, 0, 0, SOCK_CLOEXEC), EINTR);
    CHECK(signals >= 2);
}

CASE(accept_is_restarted) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), ready[2];
    OK(pipe(ready));
    pid_t child = IN_CHILD({
        char byte;
        SAME(read(ready[0], &byte, 1), 1);
        dial("127.0.0.1", port);
    });
    every(5000, SA_RESTART);
    while (signals < 2) pause();
    SAME(write(ready[1], "x", 1), 1);
    OK(accept(listener, 0, 0));
    end_well(child);
}

/* The answers of the trap handler must not be mixed up by signals: hundreds of calls under a storm of them. */
CASE(calls_under_a_storm_of_signals) {
    every(100, SA_RESTART);
    for (int i = 0; i < 100; i++) {
        struct pair pair = {.listener = listening("127.0.0.1", 0)};
        int port = port_of(pair.listener);
        for (int k = 0; k < 3; k++) {
            pair.client = dial("127.0.0.1", port);
            pair.server = OK(accept(pair.listener, 0, 0));
            talk(pair.client, pair.server);
            close(pair.client);
            close(pair.server);
        }
        close(pair.listener);
    }
    CHECK(signals > 10);
}

CASE(refusals_under_a_storm_of_signals) {
    every(100, 0);
    for (int i = 0; i < 200; i++) {
        int client = tcp("127.0.0.1");
        SAME(CONNECT(client, "127.0.0.1", 9), -1);
        CHECK(errno == ECONNREFUSED || errno == EINTR);
        close(client);
    }
}

static int served_port;

static void connect_in_handler(int number) {
    (void)number;
    int saved = errno, fd = socket(AF_INET, SOCK_STREAM, 0);
    CONNECT(fd, "127.0.0.1", served_port);
    struct address name = {.size = sizeof name.storage};
    getsockname(fd, &name.any, &name.size);
    close(fd);
    signals++;
    errno = saved;
}

/* Every call is async-signal-safe, as POSIX says of the real ones (signal-safety(7)). */
CASE(calls_from_a_handler) {
    int listener = listening("127.0.0.1", 0), mine = listening("127.0.0.1", 0), port = port_of(mine);
    served_port = port_of(listener);
    OK(fcntl(listener, F_SETFL, O_NONBLOCK));
    every(1000, SA_RESTART);
    struct sigaction action = {.sa_handler = connect_in_handler, .sa_flags = SA_RESTART};
    OK(sigaction(SIGALRM, &action, 0));
    while (signals < 30) {
        meet("127.0.0.1", port, mine);
        for (int fd; (fd = accept(listener, 0, 0)) >= 0;) close(fd);
    }
}

/* EPIPE comes with SIGPIPE unless asked otherwise. */
CASE(a_broken_pipe) {
    struct sigaction action = {.sa_handler = count};
    OK(sigaction(SIGPIPE, &action, 0));
    struct pair pair = connected("127.0.0.1");
    OK(shutdown(pair.client, SHUT_WR));
    FAILS(write(pair.client, "x", 1), EPIPE);
    SAME(signals, 1);
    FAILS(send(pair.client, "x", 1, MSG_NOSIGNAL), EPIPE);
    SAME(signals, 1);
    FAILS(sendto(pair.client, "x", 1, 0, 0, 0), EPIPE);
    SAME(signals, 2);
}

CASE(a_send_after_the_other_end_has_closed) {
    struct sigaction action = {.sa_handler = count};
    OK(sigaction(SIGPIPE, &action, 0));
    struct pair pair = connected("127.0.0.1");
    close(pair.server);
    SAME(send(pair.client, "x", 1, 0), 1);
    SAME(signals, 0);
    CHECK(events_of(pair.client, 0, 5000) & POLLHUP);
    FAILS(send(pair.client, "x", 1, MSG_NOSIGNAL), EPIPE);
    SAME(signals, 0);
    FAILS(send(pair.client, "x", 1, 0), EPIPE);
    SAME(signals, 1);
}
