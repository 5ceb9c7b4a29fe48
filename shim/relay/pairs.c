/* How it works. Each side of a pair is a socket and the way from it to the other one. On that way data is taken from
 * the socket into a pipe only when the pipe is empty, and given on as far as the other one takes it: as long as
 * anything is left in the pipe, nothing more is read, and so the sender is held back by TCP's own window. Epoll is
 * edge-triggered: it is asked once, and what it has told holds until a call says EAGAIN. Pairs that can go on are in a
 * list, each has one turn a round, and so nobody starves.
 *
 * A FIN becomes a FIN once all before it has been given on. Everything else that ends a way (a reset, a time-out, a
 * socket that was refused) ends the pair: with a reset of both, for a FIN would say that this was all.
 */
#define _GNU_SOURCE
#include "pairs.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "join.h"
#include "lane/lane.h"
#include "pipes.h"
#include "reset.h"

enum {
    MOST_AT_ONCE = 1 << 20, /* bytes; a pipe's size is the limit */
    IDLE_EVERY = 100,       /* milliseconds at least between two looks at who is idle */
    STARVED_EVERY = 50,     /* milliseconds; pipes may be missing since the machine has too many files open */
    ENDS_IN = 2             /* fills of a pipe, in one turn: what is left, and the end */
};

const uint32_t END_EVENTS = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | EPOLLET;

struct side {
    struct watched watched_as;
    int fd;
    int8_t index;  /* in the pair */
    bool readable; /* as far as is known: it has something, or has ended */
    bool writable; /* ... it takes something */
    bool alarmed;  /* ... it has urgent data */
    bool ending;   /* it sends no more once what is there has been read, ... */
    bool ended;    /* and now it has, ... */
    bool told;     /* and the other one knows */
    bool starved;  /* there was no pipe for it */
    bool urgent;   /* what is held isn't in the pipe, but this: */
    char urgent_byte;
    uint32_t held; /* bytes, in the pipe */
    struct pipe pipe;
};

struct pair {
    struct side sides[2];
    struct pair *next, **before, *next_active;
    uint64_t last; /* when something passed, in milliseconds */
    uint32_t idle_ms;
    bool active;                 /* its turn is to come */
    bool shared;                 /* another process may have its sockets, too */
    bool unsure;                 /* whether it is taken: the other host may begin with ... */
    uint8_t refusal[AS_REFUSAL]; /* ... this */
    bool dead;                   /* to be freed: there may be an event of it in this round still */
};

static struct pair *pairs, *dead, *active;
static uint32_t count, starving;
static uint64_t now, next_idle = UINT64_MAX, joined, passed;

static struct pair *pair_of(struct side *side) {
    return (struct pair *)(side - side->index); /* its first member is the sides */
}

static struct side *other_of(struct side *side) {
    return side->index ? side - 1 : side + 1;
}

static void unlink_pair(struct pair *pair) {
    *pair->before = pair->next;
    if (pair->next) pair->next->before = pair->before;
}

static void link_pair(struct pair *pair, struct pair **list) {
    pair->next = *list;
    pair->before = list;
    if (*list) (*list)->before = &pair->next;
    *list = pair;
}

static void activate(struct pair *pair) {
    if (pair->active) return;
    pair->active = true;
    pair->next_active = active;
    active = pair;
}

static void end_pair(struct pair *pair, bool by_reset) {
    for (int i = 0; i < 2; i++) {
        struct side *side = &pair->sides[i];
        if (pair->shared) unwatch(side->fd);
        if (by_reset)
            reset(side->fd);
        else
            close(side->fd);
        if (side->pipe.in != NO_PIPE) drop_pipe(&side->pipe);
        starving -= side->starved;
    }
    count_sockets(-2);
    count--;
    pair->dead = true;
    unlink_pair(pair);
    link_pair(pair, &dead);
}

/* At urgent data splice(2) stops, as if there were nothing, or, once a FIN has come, as if this were the end
 * (tcp_read_sock, tcp_splice_read). It is one byte, in the stream here (SO_OOBINLINE), and is given on as urgent. */
static bool is_at_urgent(struct side *side) {
    int at_mark = 0;
    side->alarmed = false;
    return ioctl(side->fd, SIOCATMARK, &at_mark) == 0 && at_mark;
}

