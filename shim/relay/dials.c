/* How it works. A connection to the other host's peer port is begun, by a lane that was agreed on; its record goes with
 * the SYN (TCP Fast Open without a cookie: tcp(7); the kernel sends it again if it isn't taken so). Once it stands the
 * two are a pair (pairs.c), but for one thing: the other host may still refuse. Until it has said a word, what the
 * client says is shown to it and stays in the client's queue, too; so a client that is refused, or whose host doesn't
 * answer, is given back to the trap handler as it has come, and goes another way.
 */
#define _GNU_SOURCE
#include "dials.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "doors.h"
#include "gateway/comer.h"
#include "lane/record.h"
#include "pairs.h"
#include "pipes.h"
#include "reset.h"
#include "source_ports.h"
#include "telling.h"

enum {
    NO_COOKIE = 34,        /* TCP_FASTOPEN_NO_COOKIE, Linux 4.15 */
    MOST_DIALS = 1024,     /* that don't stand yet */
    STANDS_WITHIN = 500,   /* milliseconds; edge/remote.py has the same */
    REFUSED_WITHIN = 1000, /* milliseconds, from when it stands; then a refusal can't be helped any more */
    MOST_SHOWN = 16384,    /* bytes of the client's; then, too */
    WITH_RECORD = 1024     /* bytes of these, if they are there already: a SYN's */
};

struct lane {
    uint64_t number, last;
    uint8_t key[AS_LANE_KEY];
    struct sockaddr_storage to;
    socklen_t size;
};

struct dial {
    struct pair *pair; /* that is to be */
    int client, inner;
    uint32_t said[2]; /* what epoll has told of the two so far */
    bool sent;        /* the record */
    bool stands;      /* the connection to the other host */
    bool dead;        /* to be freed: there may be an event of it in this round still */
    uint16_t door, lane;
    int32_t error;  /* why it is given back */
    uint32_t shown; /* bytes that the other host has, and are in the client's queue */
    uint32_t idle_ms;
    uint64_t until;
    struct dial *next, **before; /* in one of the lists */
    uint8_t refusal[AS_REFUSAL];
    struct as_lane_record record;
};

struct list {
    struct dial *first, **end;
};

static struct lane *lanes[AS_MOST_LANES];
static struct list dialling = {NULL, &dialling.first}, young = {NULL, &young.first};
static struct list returning = {NULL, &returning.first}, dead = {NULL, &dead.first};
static unsigned dials;
/* A socket for the next client's way, who needn't wait for it to be made. */
static struct ready {
    int fd, family; /* 0: nobody has come yet */
    bool bound;     /* to a port that was used before */
} ready = {.fd = -1};

static void append(struct list *list, struct dial *dial) {
    dial->next = NULL;
    dial->before = list->end;
    *list->end = dial;
    list->end = &dial->next;
}

static void take_out(struct list *list, struct dial *dial) {
    *dial->before = dial->next;
    if (dial->next)
        dial->next->before = dial->before;
    else
        list->end = dial->before;
}

/* --- one client's way */

/* It is in no list any more; its sockets are others', or closed. */
static void end_dial(struct dial *dial) {
    count_sockets(-2);
    dial->dead = true;
    append(&dead, dial);
}

static void drop(struct list *list, struct dial *dial) {
    take_out(list, dial);
    reset(dial->client);
    if (dial->inner >= 0) reset(dial->inner);
    forget_pair(dial->pair);
    end_dial(dial);
}

/* As a pair wants both (pairs.h), or as a client has come: a program may get it. */
static void set_options(int fd, int on) {
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on);
}

/* False: not now. */
static bool give_back(struct dial *dial) {
    set_options(dial->client, 0);
    if (!say_given_back(dial->door, dial->lane, dial->error, dial->client)) return false;
    take_out(&returning, dial);
    close(dial->client);
    forget_pair(dial->pair);
    end_dial(dial);
    return true;
}

static void turn_back(struct list *list, struct dial *dial, int error) {
    take_out(list, dial);
    if (list == &dialling) dials--;
    unwatch(dial->client); /* the trap handler is to have it, too */
    if (dial->inner >= 0) reset(dial->inner);
    dial->inner = -1;
    dial->error = error;
    append(&returning, dial);
    if (is_heard())
        give_back(dial);
    else
        drop(&returning, dial);
}

/* It doesn't stand, as far as is known. Who has said something with the record is given back only where the kernel
 * says that it never stood (a reset of what stood is ECONNRESET): a program that has heard it mustn't hear it twice. */
static void give_up(struct dial *dial, int error) {
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    bool stood = error == ECONNRESET || getpeername(dial->inner, (struct sockaddr *)&peer, &size) == 0;
    if (!dial->shown || !stood) return turn_back(&dialling, dial, error);
    dials--;
    drop(&dialling, dial);
}

