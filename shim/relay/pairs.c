/* How it works. Each side of a pair is a socket and the way from it to the other one. On that way data is taken from
 * the socket into a pipe only when the pipe is empty, and given on as far as the other one takes it: as long as
 * anything is left in the pipe, nothing more is read, and so the sender is held back by TCP's own window. Epoll is
 * level-triggered, and asked for just what can be done next (`wanted`), so a round does little for each and nobody
 * starves.
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
    STARVED_EVERY = 50      /* milliseconds; pipes may be missing since the machine has too many files open */
};

struct side {
    struct watched watched_as;
    int fd;
    int8_t index; /* in the pair */
    bool watched; /* by epoll, ... */
    bool ended;   /* it sends no more, ... */
    bool told;    /* and the other one knows */
    bool starved; /* there was no pipe for it */
    bool urgent;  /* what is held isn't in the pipe, but this: */
    char urgent_byte;
    uint32_t asked; /* ... for these events */
    uint32_t held;  /* bytes, in the pipe */
    struct pipe pipe;
};

struct pair {
    struct side sides[2];
    struct pair *next, **before;
    uint64_t last; /* when something passed, in milliseconds */
    uint32_t idle_ms;
    bool unsure;                 /* whether it is taken: the other host may begin with ... */
    uint8_t refusal[AS_REFUSAL]; /* ... this */
    bool dead;                   /* to be freed: there may be an event of it in this round still */
};

static struct pair *pairs, *dead;
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

static void unwatch_side(struct side *side) {
    unwatch(side->fd);
    side->watched = false;
    side->asked = 0;
}

