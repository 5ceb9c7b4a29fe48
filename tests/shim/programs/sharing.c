/* Descriptors in more than one place: fork, dup, exec and SCM_RIGHTS. */
#include <sched.h>
#include <sys/uio.h>

#include "test.h"

/* The parent binds, the child accepts (uvicorn --reload, gunicorn, nginx). */
CASE(the_parent_binds_the_child_accepts) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    pid_t child = IN_CHILD({
        struct address got = {.size = sizeof got.storage};
        for (int i = 0; i < 4; i++) {
            int server = OK(accept(listener, &got.any, &got.size));
            TEXT(ip_of(&got), "127.0.0.1");
            SAME(port_of(server), port);
            SAME(write(server, "child", 5), 5);
            close(server);
        }
    });
    for (int i = 0; i < 4; i++) {
        char got[6] = "";
        int client = dial("127.0.0.1", port);
        SAME(recv(client, got, 5, MSG_WAITALL), 5);
        TEXT(got, "child");
        close(client);
    }
    end_well(child);
    meet("127.0.0.1", port, listener); /* the parent's listener is as good as ever */
}

CASE(the_parent_binds_the_child_listens) {
    int bound = tcp("127.0.0.1"), ready[2];
    OK(BIND(bound, "127.0.0.1", 0));
    OK(pipe(ready));
    pid_t child = IN_CHILD({
        OK(listen(bound, 5));
        SAME(write(ready[1], "x", 1), 1);
        int server = OK(accept(bound, 0, 0));
        SAME(write(server, "child", 5), 5);
    });
    char got[6] = "";
    SAME(read(ready[0], got, 1), 1);
    SAME(recv(dial("127.0.0.1", port_of(bound)), got, 5, MSG_WAITALL), 5);
    TEXT(got, "child");
    end_well(child);
}

CASE(a_childs_close_does_not_hurt_the_parent) {
    struct pair pair = connected("127.0.0.1");
    end_well(IN_CHILD({
        close(pair.listener);
        close(pair.client);
        close(pair.server);
    }));
    talk(pair.client, pair.server);
    meet("127.0.0.1", port_of(pair.listener), pair.listener);
}

CASE(a_childs_end_does_not_hurt_the_parent) {
    struct pair pair = connected("127.0.0.1");
    end_well(IN_CHILD(talk(pair.client, pair.server)));
    talk(pair.client, pair.server);
    meet("127.0.0.1", port_of(pair.listener), pair.listener);
}

CASE(a_child_sees_the_same_names) {
    struct pair pair = connected("127.0.0.1");
    struct address own = name_of(pair.client), peer = peer_of(pair.client);
    end_well(IN_CHILD({
        struct address own_there = name_of(pair.client);
        struct address peer_there = peer_of(pair.client);
        TEXT(show(&own_there), show(&own));
        TEXT(show(&peer_there), show(&peer));
        talk(pair.client, pair.server);
    }));
}

CASE(parent_and_children_connect) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    meet("127.0.0.1", port, listener);
    pid_t children[20];
    for (int i = 0; i < 20; i++) children[i] = IN_CHILD(for (int k = 0; k < 4; k++) close(dial("127.0.0.1", port)));
    for (int i = 0; i < 80; i++) close(OK(accept(listener, 0, 0)));
    for (int i = 0; i < 20; i++) end_well(children[i]);
    meet("127.0.0.1", port, listener);
}

CASE(fork_and_connect_200_times) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    meet("127.0.0.1", port, listener);
    for (int i = 0; i < 200; i++) {
        pid_t child = IN_CHILD({
            int client = dial("127.0.0.1", port);
            SAME(write(client, "x", 1), 1);
        });
        char byte;
        int server = OK(accept(listener, 0, 0));
        SAME(read(server, &byte, 1), 1);
        close(server);
        end_well(child);
    }
}

/* As shells and test-suites do: many at once, each only for a moment. */
CASE(a_storm_of_500_forks) {
    int listener = tcp("127.0.0.1");
    OK(BIND(listener, "127.0.0.1", 0));
    OK(listen(listener, 4096));
    for (int i = 0, port = port_of(listener); i < 500; i++)
        IN_CHILD(for (int k = 0; k < 2; k++) close(dial("127.0.0.1", port)));
    for (int i = 0; i < 1000; i++) close(OK(accept(listener, 0, 0)));
    for (int i = 0; i < 500; i++) end_well(-1);
}

