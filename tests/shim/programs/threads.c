/* Threads that all call at once. */
#include <pthread.h>

#include "test.h"

enum { THREADS = 200 };

static int listener, port;
static pthread_barrier_t together;

static void *connect_at_once(void *unused) {
    (void)unused;
    pthread_barrier_wait(&together);
    for (int i = 0; i < 3; i++) {
        int client = dial("127.0.0.1", port);
        char text[32], got[32] = "";
        snprintf(text, sizeof text, "%08d", port_of(client));
        SAME(write(client, text, 8), 8);
        SAME(recv(client, got, 8, MSG_WAITALL), 8);
        TEXT(got, text);
        close(client);
    }
    return 0;
}

static void *serve(void *unused) {
    (void)unused;
    for (int i = 0; i < 3 * THREADS; i++) {
        struct address from = {.size = sizeof from.storage};
        char got[32] = "";
        int server = OK(accept(listener, &from.any, &from.size));
        SAME(recv(server, got, 8, MSG_WAITALL), 8);
        SAME(atoi(got), port_in(&from)); /* each got its own connection */
        SAME(write(server, got, 8), 8);
        close(server);
    }
    return 0;
}

static pthread_t start(void *(*run)(void *), void *argument) {
    pthread_t thread;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 131072);
    SAME(pthread_create(&thread, &small, run, argument), 0);
    return thread;
}

CASE(connect_at_once_200) {
    pthread_t threads[THREADS];
    listener = listening("127.0.0.1", 0);
    OK(listen(listener, 1000));
    port = port_of(listener);
    pthread_barrier_init(&together, 0, THREADS);
    pthread_t server = start(serve, 0);
    for (int i = 0; i < THREADS; i++) threads[i] = start(connect_at_once, 0);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
    pthread_join(server, 0);
}

static void *listen_and_dial(void *unused) {
    (void)unused;
    pthread_barrier_wait(&together);
    for (int i = 0; i < 3; i++) {
        int own = listening("127.0.0.1", 0), own_port = port_of(own);
        meet("127.0.0.1", own_port, own);
        close(own);
    }
    return 0;
}

CASE(bind_and_connect_at_once_50) {
    pthread_t threads[50];
    pthread_barrier_init(&together, 0, 50);
    for (int i = 0; i < 50; i++) threads[i] = start(listen_and_dial, 0);
    for (int i = 0; i < 50; i++) pthread_join(threads[i], 0);
}

static void *fill_options(void *unused) {
    (void)unused;
    pthread_barrier_wait(&together);
    for (int i = 0; i < 30; i++) {
        int client = tcp("127.0.0.1");
        OK(set(client, IPPROTO_TCP, TCP_NODELAY, 1));
        OK(CONNECT(client, "127.0.0.1", port));
        SAME(option(client, IPPROTO_TCP, TCP_NODELAY), 1);
        OK(set(client, IPPROTO_TCP, TCP_NODELAY, 0));
        SAME(option(client, IPPROTO_TCP, TCP_NODELAY), 0);
        close(client);
    }
    return 0;
}

static void *take_all(void *unused) {
    (void)unused;
    for (int i = 0; i < 20 * 30; i++) close(OK(accept(listener, 0, 0)));
    return 0;
}

CASE(options_at_once_20) {
    pthread_t threads[20];
    listener = listening("127.0.0.1", 0);
    OK(listen(listener, 1000));
    port = port_of(listener);
    pthread_barrier_init(&together, 0, 20);
    pthread_t taker = start(take_all, 0);
    for (int i = 0; i < 20; i++) threads[i] = start(fill_options, 0);
    for (int i = 0; i < 20; i++) pthread_join(threads[i], 0);
    pthread_join(taker, 0);
}

static void *connect_1000_times(void *unused) {
    (void)unused;
    for (int i = 0; i < 1000; i++) close(dial("127.0.0.1", port));
    return 0;
}

static void *accept_4000_times(void *unused) {
    (void)unused;
    for (int i = 0; i < 4000; i++) close(OK(accept(listener, 0, 0)));
    return 0;
}

/* A lock held by another thread at the moment of a fork stays locked in the child for ever (git-annex and nocache). */
CASE(a_fork_while_other_threads_connect) {
    pthread_t threads[4];
    listener = listening("127.0.0.1", 0);
    OK(listen(listener, 4096));
    port = port_of(listener);
    int mine = listening("127.0.0.1", 0), my_port = port_of(mine);
    for (int i = 0; i < 4; i++) threads[i] = start(connect_1000_times, 0);
    pthread_t taker = start(accept_4000_times, 0);
    for (int i = 0; i < 50; i++) {
        pid_t child = IN_CHILD({
            close(dial("127.0.0.1", my_port));
            close(listening("127.0.0.1", 0));
        });
        close(OK(accept(mine, 0, 0)));
        end_well(child);
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    pthread_join(taker, 0);
}

/* Several threads wait in accept of one listener; each connection wakes one. */
static int taken[4];

static void *take_some(void *which) {
    for (int i = 0; i < 5; i++) {
        int server = OK(accept(listener, 0, 0));
        SAME(write(server, "x", 1), 1);
        close(server);
        taken[*(int *)which]++;
    }
    return 0;
}

CASE(several_threads_accept) {
    static int number[4] = {0, 1, 2, 3};
    pthread_t threads[4];
    listener = listening("127.0.0.1", 0);
    for (int i = 0; i < 4; i++) threads[i] = start(take_some, &number[i]);
    for (int i = 0; i < 20; i++) {
        char byte;
        int client = dial("127.0.0.1", port_of(listener));
        SAME(read(client, &byte, 1), 1);
        close(client);
    }
    for (int i = 0; i < 4; i++) pthread_join(threads[i], 0);
    SAME(taken[0] + taken[1] + taken[2] + taken[3], 20);
}

static void *shut_down(void *unused) {
    (void)unused;
    char line[64], state = 0;
    snprintf(line, sizeof line, "/proc/%d/task/%d/stat", getpid(), getpid());
    while (state != 'S') { /* the main thread sleeps in accept */
        FILE *stat = fopen(line, "r");
        if (!stat || fscanf(stat, "%*d %*s %c", &state) != 1) state = 0;
        if (stat) fclose(stat);
    }
    OK(shutdown(listener, SHUT_RDWR));
    return 0;
}

CASE(a_shutdown_wakes_accept) {
    listener = listening("127.0.0.1", 0);
    pthread_t thread = start(shut_down, 0);
    FAILS(accept(listener, 0, 0), EINVAL);
    pthread_join(thread, 0);
    FAILS(CONNECT(tcp("127.0.0.1"), "127.0.0.1", port_of(listener)), ECONNREFUSED);
}
