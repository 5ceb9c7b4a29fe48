/* A UDP socket in more than one place: dup, fork, exec, SCM_RIGHTS, threads. */
#include <pthread.h>

#include "udp.h"

CASE(dup_of_a_socket) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1"), copy = OK(dup(client));
    struct address to = name_of(server);
    chat(client, server, &to);
    SAME(port_of(copy), port_of(client));
    OK(connect(copy, &to.any, to.size)); /* one socket: both are connected */
    struct address peer = peer_of(client);
    TEXT(show(&peer), show(&to));
    close(client);
    chat(copy, server, &to);
    int high = OK(fcntl(copy, F_DUPFD, 700)), low = OK(dup2(server, 300));
    close(copy);
    close(server);
    chat(high, low, &to);
}

CASE(dup_before_bind) {
    int fd = udp("127.0.0.1"), copy = OK(dup(fd)), client = udp("127.0.0.1");
    OK(BIND(fd, "127.0.0.1", 0));
    struct address name = name_of(copy);
    TEXT(ip_of(&name), "127.0.0.1");
    SAME(port_in(&name), port_of(fd));
    close(fd);
    chat(client, copy, &name);
}

CASE(the_parent_binds_the_child_serves) {
    int server = bound("0.0.0.0", 5501), client = udp(VIP);
    struct address to = at(VIP, 5501);
    pid_t child = IN_CHILD(for (int i = 0; i < 3; i++) {
        struct address from = take(server, "ask");
        TEXT(ip_of(&from), VIP);
        put(server, "tell", &from);
    });
    for (int i = 0; i < 3; i++) {
        put(client, "ask", &to);
        struct address from = take(client, "tell");
        TEXT(show(&from), show(&to));
    }
    end_well(child);
    chat(client, server, &to);
}

CASE(children_that_send) {
    int server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server)), own = port_of(client);
    struct address to = name_of(server);
    for (int i = 0; i < 10; i++) {
        end_well(IN_CHILD(put(client, "shared", 0)));
        struct address from = take(server, "shared");
        SAME(port_in(&from), own);
    }
    for (int i = 0; i < 10; i++) {
        end_well(IN_CHILD(put(udp("127.0.0.1"), "its own", &to)));
        struct address from = take(server, "its own");
        CHECK(port_in(&from) != own);
    }
    put(client, "as before", 0);
    take(server, "as before");
}

CASE(a_childs_end_does_not_hurt) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    chat(client, server, &to);
    end_well(IN_CHILD({
        close(server);
        close(client);
    }));
    chat(client, server, &to);
}

CASE(a_child_connects_the_parents_socket) {
    int server = bound("127.0.0.1", 0), fd = udp("127.0.0.1");
    struct address to = name_of(server);
    end_well(IN_CHILD(OK(connect(fd, &to.any, to.size))));
    struct address peer = peer_of(fd);
    TEXT(show(&peer), show(&to));
    put(fd, "hello", 0);
    take(server, "hello");
}

CASE(a_vfork_child_sends) {
    int server = bound("127.0.0.1", 0), client = udp("127.0.0.1");
    struct address to = name_of(server);
    chat(client, server, &to);
    for (int i = 0; i < 5; i++) {
        pid_t child = vfork();
        if (child == 0) _exit(sendto(client, "vfork", 5, 0, &to.any, to.size) != 5);
        end_well(OK(child));
        take(server, "vfork");
        chat(client, server, &to);
    }
}

CASE(passed_to_another_process) {
    int channel[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    pid_t child = IN_CHILD({
        int server = receive_passed(channel[1]);
        int client = receive_passed(channel[1]);
        struct address peer = peer_of(client);
        SAME(port_in(&peer), port_of(server));
        struct address from = take(server, "ask");
        put(server, "tell", &from);
        put(client, "passed", 0);
        take(server, "passed");
    });
    int server = bound("127.0.0.1", 0), client = toward("127.0.0.1", port_of(server)), other = udp("127.0.0.1");
    struct address to = name_of(server);
    put(other, "ask", &to);
    pass(channel[0], server);
    pass(channel[0], client);
    close(server);
    close(client);
    struct address from = take(other, "tell");
    TEXT(show(&from), show(&to));
    end_well(child);
}

/* As inetd starts a "wait" service: the socket is its standard input. */
CASE(an_executed_child_has_it) {
    int server = bound("0.0.0.0", 5502), client = udp(VIP);
    struct address to = at(VIP, 5502);
    put(client, "ask", &to);
    SAME(events_of(server, POLLIN, 5000), POLLIN);
    pid_t child = OK(fork());
    if (child == 0) {
        OK(dup2(server, 0));
        execl("/proc/self/exe", "self", "--serve", (char *)0);
        fail("exec: %s", strerror(errno));
    }
    struct address from = take(client, "executed");
    TEXT(show(&from), show(&to));
    end_well(child);
    chat(client, server, &to);
}

CASE(close_on_exec_closes) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), server = bound("127.0.0.1", 0);
    struct address to = name_of(server);
    OK(BIND(fd, "127.0.0.1", 0));
    OK(connect(fd, &to.any, to.size));
    SAME(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    pid_t child = OK(fork());
    if (child == 0) {
        char number[12];
        snprintf(number, sizeof number, "%d", fd);
        execl("/proc/self/exe", "self", "--have-not", number, (char *)0);
        fail("exec: %s", strerror(errno));
    }
    end_well(child);
    chat(fd, server, &to);
}