/* Workers that each listen for themselves (nginx's reuseport, gunicorn --reuse-port): all of them get connections. */
CASE(four_workers_with_listeners_of_their_own) {
    enum { WORKERS = 4, CLIENTS = 200 };
    int first = tcp("127.0.0.1"), taken[WORKERS] = {0}, ready[2];
    OK(set(first, SOL_SOCKET, SO_REUSEPORT, 1));
    OK(BIND(first, "127.0.0.1", 0)); /* the master's, which never listens */
    int port = port_of(first);
    OK(pipe(ready));
    for (int i = 0; i < WORKERS; i++)
        IN_CHILD({
            int own = tcp("127.0.0.1");
            OK(set(own, SOL_SOCKET, SO_REUSEPORT, 1));
            OK(BIND(own, "127.0.0.1", port));
            OK(listen(own, CLIENTS));
            SAME(write(ready[1], "x", 1), 1);
            for (char who = (char)i;;) {
                int server = OK(accept(own, 0, 0));
                SAME(write(server, &who, 1), 1);
                close(server);
            }
        });
    for (int i = 0; i < WORKERS; i++) SAME(read(ready[0], &(char){0}, 1), 1);
    for (int i = 0; i < CLIENTS; i++) {
        char who;
        int client = dial("127.0.0.1", port);
        SAME(read(client, &who, 1), 1);
        taken[(int)who]++;
        close(client);
    }
    for (int i = 0; i < WORKERS; i++) CHECK(taken[i] > CLIENTS / WORKERS / 3);
}

CASE(grandchildren_connect) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    meet("127.0.0.1", port, listener);
    end_well(IN_CHILD({
        close(dial("127.0.0.1", port));
        end_well(IN_CHILD({
            close(dial("127.0.0.1", port));
            end_well(IN_CHILD(close(dial("127.0.0.1", port))));
        }));
        close(dial("127.0.0.1", port));
    }));
    for (int i = 0; i < 4; i++) close(OK(accept(listener, 0, 0)));
}

/* A vfork child shares its parent's memory. */
CASE(a_vfork_child_connects) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener);
    meet("127.0.0.1", port, listener);
    for (int i = 0; i < 5; i++) {
        struct address to = at("127.0.0.1", port);
        pid_t child = vfork();
        if (child == 0) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            _exit(fd < 0 ? 1 : connect(fd, &to.any, to.size) < 0 ? 2 : write(fd, "x", 1) != 1 ? 3 : 0);
        }
        end_well(OK(child));
        char byte;
        int server = OK(accept(listener, 0, 0));
        SAME(read(server, &byte, 1), 1);
        close(server);
        meet("127.0.0.1", port, listener);
    }
}

CASE(dup_of_a_connection) {
    struct pair pair = connected("127.0.0.1");
    struct address own = name_of(pair.client);
    int copy = OK(dup(pair.client)), second = OK(dup2(pair.server, 300)), third = OK(fcntl(pair.client, F_DUPFD, 400));
    close(pair.client);
    close(pair.server);
    struct address copied = name_of(copy), also = name_of(third);
    TEXT(show(&copied), show(&own));
    TEXT(show(&also), show(&own));
    talk(copy, second);
    talk(third, second);
}

CASE(dup_of_a_listener) {
    int listener = listening("127.0.0.1", 0), port = port_of(listener), copy = OK(dup(listener));
    close(listener);
    SAME(port_of(copy), port);
    meet("127.0.0.1", port, copy);
    close(copy);
    FAILS(CONNECT(tcp("127.0.0.1"), "127.0.0.1", port), ECONNREFUSED);
}

