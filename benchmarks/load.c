/* The load: one program for every way that is measured, so that only the way differs.
 *
 *     load server unix|tcp|udp ADDRESS PORT
 *     load client unix|tcp|udp ADDRESS PORT stream SIZE SECONDS  how much arrives of writes of SIZE bytes
 *     load client unix|tcp|udp ADDRESS PORT ping SIZE COUNT      how long SIZE bytes there and back take
 *     load client unix|tcp ADDRESS PORT connect CLIENTS COUNT    connect, wait for the end, close; COUNT times in all
 *     load client unix|tcp ADDRESS PORT name BATCH COUNT         how long getsockname takes, of COUNT times BATCH calls
 *     load client unix|tcp ADDRESS PORT start 1 COUNT            how long `load nothing` takes, which it starts
 *
 * The server listens on PORT for streams, PORT + 1 for pings, PORT + 2 for connects, a process each; it says "ready"
 * and serves until it is killed. The client prints one line of JSON. A Unix socket's path is ADDRESS.PORT. Whatever
 * fails ends the program with a message: a result always counts successes only. A datagram may be lost: in a stream it
 * doesn't count, and a ping is sent again after a while, which counts as the time that it took.
 *
 * Where the scheduler puts the two sides makes more difference than the way does (a ping takes 4 us on one processor,
 * 60 on two), and it changes its mind. So streams have a processor a side, pings share one; connects and names are left
 * to it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STREAM, PING, CONNECT, MODES };
enum { BACKLOG = 4096, BUFFER = 1 << 20, LONGEST = 60 /* seconds that a client may take */, FIRST = 3 };

static char buffer[BUFFER];

static void fail(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Onto the first processor that this process may use, or the last. */
static void pin(int last) {
    cpu_set_t all, one;
    CPU_ZERO(&one);
    if (sched_getaffinity(0, sizeof all, &all) < 0) fail("sched_getaffinity");
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &all)) continue;
        if (CPU_COUNT(&one) > 0 && !last) break;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
    }
    if (sched_setaffinity(0, sizeof one, &one) < 0) fail("sched_setaffinity");
}

/* Seconds of the processor that this process has had, or those that it has waited for. */
static double used(int who) {
    struct rusage usage;
    if (getrusage(who, &usage) < 0) fail("getrusage");
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

struct place {
    int type;
    socklen_t size;
    union {
        struct sockaddr any;
        struct sockaddr_in tcp;
        struct sockaddr_un unix_;
    };
};

static struct place find_place(const char *kind, const char *address, int port) {
    struct place place = {.type = strcmp(kind, "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM};
    if (strcmp(kind, "unix") == 0) {
        place.size = sizeof place.unix_;
        place.unix_.sun_family = AF_UNIX;
        snprintf(place.unix_.sun_path, sizeof place.unix_.sun_path, "%s.%d", address, port);
    } else {
        place.size = sizeof place.tcp;
        place.tcp.sin_family = AF_INET;
        place.tcp.sin_port = htons((uint16_t)port);
        if (inet_pton(AF_INET, address, &place.tcp.sin_addr) != 1) fail(address);
    }
    return place;
}

static void no_delay(int fd, const struct place *place) {
    int on = 1;
    if (place->any.sa_family != AF_INET || place->type != SOCK_STREAM) return;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) fail("TCP_NODELAY");
}

static int listen_at(const struct place *place) {
    int fd = socket(place->any.sa_family, place->type, 0);
    if (fd < 0) fail("socket");
    if (bind(fd, &place->any, place->size) < 0) fail("bind");
    if (place->type == SOCK_STREAM && listen(fd, BACKLOG) < 0) fail("listen");
    return fd;
}

static int connect_to(const struct place *place) {
    int fd = socket(place->any.sa_family, place->type, 0);
    if (fd < 0) fail("socket");
    if (connect(fd, &place->any, place->size) < 0) fail("connect");
    return fd;
}

static void write_all(int fd, const void *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t count = write(fd, (const char *)data + done, size - done);
        if (count < 0) fail("write");
        done += (size_t)count;
    }
}

/* Less than `size` only at the end of the stream. */
static size_t read_all(int fd, void *data, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t count = read(fd, (char *)data + done, size - done);
        if (count < 0) fail("read");
        if (count == 0) break;
        done += (size_t)count;
    }
    return done;
}

/* --- the server --- */

/* Reads to the end, then tells how much it was. */
static void serve_stream(int fd) {
    uint64_t bytes = 0;
    ssize_t count;
    while ((count = read(fd, buffer, sizeof buffer)) > 0) bytes += (uint64_t)count;
    write_all(fd, &bytes, sizeof bytes);
}