/* It is a pair from now on. taken: that is sure. */
static void settle(struct dial *dial, bool taken) {
    if (dial->shown) recv(dial->client, NULL, dial->shown, MSG_TRUNC | MSG_DONTWAIT); /* throws it away: tcp(7) */
    take_out(&young, dial);
    end_dial(dial);
    join_ends(dial->pair, (int[]){dial->client, dial->inner}, dial->said, taken ? NULL : dial->refusal, dial->idle_ms);
}

/* The other host gets what the client has said. */
static void show(struct dial *dial) {
    uint32_t said = dial->said[0];
    if (said & EPOLLPRI) return settle(dial, false); /* can't be looked at in advance; a pair passes it on as such */
    if (!(said & (EPOLLIN | EPOLLRDHUP))) return;
    static uint8_t data[MOST_SHOWN];
    ssize_t size = recv(dial->client, data, sizeof data, MSG_PEEK | MSG_DONTWAIT);
    if (size < 0 && errno != EAGAIN) return drop(&young, dial);
    if (size > (ssize_t)dial->shown) {
        ssize_t more = send(dial->inner, data + dial->shown, (size_t)size - dial->shown, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (more > 0) dial->shown += (uint32_t)more;
        if (dial->shown < size) return settle(dial, false);
    }
    if (size == MOST_SHOWN || size == 0 || said & EPOLLRDHUP) settle(dial, false);
}

static void on_client(struct watched *watched, uint32_t events) {
    struct dial *dial = watched->owner;
    if (dial->dead || dial->inner < 0) return;
    if (events & (EPOLLERR | EPOLLHUP)) { /* a reset */
        if (!dial->stands) dials--;
        return drop(dial->stands ? &young : &dialling, dial);
    }
    dial->said[0] |= events;
    if (dial->stands) show(dial);
}

/* False: it doesn't. */
static bool stand(struct dial *dial) {
    if (!dial->sent &&
        send(dial->inner, &dial->record, sizeof dial->record, MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof dial->record)
        return false;
    take_out(&dialling, dial);
    dials--;
    dial->stands = true;
    dial->until = round_time() + REFUSED_WITHIN;
    append(&young, dial);
    note(&dial->record, dial->inner);
    return true;
}

/* Whether the other host says so: what has come before its reset can be read still. */
static bool is_refused(const struct dial *dial) {
    uint8_t begin[AS_REFUSAL];
    return recv(dial->inner, begin, sizeof begin, MSG_PEEK | MSG_DONTWAIT) == sizeof begin &&
           same_mac(begin, dial->refusal);
}

static void on_inner(struct watched *watched, uint32_t events) {
    struct dial *dial = watched->owner;
    if (dial->dead || dial->inner < 0) return;
    dial->said[1] |= events;
    if (!dial->stands) {
        int error = 0;
        socklen_t size = sizeof error;
        if (events & (EPOLLERR | EPOLLHUP)) getsockopt(dial->inner, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error && is_refused(dial)) return turn_back(&dialling, dial, ECONNREFUSED);
        if (error) return give_up(dial, error == ECONNREFUSED ? EHOSTUNREACH : error);
        if (!(events & EPOLLOUT)) return;
        if (!stand(dial)) return turn_back(&dialling, dial, EHOSTUNREACH);
    }
    if (events & EPOLLIN) {
        uint8_t begin[AS_REFUSAL];
        ssize_t size = recv(dial->inner, begin, sizeof begin, MSG_PEEK | MSG_DONTWAIT);
        if (size == sizeof begin && same_mac(begin, dial->refusal)) return turn_back(&young, dial, ECONNREFUSED);
        if (size >= 0) return settle(dial, true);
        if (errno != EAGAIN) return drop(&young, dial); /* a reset, which is told once only */
    }
    if (events & (EPOLLERR | EPOLLHUP)) return settle(dial, true);
    show(dial);
}

static struct ready new_ready(int family) {
    int yes = 1, fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return (struct ready){-1, family, false};
    set_options(fd, 1);
    setsockopt(fd, IPPROTO_TCP, NO_COOKIE, &yes, sizeof yes);
    return (struct ready){fd, family, bind_to_used(fd, family)};
}

static struct ready take_ready(int family) {
    struct ready taken = ready;
    ready = (struct ready){-1, family, false};
    if (taken.fd >= 0 && taken.family == family) return taken;
    if (taken.fd >= 0) close(taken.fd);
    return new_ready(family);
}

/* What the client has said already, up to urgent data: recv(2) steps over that where it comes first. */
static size_t first_words(int client, uint8_t *data, size_t room) {
    int at_mark = 0;
    ssize_t size = recv(client, data, room, MSG_PEEK | MSG_DONTWAIT);
    if (size > 0) ioctl(client, SIOCATMARK, &at_mark);
    return size <= 0 || at_mark ? 0 : (size_t)size;
}

/* Begins to connect by `inner`, the record first. False: errno says why. */
static bool send_record(struct dial *dial, const struct lane *lane) {
    uint8_t data[sizeof dial->record + WITH_RECORD];
    memcpy(data, &dial->record, sizeof dial->record);
    size_t more = first_words(dial->client, data + sizeof dial->record, WITH_RECORD);
    ssize_t size = sendto(dial->inner, data, sizeof dial->record + more, MSG_FASTOPEN | MSG_DONTWAIT | MSG_NOSIGNAL,
                          (const struct sockaddr *)&lane->to, lane->size);
    dial->sent = size >= (ssize_t)sizeof dial->record;
    if (dial->sent) dial->shown = (uint32_t)size - sizeof dial->record;
    if (size >= 0) return dial->sent;
    if (errno == EINPROGRESS) return true;
    if (errno != EOPNOTSUPP && errno != ENOPROTOOPT) return false;
    return connect(dial->inner, (const struct sockaddr *)&lane->to, lane->size) == 0 || errno == EINPROGRESS;
}

/* False: it fails at once. */
static bool begin(struct dial *dial, const struct lane *lane) {
    struct ready taken = take_ready(lane->to.ss_family);
    dial->inner = taken.fd;
    if (dial->inner < 0) return false;
    if (send_record(dial, lane)) {
        note_port(dial->inner, taken.bound);
        return true;
    }
    if (!taken.bound || errno != EADDRNOTAVAIL) return false;
    close(dial->inner);
    skip_port();
    return begin(dial, lane);
}

static struct dial *new_dial(int client) {
    struct dial *dial = calloc(1, sizeof *dial);
    if (dial == NULL) return NULL;
    dial->pair = new_pair();
    if (dial->pair == NULL) {
        free(dial);
        return NULL;
    }
    *end_of(dial->pair, 0) = (struct watched){on_client, dial};
    *end_of(dial->pair, 1) = (struct watched){on_inner, dial};
    dial->client = client;
    dial->inner = -1;
    return dial;
}

void dial_by(uint16_t place, uint16_t door, uint32_t idle_ms, const struct comer *comer) {
    int client = comer->fd;
    struct lane *lane = lanes[place];
    struct dial *dial = new_dial(client);
    if (dial == NULL) return reset(client);
    dial->door = door;
    dial->lane = place;
    dial->idle_ms = idle_ms;
    dial->until = round_time() + STANDS_WITHIN;
    count_sockets(2);
    append(&dialling, dial);
    dials++;
    if (lane) {
        put_ip(&comer->peer, dial->record.source_ip);
        put_ip(&comer->own, dial->record.dest_ip);
        dial->record.source_port = htons(port_of(&comer->peer));
        dial->record.dest_port = htons(port_of(&comer->own));
        dial->record.lane = htobe64(lane->number);
        dial->record.number = htobe64(++lane->last);
        seal_record(&dial->record, lane->key);
        make_refusal(&dial->record, lane->key, dial->refusal);
    }
    bool begun = lane && begin(dial, lane);
    set_options(client, 1);
    if (!begun || !watch(dial->inner, END_EVENTS, end_of(dial->pair, 1)) ||
        !watch(client, END_EVENTS, end_of(dial->pair, 0)))
        turn_back(&dialling, dial, EHOSTUNREACH);
}

void put_lane(const struct as_door_order *order) {
    if (order->number >= AS_MOST_LANES) return;
    struct lane **place = &lanes[order->number];
    if (*place == NULL) *place = malloc(sizeof **place);
    if (*place == NULL) return;
    **place = (struct lane){.number = order->lane};
    memcpy((*place)->key, order->key, AS_LANE_KEY);
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (memcmp(order->ip, mapped, sizeof mapped) == 0) {
        struct sockaddr_in *to = (struct sockaddr_in *)&(*place)->to;
        *to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(order->port)};
        memcpy(&to->sin_addr, order->ip + 12, 4);
        (*place)->size = sizeof *to;
    } else {
        struct sockaddr_in6 *to = (struct sockaddr_in6 *)&(*place)->to;
        *to = (struct sockaddr_in6){.sin6_family = AF_INET6, .sin6_port = htons(order->port)};
        memcpy(&to->sin6_addr, order->ip, 16);
        (*place)->size = sizeof *to;
    }
}

bool may_dial(void) {
    return dials < MOST_DIALS && !returning.first;
}

bool dials_open(void) {
    return dialling.first || young.first;
}

void drop_returning(void) {
    while (returning.first) drop(&returning, returning.first);
}

void end_dials_round(void) {
    uint64_t time = round_time();
    if (ready.fd < 0 && ready.family) ready = new_ready(ready.family);
    while (dialling.first && dialling.first->until <= time) give_up(dialling.first, ETIMEDOUT);
    while (young.first && young.first->until <= time) settle(young.first, false);
    while (returning.first && give_back(returning.first)) continue;
    while (dead.first) {
        struct dial *dial = dead.first;
        take_out(&dead, dial);
        free(dial);
    }
}

uint64_t next_dial_at(void) {
    uint64_t next = UINT64_MAX;
    if (dialling.first) next = dialling.first->until;
    if (young.first && young.first->until < next) next = young.first->until;
    if (returning.first && round_time() + TRY_AGAIN < next) next = round_time() + TRY_AGAIN;
    return next;
}