static void end_pair(struct pair *pair, bool by_reset) {
    for (int i = 0; i < 2; i++) {
        struct side *side = &pair->sides[i];
        if (side->watched) unwatch_side(side);
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

static uint32_t wanted(struct side *side) {
    uint32_t events = other_of(side)->held ? EPOLLOUT : 0;
    if (!side->ended && !side->held && !side->starved) events |= EPOLLIN;
    return events;
}

/* False: it can't be watched. */
static bool watch_side(struct side *side) {
    uint32_t events = wanted(side);
    if (side->watched ? events == side->asked : events == 0) return true;
    if (!(side->watched ? watch_for : watch)(side->fd, events, &side->watched_as)) return false;
    side->watched = true;
    side->asked = events;
    return true;
}

/* At urgent data splice(2) stops, as if there were nothing, or, once a FIN has come, as if this were the end
 * (tcp_read_sock, tcp_splice_read). It is one byte, in the stream here (SO_OOBINLINE), and is given on as urgent. */
static bool is_at_urgent(int fd) {
    int at_mark = 0;
    return ioctl(fd, SIOCATMARK, &at_mark) == 0 && at_mark;
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
    if ((size == 0 || (size < 0 && errno == EAGAIN)) && is_at_urgent(side->fd)) {
        size = recv(side->fd, &side->urgent_byte, 1, MSG_DONTWAIT);
        side->urgent = size > 0;
    }
    if (size < 0 && errno != EAGAIN && errno != EINTR) return false;
    if (size > 0) side->held = (uint32_t)size;
    side->ended = size == 0;
    return true;
}

/* Gives on what is held, as far as it goes. False: the pair has to be reset. */
static bool drain(struct side *side) {
    struct side *to = other_of(side);
    ssize_t size = side->urgent
                       ? send(to->fd, &side->urgent_byte, 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL)
                       : splice(side->pipe.out, NULL, to->fd, NULL, side->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (size < 0) return errno == EAGAIN || errno == EINTR;
    side->urgent = false;
    side->held -= (uint32_t)size;
    passed += (uint64_t)size;
    pair_of(side)->last = now;
    return true;
}

/* Does what can be done on the way from `side` now. False: the pair has to be reset. */
static bool pass_on(struct side *side) {
    if (side->held && !drain(side)) return false;
    if (!side->held && !side->ended && (!fill(side) || (side->held && !drain(side)))) return false;
    if (!side->held && side->pipe.in != NO_PIPE) give_pipe(&side->pipe);
    if (side->ended && !side->held && !side->told) {
        shutdown(other_of(side)->fd, SHUT_WR);
        side->told = true;
    }
    return true;
}

static void settle(struct pair *pair, bool works) {
    struct side *one = &pair->sides[0], *other = &pair->sides[1];
    if (!works)
        end_pair(pair, true);
    else if (one->told && other->told)
        end_pair(pair, false);
    else if (!watch_side(one) || !watch_side(other))
        end_pair(pair, true);
}

/* What comes is passed on as it comes: Nagle's algorithm (RFC 896) would hold it back once more. */
static bool prepare(int fd) {
    int yes = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes); /* a Unix socket has none */
    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &yes,
               sizeof yes); /* else a second urgent byte takes the first one's place */
    return fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0;
}

static void on_event(struct watched *watched, uint32_t events) {
    struct side *side = (struct side *)watched; /* its first member */
    struct pair *pair = pair_of(side);
    if (pair->dead) return;
    bool works = true;
    if (events & EPOLLOUT) works = pass_on(other_of(side));
    if (works && events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
        if (side->asked & EPOLLIN)
            works = pass_on(side);
        else if (events & (EPOLLERR | EPOLLHUP)) {
            if (side->ended && !side->held && events & EPOLLERR) works = false;
            unwatch_side(side); /* the other one is to have first what has been sent to it; epoll would tell this again
                              and again */
        }
    }
    settle(pair, works);
}

/* NULL: there is no memory, and both are closed. */
static struct pair *new_pair(int one, int other, uint32_t idle_ms) {
    struct pair *pair = calloc(1, sizeof *pair);
    if (pair == NULL) {
        close(one);
        close(other);
        return NULL;
    }
    for (int i = 0; i < 2; i++)
        pair->sides[i] = (struct side){
            .watched_as = {on_event}, .fd = i ? other : one, .index = (int8_t)i, .pipe = {NO_PIPE, NO_PIPE}};
    pair->last = now;
    pair->idle_ms = idle_ms;
    if (idle_ms && now + idle_ms < next_idle) next_idle = now + idle_ms;
    link_pair(pair, &pairs);
    count_sockets(2);
    count++;
    joined++;
    return pair;
}

void join_pair(int one, int other, const void *head, size_t length, uint32_t idle_ms) {
    struct pair *pair = new_pair(one, other, idle_ms);
    if (pair == NULL) return;
    bool works = prepare(one) && prepare(other);
    if (length) {
        struct side *side = &pair->sides[0];
        works = works && take_pipe(&side->pipe) && write(side->pipe.in, head, length) == (ssize_t)length;
        side->held = (uint32_t)length;
        works = works && pass_on(side);
    }
    settle(pair, works);
}

void join_watched(int one, int other, const uint8_t *refusal, uint32_t idle_ms) {
    struct pair *pair = new_pair(one, other, idle_ms);
    if (pair == NULL) return;
    pair->unsure = refusal != NULL;
    if (refusal) memcpy(pair->refusal, refusal, AS_REFUSAL);
    for (int i = 0; i < 2; i++) {
        int yes = 1;
        setsockopt(pair->sides[i].fd, SOL_SOCKET, SO_OOBINLINE, &yes, sizeof yes); /* as prepare does */
        pair->sides[i].watched = true;
        pair->sides[i].asked = ~0u; /* something else */
    }
    settle(pair, true);
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
    for (struct pair *pair = pairs, *next; pair; pair = next) {
        next = pair->next;
        bool works = true, fed = false;
        for (int i = 0; i < 2; i++) {
            struct side *side = &pair->sides[i];
            if (!side->starved) continue;
            starving--;
            side->starved = false;
            works = works && pass_on(side);
            fed = true;
        }
        if (fed) settle(pair, works);
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
    while (dead) {
        struct pair *pair = dead;
        unlink_pair(pair);
        free(pair);
    }
}

int next_round_in(void) {
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