__attribute__((constructor)) static void be_the_executed_child(void) {
    char line[200] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t size = read(fd, line, sizeof line - 1);
    close(fd);
    const char *role = line + strlen(line) + 1;
    if (size <= 0) return;
    if (!strcmp(role, "--serve")) {
        struct address name = name_of(0), from = take(0, "ask");
        TEXT(show(&name), "0.0.0.0:5502");
        put(0, "executed", &from);
        exit(0);
    }
    if (!strcmp(role, "--have-not")) {
        FAILS(fcntl(atoi(role + strlen(role) + 1), F_GETFD), EBADF);
        exit(0);
    }
}

/* The next socket under a number has nothing of the last one. */
CASE(a_number_that_is_used_again) {
    int server = bound("127.0.0.1", 0);
    struct address to = name_of(server), peer = {.size = sizeof peer.storage};
    for (int i = 0; i < 50; i++) {
        int one = toward("127.0.0.1", port_in(&to));
        put(one, "x", 0);
        take(server, "x");
        close(one);
        int other = udp("127.0.0.1");
        SAME(other, one);
        FAILS(getpeername(other, &peer.any, &peer.size), ENOTCONN);
        SAME(port_of(other), 0);
        FAILS(send(other, "x", 1, 0), EDESTADDRREQ);
        close(other);
        int stream = tcp("127.0.0.1");
        SAME(stream, one);
        FAILS(CONNECT(stream, "127.0.0.1", port_in(&to)), ECONNREFUSED);
        close(stream);
    }
}

enum { THREADS = 16, EACH = 200 };

static int shared;
static struct address shared_to;
static pthread_barrier_t together;

static void *send_many(void *number) {
    pthread_barrier_wait(&together);
    for (int i = 0; i < EACH; i++) {
        char text[32];
        snprintf(text, sizeof text, "%ld %d", (long)number, i);
        put(shared, text, i % 2 ? &shared_to : 0);
        if (i % 50 == 0) {
            struct address peer = peer_of(shared);
            TEXT(show(&peer), show(&shared_to));
        }
    }
    return 0;
}

CASE(threads_send_at_once) {
    pthread_t threads[THREADS];
    int server = bound("127.0.0.1", 0), seen[THREADS] = {0}, came = 0;
    OK(set(server, SOL_SOCKET, SO_RCVBUF, 4 << 20));
    shared = toward("127.0.0.1", port_of(server));
    shared_to = name_of(server);
    struct address own = name_of(shared);
    pthread_barrier_init(&together, 0, THREADS);
    for (long i = 0; i < THREADS; i++) SAME(pthread_create(&threads[i], 0, send_many, (void *)i), 0);
    while (events_of(server, POLLIN, 1000)) {
        char text[32] = "";
        struct address from = {.size = sizeof from.storage};
        int number, turn;
        OK(recvfrom(server, text, sizeof text - 1, 0, &from.any, &from.size));
        SAME(sscanf(text, "%d %d", &number, &turn), 2);
        CHECK(turn >= seen[number]); /* a thread's own stay in order */
        seen[number] = turn;
        TEXT(show(&from), show(&own));
        if (++came == THREADS * EACH) break;
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
    CHECK(came > THREADS * EACH / 2); /* it may lose some */
}

static void *first_send(void *unused) {
    (void)unused;
    pthread_barrier_wait(&together);
    put(shared, "first", &shared_to);
    return 0;
}

/* They must agree on one port. */
CASE(threads_send_first_at_once) {
    int server = bound("127.0.0.1", 0);
    shared_to = name_of(server);
    for (int round = 0; round < 20; round++) {
        pthread_t threads[8];
        shared = udp("127.0.0.1");
        pthread_barrier_init(&together, 0, 8);
        for (int i = 0; i < 8; i++) SAME(pthread_create(&threads[i], 0, first_send, 0), 0);
        for (int i = 0; i < 8; i++) pthread_join(threads[i], 0);
        for (int i = 0; i < 8; i++) {
            struct address from = take(server, "first");
            SAME(port_in(&from), port_of(shared));
        }
        close(shared);
    }
}

static void *own_socket(void *unused) {
    (void)unused;
    pthread_barrier_wait(&together);
    for (int i = 0; i < 20; i++) {
        int client = udp("127.0.0.1");
        put(client, "ask", &shared_to);
        take(client, "tell");
        OK(connect(client, &shared_to.any, shared_to.size));
        put(client, "ask", 0);
        take(client, "tell");
        close(client);
    }
    return 0;
}

CASE(threads_with_sockets_of_their_own) {
    pthread_t threads[THREADS];
    int server = bound("127.0.0.1", 0);
    shared_to = name_of(server);
    pthread_barrier_init(&together, 0, THREADS);
    for (int i = 0; i < THREADS; i++) SAME(pthread_create(&threads[i], 0, own_socket, 0), 0);
    for (int i = 0; i < THREADS * 40; i++) {
        struct address from = take(server, "ask");
        put(server, "tell", &from);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], 0);
}

/* One thread reads all the time, others send. */
static void *answer_all(void *fd) {
    for (;;) {
        char text[16] = "";
        struct address from = {.size = sizeof from.storage};
        int size = OK(recvfrom(*(int *)fd, text, sizeof text, 0, &from.any, &from.size));
        if (size == 0) return 0;
        SAME(sendto(*(int *)fd, text, (size_t)size, 0, &from.any, from.size), size);
    }
}

CASE(a_thread_that_answers) {
    int server = bound("0.0.0.0", 0), client = udp(VIP);
    struct address to = at(VIP, port_of(server));
    pthread_t thread;
    SAME(pthread_create(&thread, 0, answer_all, &server), 0);
    for (int i = 0; i < 500; i++) {
        put(client, "ping", &to);
        take(client, "ping");
    }
    put(client, "", &to);
    pthread_join(thread, 0);
}