/* Cheaper than a splice that finds nothing. What comes later, and an end, epoll tells. */
static bool has_more(int fd) {
    int left = 0;
    return ioctl(fd, FIONREAD, &left) < 0 || left;
}

/* Or reset, which is told once only. */
static bool is_refused(struct pair *pair) {
    uint8_t begin[AS_REFUSAL];
    ssize_t size = recv(pair->sides[1].fd, begin, sizeof begin, MSG_PEEK | MSG_DONTWAIT);
    pair->unsure = size < 0;
    if (size < 0) return errno != EAGAIN;
    return size == sizeof begin && memcmp(begin, pair->refusal, sizeof begin) == 0;
}

/* The pipe is empty: fills it. False: the pair has to be reset. */
static bool fill(struct side *side) {
    if (side->index == 1 && pair_of(side)->unsure && is_refused(pair_of(side))) return false;
    if (side->pipe.in == NO_PIPE && !take_pipe(&side->pipe)) {
        side->starved = true;
        starving++;
        return true;
    }
    ssize_t size = splice(side->fd, NULL, side->pipe.in, NULL, MOST_AT_ONCE, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if ((size == 0 || (size < 0 && errno == EAGAIN && side->alarmed)) && is_at_urgent(side)) {
        size = recv(side->fd, &side->urgent_byte, 1, MSG_DONTWAIT);
        side->urgent = size > 0;
    }
    if (size < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (size < 0 && errno == EAGAIN) side->readable = false;
    if (size > 0) {
        side->held = (uint32_t)size;
        side->readable = side->ending || has_more(side->fd);
    }
    side->ended = size == 0;
    return true;
}

/* Gives on what is held, as far as it goes. False: the pair has to be reset. */
static bool drain(struct side *side) {
    struct side *to = other_of(side);
    /* The end comes in the same turn, and goes in the same packet. */
    unsigned how = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | (side->ending ? SPLICE_F_MORE : 0);
    ssize_t size = side->urgent ? send(to->fd, &side->urgent_byte, 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL)
                                : splice(side->pipe.out, NULL, to->fd, NULL, side->held, how);
    if (size < 0) {
        if (errno == EAGAIN) to->writable = false;
        return errno == EAGAIN || errno == EINTR;
    }
    side->urgent = false;
    side->held -= (uint32_t)size;
    passed += (uint64_t)size;
    pair_of(side)->last = now;
    return true;
}

static bool may_drain(struct side *side) {
    return side->held && other_of(side)->writable;
}

static bool may_fill(struct side *side) {
    return side->readable && !side->held && !side->ended && !side->starved;
}

/* Does what can be done on the way from `side` now. False: the pair has to be reset. */
static bool pass_on(struct side *side) {
    if (may_drain(side) && !drain(side)) return false;
    for (int left = side->ending ? ENDS_IN : 1; left && may_fill(side); left--)
        if (!fill(side) || (may_drain(side) && !drain(side))) return false;
    if (!side->held && side->pipe.in != NO_PIPE) give_pipe(&side->pipe);
    if (side->ended && !side->held && !side->told) {
        side->told = true;
        if (!other_of(side)->told) shutdown(other_of(side)->fd, SHUT_WR); /* else it is closed now */
    }
    return true;
}

static void take_turn(struct pair *pair) {
    struct side *one = &pair->sides[0], *other = &pair->sides[1];
    bool works = pass_on(one) && pass_on(other);
    if (!works || (one->told && other->told))
        end_pair(pair, !works);
    else if (may_drain(one) || may_fill(one) || may_drain(other) || may_fill(other))
        activate(pair);
}

/* What comes is passed on as it comes: Nagle's algorithm (RFC 896) would hold it back once more. */
static bool prepare(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* a Unix socket has none */
    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &yes,
               sizeof yes); /* else a second urgent byte takes the first one's place */
    return fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0;
}

static void hear(struct side *side, uint32_t events) {
    if (events & ~(uint32_t)EPOLLOUT) side->readable = true;
    if (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) side->writable = true;
    if (events & EPOLLPRI) side->alarmed = true;
    if (events & EPOLLRDHUP) side->ending = true;
}

static void on_event(struct watched *watched, uint32_t events) {
    struct side *side = (struct side *)watched; /* its first member */
    struct pair *pair = pair_of(side);
    if (pair->dead) return;
    if (events & EPOLLERR && side->ended && !side->held) return end_pair(pair, true); /* a reset after its FIN */
    hear(side, events);
    activate(pair);
}

struct pair *new_pair(void) {
    struct pair *pair = calloc(1, sizeof *pair);
    for (int i = 0; pair && i < 2; i++) pair->sides[i] = (struct side){.index = (int8_t)i, .pipe = {NO_PIPE, NO_PIPE}};
    return pair;
}

struct watched *end_of(struct pair *pair, int index) {
    return &pair->sides[index].watched_as;
}

void forget_pair(struct pair *pair) {
    pair->dead = true;
    link_pair(pair, &dead);
}

static void begin_pair(struct pair *pair, const int sockets[2], uint32_t idle_ms) {
    for (int i = 0; i < 2; i++) {
        struct side *side = &pair->sides[i];
        side->watched_as.on_event = on_event;
        side->fd = sockets[i];
        side->writable = true;
    }
    pair->last = now;
    pair->idle_ms = idle_ms;
    if (idle_ms && now + idle_ms < next_idle) next_idle = now + idle_ms;
    link_pair(pair, &pairs);
    count_sockets(2);
    count++;
    joined++;
    activate(pair);
}

void join_pair(const int sockets[2], const void *head, size_t length, uint32_t idle_ms) {
    struct pair *pair = new_pair();
    if (pair == NULL) {
        close(sockets[0]);
        close(sockets[1]);
        return;
    }
    pair->shared = true;
    begin_pair(pair, sockets, idle_ms);
    bool works = prepare(sockets[0]) && prepare(sockets[1]);
    for (int i = 0; i < 2; i++) works = works && watch(sockets[i], END_EVENTS, end_of(pair, i));
    if (length) {
        struct side *side = &pair->sides[0];
        works = works && take_pipe(&side->pipe) && write(side->pipe.in, head, length) == (ssize_t)length;
        side->held = (uint32_t)length;
    }
    if (!works) end_pair(pair, true);
}

void join_ends(struct pair *pair, const int sockets[2], const uint32_t said[2], const uint8_t *refusal,
               uint32_t idle_ms) {
    pair->unsure = refusal != NULL;
    if (refusal) memcpy(pair->refusal, refusal, AS_REFUSAL);
    begin_pair(pair, sockets, idle_ms);
    for (int i = 0; i < 2; i++) hear(&pair->sides[i], said[i]);
}

static void reset_idle(void) {
    next_idle = UINT64_MAX;
    for (struct pair *pair = pairs, *next; pair; pair = next) {
        next = pair->next;
        if (!pair->idle_ms) continue;
        uint64_t until = pair->last + pair->idle_ms;
        if (until <= now)
            end_pair(pair, true);
        else if (until < next_idle)
            next_idle = until;
    }
    if (next_idle < now + IDLE_EVERY) next_idle = now + IDLE_EVERY;
}

static void feed_starved(void) {
    if (!have_pipe()) return;
    for (struct pair *pair = pairs; pair; pair = pair->next)
        for (int i = 0; i < 2; i++) {
            struct side *side = &pair->sides[i];
            if (!side->starved) continue;
            starving--;
            side->starved = false;
            activate(pair);
        }
}

/* Each of those that are in the list now. */
static void take_turns(void) {
    struct pair *each = active;
    active = NULL;
    while (each) {
        struct pair *next = each->next_active;
        each->active = false;
        if (!each->dead) take_turn(each);
        each = next;
    }
}

void begin_round(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
    now = (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

void end_round(void) {
    if (now >= next_idle) reset_idle();
    if (starving) feed_starved();
    take_turns();
    while (dead) {
        struct pair *pair = dead;
        unlink_pair(pair);
        free(pair);
    }
}

int next_round_in(void) {
    if (active) return 0;
    uint64_t left = next_idle <= now ? 0 : next_idle - now;
    if (starving && left > STARVED_EVERY) return STARVED_EVERY;
    return next_idle == UINT64_MAX ? -1 : left > 60000 ? 60000 : (int)left + 1;
}

uint64_t round_time(void) {
    return now;
}

uint32_t pairs_open(void) {
    return count;
}

uint64_t pairs_joined(void) {
    return joined;
}

uint64_t bytes_passed(void) {
    return passed;
}
