/* How it works. A client at a door is accepted, and a connection to the other host's peer port begun, by the lane whose
 * turn it is; its record goes with the SYN (TCP Fast Open without a cookie: tcp(7); the kernel sends it again if it
 * isn't taken so). Once it stands the two are a pair (pairs.c), but for one thing: the other host may still refuse.
 * Until it has said a word, what the client says is shown to it and stays in the client's queue, too; so a client that
 * is refused, or whose host doesn't answer, is given back to the trap handler as it has come, and goes another way.
 */
#define _GNU_SOURCE
#include "take_in.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "doors.h"
#include "gateway/comer.h"
#include "lane/record.h"
#include "pairs.h"
#include "pipes.h"
#include "receive.h"
#include "reset.h"

enum {
    NO_COOKIE = 34,        /* TCP_FASTOPEN_NO_COOKIE, Linux 4.15 */
    AT_ONCE = 16,          /* clients accepted of one door in a round */
    ORDERS = 64,           /* a round */
    MOST_DIALS = 1024,     /* that don't stand yet */
    MOST_UNTOLD = 1024,    /* entries; then no client is accepted until they are told */
    ENTRIES = 4 * 1024,    /* for the dials that are begun then, too */
    STANDS_WITHIN = 500,   /* milliseconds; edge/remote.py has the same */
    REFUSED_WITHIN = 1000, /* milliseconds, from when it stands; then a refusal can't be helped any more */
    MOST_SHOWN = 16384,    /* bytes of the client's; then, too */
    TRY_AGAIN = 20         /* milliseconds; where nothing can be accepted, or told */
};

struct door {
    struct watched watched_as;
    int fd;
    bool open, watched;
    uint16_t number;
    uint32_t idle_ms, count, next;
    uint16_t turns[AS_MOST_TURNS];
};

struct lane {
    uint64_t number, last;
    uint8_t key[AS_LANE_KEY];
    struct sockaddr_storage to;
    socklen_t size;
};

struct dial {
    struct watched client_as, inner_as;
    int client, inner;
    bool sent;   /* the record */
    bool stands; /* the connection to the other host */
    bool ended;  /* the client sends no more */
    bool urgent; /* ... or urgent data, which can't be looked at in advance */
    bool dead;   /* to be freed: there may be an event of it in this round still */
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

static int epoll, channel = -1;
static struct watched channel_as;
static struct door *doors[AS_MOST_DOORS];
static int doors_end; /* numbers below it have been used */
static struct lane *lanes[AS_MOST_LANES];
static struct list dialling, young, returning, dead;
static unsigned dials;
static struct as_lane_entry entries[ENTRIES];
static unsigned untold;
static uint64_t tell_at = UINT64_MAX, paused_until;
static uint32_t question;
static bool asked;
static bool may_let_in;

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

static void unwatch(int fd) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL); /* closing isn't enough while another process has it, too (epoll(7)) */
}