CASE(passed_to_another_process) {
    int channel[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    pid_t child = IN_CHILD({
        int client = receive_passed(channel[1]);
        int listener = receive_passed(channel[1]);
        struct address peer = peer_of(client);
        SAME(port_in(&peer), port_of(listener));
        TEXT(ip_of(&peer), "127.0.0.1");
        SAME(write(client, "passed", 6), 6);
        int server = OK(accept(listener, 0, 0));
        SAME(write(server, "me too", 6), 6);
    });
    struct pair pair = connected("127.0.0.1");
    pass(channel[0], pair.client);
    pass(channel[0], pair.listener);
    close(pair.client);
    int port = port_of(pair.listener);
    char got[7] = "";
    SAME(recv(pair.server, got, 6, MSG_WAITALL), 6);
    TEXT(got, "passed");
    SAME(recv(dial("127.0.0.1", port), got, 6, MSG_WAITALL), 6);
    TEXT(got, "me too");
    end_well(child);
}

/* A program may pass descriptors over a TCP socket only in vain: there is no SCM_RIGHTS on it. */
CASE(passing_over_tcp_fails_or_passes_nothing) {
    struct pair pair = connected("127.0.0.1");
    char byte = 0, space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    SAME(write(pair.client, "x", 1), 1);
    SAME(recvmsg(pair.server, &message, 0), 1);
    SAME(message.msg_controllen, 0);
    SAME(message.msg_flags & MSG_CTRUNC, 0);
}

static int self(const char *role, int fd, int other) {
    char a[12], b[12];
    snprintf(a, sizeof a, "%d", fd);
    snprintf(b, sizeof b, "%d", other);
    pid_t child = OK(fork());
    if (child == 0) {
        execl("/proc/self/exe", "self", role, a, b, (char *)0);
        fail("exec: %s", strerror(errno));
    }
    return child;
}

CASE(an_executed_child_has_a_listener_and_a_connection) {
    struct pair pair = connected("127.0.0.1");
    pid_t child = self("--use", pair.listener, pair.client);
    char got[6] = "";
    SAME(recv(pair.server, got, 5, MSG_WAITALL), 5);
    TEXT(got, "hello");
    SAME(recv(dial("127.0.0.1", port_of(pair.listener)), got, 5, MSG_WAITALL), 5);
    TEXT(got, "there");
    end_well(child);
    meet("127.0.0.1", port_of(pair.listener), pair.listener);
}

CASE(close_on_exec_closes) {
    int listener = listening("127.0.0.1", 0), client = OK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    OK(CONNECT(client, "127.0.0.1", port_of(listener)));
    int server = OK(accept4(listener, 0, 0, SOCK_CLOEXEC));
    end_well(self("--have-not", client, server));
    talk(client, server);
}

/* What the first process set is known after exec only by the kernel. */
CASE(an_executed_child_has_no_stray_descriptors) {
    struct pair pair = connected("127.0.0.1");
    end_well(self("--count", 3 + 3, 0));
    (void)pair;
}

int use(int listener, int client);
int have_not(int one, int other);
int count_open(int wanted);

int use(int listener, int client) {
    struct address peer = peer_of(client);
    SAME(port_in(&peer), port_of(listener));
    SAME(write(client, "hello", 5), 5);
    int server = OK(accept(listener, 0, 0));
    SAME(write(server, "there", 5), 5);
    return 0;
}

int have_not(int one, int other) {
    FAILS(fcntl(one, F_GETFD), EBADF);
    FAILS(fcntl(other, F_GETFD), EBADF);
    return 0;
}

int count_open(int wanted) {
    int count = 0;
    for (int fd = 0; fd < 4096; fd++) count += fcntl(fd, F_GETFD) >= 0;
    SAME(count, wanted);
    return 0;
}

__attribute__((constructor)) static void be_the_executed_child(void) {
    char line[200] = "";
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t size = read(fd, line, sizeof line - 1);
    close(fd);
    const char *role = line + strlen(line) + 1;
    if (size <= 0 || strncmp(role, "--", 2)) return;
    const char *one = role + strlen(role) + 1, *other = one + strlen(one) + 1;
    if (!strcmp(role, "--use")) exit(use(atoi(one), atoi(other)));
    if (!strcmp(role, "--have-not")) exit(have_not(atoi(one), atoi(other)));
    if (!strcmp(role, "--count")) exit(count_open(atoi(one)));
}
