/* How it works. `appswitch serve` orders doors and lanes by a channel (doors.h). A client at a door is accepted while
 * there is room, and brought to the other host by the lane whose turn it is (dials.c); what comes of it is told
 * (telling.c).
 */
#define _GNU_SOURCE
#include "take_in.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "dials.h"
#include "doors.h"
#include "gateway/comer.h"
#include "pairs.h"
#include "pipes.h"
#include "receive.h"
#include "telling.h"

enum {
    ORDERS = 64 /* a round */
};

struct door {
    struct watched watched_as;
    int fd;
    bool open, watched;
    uint16_t number;
    uint32_t idle_ms, count, next;
    uint16_t turns[AS_MOST_TURNS];
};

static int channel = -1;
static struct watched channel_as;
static struct door *doors[AS_MOST_DOORS];
static int doors_end; /* numbers below it have been used */
static uint64_t paused_until;
static bool may_let_in;

static void shut(struct door *door) {
    if (!door->open) return;
    if (door->watched) unwatch(door->fd);
    close(door->fd);
    door->open = door->watched = false;
    count_sockets(-1);
}

static bool may_take_in(void) {
    return may_let_in && may_dial() && may_note() && !paused_until;
}

/* One a round: to ask whether there is another costs more than to be told so. */
static void on_door(struct watched *watched, uint32_t events) {
    struct door *door = (struct door *)watched; /* its first member */
    (void)events;
    if (!door->open || !may_take_in() || !have_room(2)) return;
    struct comer comer;
    int error = accept_next(door->fd, &comer);
    if (!error)
        dial_by(door->turns[door->next++ % door->count], door->number, door->idle_ms, &comer);
    else if (error == -EINVAL) /* it listens no more */
        shut(door);
    else if (error != -EAGAIN)
        paused_until = round_time() + TRY_AGAIN;
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
    if (order->op == AS_TELL_ALL) tell_all(order->number);
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
    tell_by(channel);
    for (int i = 0; i < doors_end; i++)
        if (doors[i]) shut(doors[i]);
    drop_returning();
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

void use_channel(int fd) {
    lose_channel();
    channel = fd;
    tell_by(fd);
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
    end_dials_round();
    end_telling_round();
}

int next_doors_round_in(void) {
    uint64_t time = round_time(), next = next_telling_at(), dial = next_dial_at();
    if (dial < next) next = dial;
    if (paused_until && paused_until < next) next = paused_until;
    return next == UINT64_MAX ? -1 : next <= time ? 0 : (int)(next - time) + 1;
}