static bool watch(int fd, uint32_t events, struct watched *as) {
    struct epoll_event event = {.events = events, .data.ptr = as};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* --- telling the trap handler */

/* False: not now. */
static bool say(enum as_door_word word, const struct as_door_report *more, const void *data, size_t size, int fd) {
    struct as_door_report report = *more;
    report.word = word;
    struct iovec parts[2] = {{&report, sizeof report}, {(void *)data, size}};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = size ? 2 : 1};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control;
    }
    return sendmsg(channel, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

/* All entries, as far as it goes. */
static void tell(void) {
    unsigned told = 0;
    while (told < untold) {
        unsigned count = untold - told < AS_MOST_ENTRIES ? untold - told : AS_MOST_ENTRIES;
        if (!say(AS_ENTRIES, &(struct as_door_report){.count = count}, entries + told, count * sizeof *entries, -1))
            break;
        told += count;
    }
    untold -= told;
    memmove(entries, entries + told, untold * sizeof *entries);
    if (asked && !untold) asked = !say(AS_TOLD_ALL, &(struct as_door_report){.door = question}, NULL, 0, -1);
    tell_at = untold || asked ? round_time() + TRY_AGAIN : UINT64_MAX;
}

static void note(struct dial *dial) {
    struct as_lane_entry *entry = &entries[untold];
    socklen_t size = sizeof entry->cookie;
    if (channel < 0 || untold == ENTRIES) return;
    if (getsockopt(dial->inner, SOL_SOCKET, SO_COOKIE, &entry->cookie, &size) < 0) return;
    struct as_client_name name = name_of_record(&dial->record, 0, 0, AS_TCP_CLIENT);
    memcpy(entry->name, &name, sizeof name);
    entry->lane = be64toh(dial->record.lane);
    if (!untold++) tell_at = round_time() + AS_TELL_EVERY;
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
    unwatch(dial->client);
    reset(dial->client);
    if (dial->inner >= 0) {
        unwatch(dial->inner);
        reset(dial->inner);
    }
    end_dial(dial);
}

/* False: not now. */
static bool give_back(struct dial *dial) {
    struct as_door_report report = {.door = dial->door, .lane = dial->lane, .error = dial->error};
    int no = 0;
    setsockopt(dial->client, IPPROTO_TCP, TCP_NODELAY, &no, sizeof no); /* as it has come: a program may get it */
    if (!say(AS_GIVEN_BACK, &report, NULL, 0, dial->client)) return false;
    take_out(&returning, dial);
    close(dial->client);
    end_dial(dial);
    return true;
}

static void turn_back(struct list *list, struct dial *dial, int error) {
    take_out(list, dial);
    if (list == &dialling) dials--;
    unwatch(dial->client);
    if (dial->inner >= 0) {
        unwatch(dial->inner);
        reset(dial->inner);
    }
    dial->inner = -1;
    dial->error = error;
    append(&returning, dial);
    if (channel < 0)
        drop(&returning, dial);
    else
        give_back(dial);
}

/* It is a pair from now on. taken: that is sure. */
static void settle(struct dial *dial, bool taken) {
    if (dial->shown) recv(dial->client, NULL, dial->shown, MSG_TRUNC | MSG_DONTWAIT); /* throws it away: tcp(7) */
    take_out(&young, dial);
    end_dial(dial);
    join_watched(dial->client, dial->inner, taken ? NULL : dial->refusal, dial->idle_ms);
}

/* The other host gets what the client has said. */
static void show(struct dial *dial) {
    if (dial->urgent) return settle(dial, false); /* a pair passes it on as such */
    static uint8_t data[MOST_SHOWN];
    ssize_t size = recv(dial->client, data, sizeof data, MSG_PEEK | MSG_DONTWAIT);
    if (size < 0 && errno != EAGAIN) return drop(&young, dial);
    if (size > (ssize_t)dial->shown) {
        ssize_t more = send(dial->inner, data + dial->shown, (size_t)size - dial->shown, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (more > 0) dial->shown += (uint32_t)more;
        if (dial->shown < size) return settle(dial, false);
    }
    if (size == MOST_SHOWN || size == 0 || dial->ended) settle(dial, false);
}

static void on_client(struct watched *watched, uint32_t events) {
    struct dial *dial = (struct dial *)watched; /* its first member */
    if (dial->dead || dial->inner < 0) return;
    if (events & (EPOLLERR | EPOLLHUP)) { /* a reset */
        if (!dial->stands) dials--;
        return drop(dial->stands ? &young : &dialling, dial);
    }
    if (events & EPOLLRDHUP) dial->ended = true;
    if (events & EPOLLPRI) dial->urgent = true;
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
    note(dial);
    return true;
}

static void on_inner(struct watched *watched, uint32_t events) {
    struct dial *dial = (struct dial *)((char *)watched - offsetof(struct dial, inner_as));
    if (dial->dead || dial->inner < 0) return;
    if (!dial->stands) {
        int error = 0;
        socklen_t size = sizeof error;
        if (events & (EPOLLERR | EPOLLHUP)) getsockopt(dial->inner, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) return turn_back(&dialling, dial, error == ECONNREFUSED ? EHOSTUNREACH : error);
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

/* --- clients at doors */

/* Begins to connect, the record first. False: it fails at once. */
static bool begin(struct dial *dial, const struct lane *lane) {
    int yes = 1;
    dial->inner = socket(lane->to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (dial->inner < 0) return false;
    setsockopt(dial->inner, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(dial->inner, IPPROTO_TCP, NO_COOKIE, &yes, sizeof yes);
    ssize_t size = sendto(dial->inner, &dial->record, sizeof dial->record, MSG_FASTOPEN | MSG_DONTWAIT | MSG_NOSIGNAL,
                          (const struct sockaddr *)&lane->to, lane->size);
    dial->sent = size == sizeof dial->record;
    if (size >= 0) return dial->sent;
    if (errno == EINPROGRESS) return true;
    if (errno != EOPNOTSUPP && errno != ENOPROTOOPT) return false;
    return connect(dial->inner, (const struct sockaddr *)&lane->to, lane->size) == 0 || errno == EINPROGRESS;
}

static void take_in(struct door *door, const struct comer *comer) {
    int yes = 1, client = comer->fd;
    uint16_t turn = door->turns[door->next++ % door->count];
    struct lane *lane = lanes[turn];
    struct dial *dial = calloc(1, sizeof *dial);
    if (dial == NULL) return reset(client);
    *dial = (struct dial){.client_as = {on_client}, .inner_as = {on_inner}, .client = client, .inner = -1};
    dial->door = door->number;
    dial->lane = turn;
    dial->idle_ms = door->idle_ms;
    dial->until = round_time() + STANDS_WITHIN;
    count_sockets(2);
    append(&dialling, dial);
    dials++;
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
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
    if (!lane || !begin(dial, lane) || !watch(dial->inner, EPOLLIN | EPOLLOUT | EPOLLET, &dial->inner_as) ||
        !watch(client, EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET, &dial->client_as))
        turn_back(&dialling, dial, EHOSTUNREACH);
}

static void shut(struct door *door) {
    if (!door->open) return;
    if (door->watched) unwatch(door->fd);
    close(door->fd);
    door->open = door->watched = false;
    count_sockets(-1);
}

static bool may_take_in(void) {
    return may_let_in && dials < MOST_DIALS && untold < MOST_UNTOLD && !paused_until && !returning.first;
}

static void on_door(struct watched *watched, uint32_t events) {
    struct door *door = (struct door *)watched; /* its first member */
    (void)events;
    for (int left = AT_ONCE; left && door->open && may_take_in() && have_room(2); left--) {
        struct comer comer;
        int error = accept_next(door->fd, &comer);
        if (!error)
            take_in(door, &comer);
        else if (error == -EAGAIN)
            return;
        else if (error == -EINVAL) /* it listens no more */
            return shut(door);
        else
            paused_until = round_time() + TRY_AGAIN;
    }
}

static void watch_doors(void) {
    static bool watched;
    bool wanted = may_take_in();
    if (wanted == watched && !wanted) return;
    watched = wanted;
    for (int i = 0; i < doors_end; i++) {
        struct door *door = doors[i];
        if (!door || !door->open || door->watched == wanted) continue;
        if (wanted)
            door->watched = watch(door->fd, EPOLLIN, &door->watched_as);
        else
            unwatch(door->fd), door->watched = false;
    }
}

/* --- orders */

static void put_lane(const struct as_door_order *order) {
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

static bool set_turns(struct door *door, const struct as_door_order *order, const uint16_t *turns) {
    if (order->count == 0 || order->count > AS_MOST_TURNS) return false;
    for (uint32_t i = 0; i < order->count; i++)
        if (turns[i] >= AS_MOST_LANES) return false;
    memcpy(door->turns, turns, order->count * sizeof *turns);
    door->count = order->count;
    return true;
}

static bool open_door(const struct as_door_order *order, const uint16_t *turns, int fd) {
    struct door **place = &doors[order->number];
    if (*place == NULL) *place = calloc(1, sizeof **place);
    if (*place == NULL) return false;
    if ((int)order->number >= doors_end) doors_end = (int)order->number + 1;
    shut(*place);
    (*place)->watched_as.on_event = on_door;
    (*place)->number = (uint16_t)order->number;
    if (!set_turns(*place, order, turns)) return false;
    (*place)->idle_ms = order->idle_ms;
    (*place)->next = 0;
    (*place)->fd = fd;
    (*place)->open = true;
    count_sockets(1);
    return true;
}

/* A message that makes no sense is passed over. False: it doesn't keep the descriptor. */
static bool obey(const struct as_door_order *order, size_t size, int fd) {
    const uint16_t *turns = (const uint16_t *)(order + 1);
    if (size < sizeof *order || order->count > AS_MOST_TURNS || size != sizeof *order + order->count * sizeof *turns)
        return false;
    if (order->op == AS_LANE_OPEN) put_lane(order);
    if (order->op == AS_TELL_ALL) {
        question = order->number;
        asked = true;
        tell_at = 0;
    }
    if (order->number >= AS_MOST_DOORS) return false;
    if (order->op == AS_DOOR_OPEN && fd >= 0) return open_door(order, turns, fd);
    struct door *door = doors[order->number];
    if (door && order->op == AS_DOOR_SHUT) shut(door);
    if (door && order->op == AS_DOOR_TURNS) set_turns(door, order, turns);
    return false;
}

static void lose_channel(void) {
    if (channel < 0) return;
    unwatch(channel);
    close(channel);
    channel = -1;
    count_sockets(-1);
    untold = 0;
    asked = false;
    tell_at = UINT64_MAX;
    for (int i = 0; i < doors_end; i++)
        if (doors[i]) shut(doors[i]);
    while (returning.first) drop(&returning, returning.first);
}

static void on_channel(struct watched *watched, uint32_t events) {
    (void)watched;
    (void)events;
    for (int left = ORDERS; left && channel >= 0; left--) {
        struct {
            struct as_door_order order;
            uint16_t turns[AS_MOST_TURNS];
        } data;
        struct received got;
        enum came came = receive(channel, &data, sizeof data, &got);
        if (came == NOT_NOW) return;
        if (came == NO_MORE) return lose_channel();
        int kept = obey(&data.order, got.size, got.found ? got.fds[0] : -1);
        while (got.found > kept) close(got.fds[--got.found]);
    }
}

/* --- for main.c */

void open_doors(int watching) {
    epoll = watching;
    dialling.end = &dialling.first;
    young.end = &young.first;
    returning.end = &returning.first;
    dead.end = &dead.first;
}

void use_channel(int fd) {
    lose_channel();
    channel = fd;
    channel_as.on_event = on_channel;
    count_sockets(1);
    if (!watch(channel, EPOLLIN, &channel_as)) lose_channel();
}

void leave_doors(void) {
    lose_channel();
}

void let_in(bool may) {
    may_let_in = may;
    if (paused_until && paused_until <= round_time()) paused_until = 0;
    watch_doors();
}

void end_doors_round(void) {
    uint64_t time = round_time();
    while (dialling.first && dialling.first->until <= time) turn_back(&dialling, dialling.first, ETIMEDOUT);
    while (young.first && young.first->until <= time) settle(young.first, false);
    while (returning.first && give_back(returning.first)) continue;
    if (tell_at <= time || untold >= AS_MOST_ENTRIES) tell();
    while (dead.first) {
        struct dial *dial = dead.first;
        take_out(&dead, dial);
        free(dial);
    }
}

int next_doors_round_in(void) {
    uint64_t time = round_time(), next = tell_at;
    if (dialling.first && dialling.first->until < next) next = dialling.first->until;
    if (young.first && young.first->until < next) next = young.first->until;
    if (paused_until && paused_until < next) next = paused_until;
    if (returning.first && time + TRY_AGAIN < next) next = time + TRY_AGAIN;
    return next == UINT64_MAX ? -1 : next <= time ? 0 : (int)(next - time) + 1;
}

bool dials_open(void) {
    return dialling.first || young.first;
}