static void serve_ping(int fd) {
    ssize_t count;
    while ((count = read(fd, buffer, sizeof buffer)) > 0) write_all(fd, buffer, (size_t)count);
}

/* Datagrams: pings go back; of a stream's, the number so far is told to whoever sends a question. */
struct question {
    uint64_t number, datagrams;
};

static void serve_datagrams(int fd, int mode) {
    for (uint64_t datagrams = 0;;) {
        struct sockaddr_storage from;
        socklen_t size = sizeof from;
        ssize_t count = recvfrom(fd, buffer, sizeof buffer, 0, (struct sockaddr *)&from, &size);
        if (count < 0 && errno == ECONNREFUSED) continue; /* of an earlier client */
        if (count < 0) fail("recvfrom");
        int asked = count == sizeof(struct question);
        if (asked) ((struct question *)buffer)->datagrams = datagrams;
        if (mode == PING || asked) sendto(fd, buffer, (size_t)count, 0, (struct sockaddr *)&from, size);
        datagrams += !asked;
    }
}

static void serve(int listener, int mode, const struct place *place) {
    if (mode != CONNECT) pin(0);
    if (place->type == SOCK_DGRAM) serve_datagrams(listener, mode);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0) fail("accept");
        if (mode != CONNECT) no_delay(fd, place);
        if (mode == STREAM) serve_stream(fd);
        if (mode == PING) serve_ping(fd);
        close(fd);
    }
}

static int run_server(const char *kind, const char *address, int port) {
    int modes = strcmp(kind, "udp") == 0 ? CONNECT : MODES;
    for (int mode = 0; mode < modes; mode++) {
        struct place place = find_place(kind, address, port + mode);
        int listener = listen_at(&place);
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            serve(listener, mode, &place);
        }
        close(listener);
    }
    puts("ready");
    fflush(stdout);
    wait(NULL); /* only a failure ends one */
    return 1;
}

/* --- the client --- */

static int stream(const struct place *place, size_t size, double seconds) {
    pin(1);
    int fd = connect_to(place);
    no_delay(fd, place);
    double start = now(), before = used(RUSAGE_SELF);
    while (now() - start < seconds)
        for (size_t sent = 0; sent < 65536; sent += size) write_all(fd, buffer, size);
    shutdown(fd, SHUT_WR);
    uint64_t bytes = 0;
    if (read_all(fd, &bytes, sizeof bytes) != sizeof bytes) fail("the server's count");
    printf("{\"bytes\": %llu, \"seconds\": %.6f, \"cpu\": %.6f}\n", (unsigned long long)bytes, now() - start,
           used(RUSAGE_SELF) - before);
    return 0;
}

/* Sends a datagram until one of its size comes back, into the same place. */
static void exchange(int fd, void *data, size_t size) {
    struct timeval patience = {.tv_usec = 200000};
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) < 0) fail("SO_RCVTIMEO");
    for (;;) {
        if (send(fd, data, size, 0) < 0) fail("send");
        ssize_t count = recv(fd, data, size, 0);
        if (count == (ssize_t)size) return;
        if (count < 0 && errno != EAGAIN) fail("recv");
    }
}

static uint64_t arrived(int fd) {
    static uint64_t number;
    struct question question = {.number = ++number};
    do exchange(fd, &question, sizeof question);
    while (question.number != number); /* else it answers an earlier one, which took too long */
    return question.datagrams;
}

