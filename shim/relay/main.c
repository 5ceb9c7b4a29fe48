/* appswitch-relay: joins pairs of TCP connections at a gateway, so that what comes by one goes on by the other.
 *
 * How it works. `appswitch serve` starts it with one end of a SOCK_SEQPACKET pair as its standard input, and sends it
 * pairs of sockets (join.h). One thread, one epoll: pairs.c moves the data, pipes.c has the pipes for it. It is
 * nobody's child and holds nothing of whoever started it, and so it outlives the trap handler: once the other end of
 * the channel is closed, it goes on until its last pair has ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dials.h"
#include "join.h"
#include "pairs.h"
#include "pipes.h"
#include "receive.h"
#include "source_ports.h"
#include "take_in.h"

enum {
    CHANNEL = 0,
    OPEN_AT_START = 4, /* descriptors: the first three, and epoll's */
    EVENTS = 256,      /* a round */
    MESSAGES = 64,     /* a round */
    LOOK_AGAIN = 50    /* milliseconds; whether there is room again for what is in the channel */
};

static int epoll;
static bool channel_open = true, channel_watched;

/* Of a gone trap handler the control socket, the log and the terminal are to be free. */
static void let_go(void) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, 1);
    dup2(null, 2);
    close_range(3, ~0u, 0);
    if (chdir("/") < 0) _exit(1);
    setsid();
}

static bool is_socket(int fd, int wanted) {
    int type = 0;
    socklen_t size = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == wanted;
}

static void answer(void) {
    struct as_tally tally = {
        .pid = (uint32_t)getpid(),
        .pairs = pairs_open(),
        .pipes = pipes_taken(),
        .joined = pairs_joined(),
        .bytes = bytes_passed(),
    };
    send(CHANNEL, &tally, sizeof tally, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* A message that makes no sense is passed over. */
static void obey(const struct as_join *join, size_t size, int *fds, int found) {
    if (size >= sizeof *join && join->op == AS_JOIN && found == 2 && is_socket(fds[0], SOCK_STREAM) &&
        is_socket(fds[1], SOCK_STREAM))
        return join_pair(fds, join + 1, size - sizeof *join, join->idle_ms);
    if (size == sizeof *join && join->op == AS_DOORS && found == 1 && is_socket(fds[0], SOCK_SEQPACKET))
        return use_channel(fds[0]);
    while (found) close(fds[--found]);
    if (size == sizeof *join && join->op == AS_TALLY) answer();
}

/* False: nothing more to read now. */
static bool read_message(void) {
    struct {
        struct as_join join;
        char head[AS_MOST_HEAD];
    } data;
    struct received got;
    enum came came = receive(CHANNEL, &data, sizeof data, &got);
    if (came != A_MESSAGE) {
        channel_open = came != NO_MORE; /* the trap handler has gone */
        return false;
    }
    obey(&data.join, got.size, got.fds, got.found);
    return true;
}

static bool may_take(void) {
    return have_room(MOST_FDS) && have_pipe();
}

static void on_channel(struct watched *watched, uint32_t events) {
    (void)watched;
    (void)events;
    for (int left = MESSAGES; left && channel_open && may_take() && read_message(); left--) continue;
}

static struct watched channel_as = {.on_event = on_channel};

/* Only while something may be taken. (Its end would be told again and again.) */
static void watch_channel(bool wanted) {
    if (wanted == channel_watched) return;
    if (wanted)
        watch(CHANNEL, EPOLLIN, &channel_as);
    else
        unwatch(CHANNEL);
    channel_watched = wanted;
}

/* To a relay that has no pairs yet. Where none can be started, what is in the channel waits for pairs of ours to end.
 */
static void hand_on(void) {
    static char *arguments[] = {"appswitch-relay", NULL};
    pid_t child;
    int status;
    watch_channel(false);
    if (posix_spawn(&child, "/proc/self/exe", NULL, NULL, arguments, environ)) return;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue; /* it forks, and its child is the relay */
    if (status) return;
    close(CHANNEL);
    channel_open = false;
    leave_doors(); /* the trap handler opens them at the other one */
}

/* -1: for ever. */
static int sooner(int one, int other) {
    return one < 0 || (other >= 0 && other < one) ? other : one;
}

/* most: milliseconds to wait for something to happen; -1: for as long as nothing is to be done. */
static void a_round(int most) {
    struct epoll_event events[EVENTS];
    bool may = may_take();
    let_in(may);
    watch_channel(channel_open && may);
    int wait = sooner(most, sooner(next_round_in(), next_doors_round_in()));
    if (channel_open && !channel_watched) wait = sooner(wait, LOOK_AGAIN);
    int count = epoll_wait(epoll, events, EVENTS, wait);
    begin_round();
    for (int i = 0; i < count; i++) {
        struct watched *each = events[i].data.ptr;
        each->on_event(each, events[i].events);
    }
    end_round();
    end_doors_round();
}

static void run(void) {
    while (channel_open || pairs_open() || dials_open()) {
        if (channel_open && !have_room(MOST_FDS) && pairs_open()) hand_on();
        a_round(-1);
    }
}

int main(void) {
    if (!is_socket(CHANNEL, SOCK_SEQPACKET)) {
        static const char usage[] = "appswitch-relay: `appswitch serve` starts it\n";
        return write(2, usage, sizeof usage - 1) < 0 ? 1 : 2;
    }
    pid_t child = fork();
    if (child) return child < 0;
    let_go();
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_NAME, "appswitch-relay");
    epoll = epoll_create1(EPOLL_CLOEXEC);
    open_pipes(OPEN_AT_START);
    open_ports();
    watch_by(epoll);
    run();
    return 0;
}
