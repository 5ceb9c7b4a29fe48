/* Programs that close descriptors which are not theirs: ours. */
#include "test.h"

/* The C library has it since 2.34; musl has not. */
static int close_all(unsigned first, unsigned last) {
    return (int)syscall(436 /* SYS_close_range */, first, last, 0);
}

static void loop(int first, int last, int but) {
    for (int fd = first; fd <= last; fd++)
        if (fd != but) close(fd);
}

CASE(everything_between_calls) {
    for (int i = 0; i < 8; i++) {
        loop(3, 1100, -1);
        int listener = listening("127.0.0.1", 0);
        loop(3, 1100, listener);
        int port = port_of(listener), client = dial("127.0.0.1", port), server = OK(accept(listener, 0, 0));
        talk(client, server);
    }
}

CASE(everything_between_connects_to_one_place) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    for (int i = 0; i < 12; i++) {
        loop(3, 1100, listener);
        int client = dial("127.0.0.1", port), server = OK(accept(listener, 0, 0));
        talk(client, server);
    }
}

CASE(everything_by_close_range) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), high = OK(dup2(listener, 2));
    for (int i = 0; i < 12; i++) {
        OK(close_all(3, ~0u));
        int client = dial("127.0.0.1", port), server = OK(accept(high, 0, 0));
        talk(client, server);
    }
}

CASE(everything_in_a_forked_child) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    meet("127.0.0.1", port, listener);
    end_well(IN_CHILD({
        OK(close_all(3, ~0u));
        for (int i = 0; i < 4; i++) close(dial("127.0.0.1", port));
    }));
    for (int i = 0; i < 4; i++) close(OK(accept(listener, 0, 0)));
    meet("127.0.0.1", port, listener);
}

/* Our numbers come to name files of the program's own: they must neither be used nor closed. */
CASE(our_numbers_taken_by_its_own_files) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), ends[2];
    meet("127.0.0.1", port, listener);
    OK(pipe(ends));
    for (int fd = 900; fd < 1100; fd++) OK(dup2(ends[1], fd));
    for (int i = 0; i < 8; i++) meet("127.0.0.1", port, listener);
    listening("127.0.0.1", 0);
    for (int fd = 900; fd < 1100; fd++) SAME(write(fd, "x", 1), 1);
    struct pollfd pipe_end = {.fd = ends[0], .events = POLLIN};
    OK(poll(&pipe_end, 1, 0));
    char got[400];
    SAME(read(ends[0], got, sizeof got), 200);
    for (int i = 0; i < 200; i++) SAME(got[i], 'x'); /* nothing of ours went there */
}

CASE(our_numbers_taken_by_its_own_connections) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    meet("127.0.0.1", port, listener);
    int client = dial("127.0.0.1", port), server = OK(accept(listener, 0, 0));
    for (int fd = 900; fd < 1100; fd++) OK(dup2(client, fd));
    for (int i = 0; i < 8; i++) meet("127.0.0.1", port, listener);
    talk(1000, server);
    talk(1050, server);
}

CASE(our_numbers_taken_by_its_own_listener) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), other = listening("127.0.0.1", 0);
    meet("127.0.0.1", port, listener);
    for (int fd = 900; fd < 1100; fd++) OK(dup2(other, fd));
    for (int i = 0; i < 8; i++) meet("127.0.0.1", port, listener); /* no connection goes to the other one */
    OK(fcntl(other, F_SETFL, O_NONBLOCK));
    FAILS(accept(other, 0, 0), EAGAIN);
}

CASE(the_server_goes_and_comes_back) {
    int listener = listening("127.0.0.1", 6001);
    meet("127.0.0.1", 6001, listener);
    for (int i = 0; i < 5; i++) {
        close(listener);
        FAILS(CONNECT(tcp("127.0.0.1"), "127.0.0.1", 6001), ECONNREFUSED);
        listener = tcp("127.0.0.1");
        OK(set(listener, SOL_SOCKET, SO_REUSEADDR, 1));
        OK(BIND(listener, "127.0.0.1", 6001));
        OK(listen(listener, 64));
        meet("127.0.0.1", 6001, listener);
    }
}

CASE(descriptors_run_out) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), last = -1, fd;
    meet("127.0.0.1", port, listener);
    while ((fd = dup(0)) >= 0) last = fd;
    SAME(errno, EMFILE);
    close(last);
    int client = tcp("127.0.0.1");
    SAME(client, last);
    CONNECT(client, "127.0.0.1", port); /* may fail: it needs a second one for a moment; but nothing breaks */
    for (fd = 10; fd < 20; fd++) close(fd);
    close(client);
    OK(fcntl(listener, F_SETFL, O_NONBLOCK));
    while ((fd = accept(listener, 0, 0)) >= 0) close(fd);
    OK(fcntl(listener, F_SETFL, 0));
    meet("127.0.0.1", port, listener);
}

CASE(a_small_limit) {
    struct {
        unsigned long now, most;
    } limit = {32, 4096};
    OK(syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, &limit, 0));
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    for (int i = 0; i < 4; i++) meet("127.0.0.1", port, listener);
    int first = OK(dup(0)), last = first, fd;
    while ((fd = dup(0)) >= 0) last = fd;
    CHECK(last - first >= 12); /* most of them are the program's */
}