static int stream_of_datagrams(const struct place *place, size_t size, double seconds) {
    pin(1);
    int fd = connect_to(place);
    uint64_t before = arrived(fd), sent = 0;
    double start = now();
    for (; now() - start < seconds; sent++)
        if (send(fd, buffer, size, 0) < 0) fail("send");
    uint64_t datagrams = arrived(fd) - before;
    printf("{\"datagrams\": %llu, \"sent\": %llu, \"seconds\": %.6f}\n", (unsigned long long)datagrams,
           (unsigned long long)sent, now() - start);
    return 0;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The end of a line of JSON. */
static void print_times(double *times, int count) {
    qsort(times, (size_t)count, sizeof *times, by_value);
    printf("\"median\": %.9f, \"p99\": %.9f}\n", times[count / 2], times[count * 99 / 100]);
}

static int ping(const struct place *place, size_t size, int count) {
    double *times = calloc((size_t)count, sizeof *times);
    if (!times) fail("calloc");
    pin(0);
    int fd = connect_to(place);
    no_delay(fd, place);
    for (int i = 0; i < count; i++) {
        double start = now();
        if (place->type == SOCK_DGRAM) {
            exchange(fd, buffer, size);
        } else {
            write_all(fd, buffer, size);
            if (read_all(fd, buffer, size) != size) fail("the server ended");
        }
        times[i] = now() - start;
    }
    printf("{");
    print_times(times, count);
    return 0;
}

/* A call that needs nothing but to be trapped. */
static int name(const struct place *place, int batch, int count) {
    double *times = calloc((size_t)count, sizeof *times);
    if (!times) fail("calloc");
    int fd = connect_to(place);
    for (int i = 0; i < count; i++) {
        double start = now();
        for (int k = 0; k < batch; k++) {
            struct sockaddr_storage own;
            socklen_t size = sizeof own;
            if (getsockname(fd, (struct sockaddr *)&own, &size) < 0) fail("getsockname");
        }
        times[i] = (now() - start) / batch;
    }
    printf("{");
    print_times(times, count);
    return 0;
}

static int start(int count) {
    double *times = calloc((size_t)count, sizeof *times);
    if (!times) fail("calloc");
    for (int i = 0; i < count; i++) {
        double start = now();
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child == 0) {
            execl("/proc/self/exe", "load", "nothing", (char *)NULL);
            _exit(127);
        }
        int status;
        if (waitpid(child, &status, 0) < 0 || status != 0) fail("load nothing");
        times[i] = now() - start;
    }
    printf("{");
    print_times(times, count);
    return 0;
}

static void connect_often(const struct place *place, double *times, int count) {
    for (int i = 0; i < count; i++) {
        double start = now();
        int fd = connect_to(place);
        char byte;
        ssize_t got = read(fd, &byte, 1);
        if (got != 0) fail("waiting for the end");
        close(fd);
        times[i] = now() - start;
    }
}

static int connects(const struct place *place, int clients, int count) {
    int gate[2], ready[2]; /* the gate's closing starts them, once each has said that it is ready */
    if (pipe(gate) < 0 || pipe(ready) < 0) fail("pipe");
    int each = count / clients, all = each * clients;
    double first[FIRST];
    double *times = mmap(NULL, (size_t)all * sizeof *times, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (times == MAP_FAILED) fail("mmap");
    for (int i = 0; i < clients; i++) {
        pid_t child = fork();
        if (child < 0) fail("fork");
        if (child > 0) continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        alarm(LONGEST);
        close(gate[1]);
        connect_often(place, first, FIRST); /* what is done once a process isn't counted */
        write_all(ready[1], "", 1);
        close(ready[1]);
        read_all(gate[0], buffer, 1);
        connect_often(place, times + i * each, each);
        _exit(0);
    }
    close(ready[1]);
    if (read_all(ready[0], buffer, (size_t)clients) != (size_t)clients) return 1;
    double start = now();
    close(gate[1]);
    for (int i = 0; i < clients; i++) {
        int status;
        if (wait(&status) < 0) fail("wait");
        if (status != 0) return 1;
    }
    printf("{\"connects\": %d, \"seconds\": %.6f, \"cpu\": %.6f, ", all, now() - start, used(RUSAGE_CHILDREN));
    print_times(times, all);
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "nothing") == 0) return 0;
    if (argc == 5 && strcmp(argv[1], "server") == 0) return run_server(argv[2], argv[3], atoi(argv[4]));
    if (argc != 8 || strcmp(argv[1], "client") != 0) {
        fputs("usage: see the head of load.c\n", stderr);
        return 2;
    }
    alarm(LONGEST);
    const char *kind = argv[2], *address = argv[3], *mode = argv[5];
    int port = atoi(argv[4]);
    struct place place;
    if (strcmp(mode, "stream") == 0) {
        place = find_place(kind, address, port + STREAM);
        if (place.type == SOCK_DGRAM) return stream_of_datagrams(&place, (size_t)atol(argv[6]), atof(argv[7]));
        return stream(&place, (size_t)atol(argv[6]), atof(argv[7]));
    }
    if (strcmp(mode, "ping") == 0) {
        place = find_place(kind, address, port + PING);
        return ping(&place, (size_t)atol(argv[6]), atoi(argv[7]));
    }
    if (strcmp(mode, "start") == 0) return start(atoi(argv[7]));
    if (strcmp(mode, "name") == 0) {
        place = find_place(kind, address, port + PING);
        return name(&place, atoi(argv[6]), atoi(argv[7]));
    }
    place = find_place(kind, address, port + CONNECT);
    return connects(&place, atoi(argv[6]), atoi(argv[7]));
}
