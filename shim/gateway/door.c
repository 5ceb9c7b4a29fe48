#define _GNU_SOURCE
#include "door.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "comer.h"
#include "deliver.h"
#include "reset.h"

_Static_assert(sizeof(struct as_client_name) == sizeof((struct as_handed *)0)->name, "the size of a client's name");

enum {
    ROOM = 4096, /* of what was handed over: a tenth of a second's worth */
    EVENTS = 64  /* ports that are looked at in one go */
};

#define REST 0.1  /* seconds that an instance is left alone: FIRST_PAUSE of core/balance.py */
#define PAUSE 0.1 /* seconds, where nobody can be accepted */

struct port {
    int running;
    uint64_t epoch;
    struct as_instance *instances;
    int count;
    struct as_paused paused; /* why: 0: it isn't, or it has been told */
};

struct as_door {
    pthread_mutex_t lock;
    atomic_int asking; /* who waits for the lock: the thread lets them have it */
    atomic_int stopped;
    int epoll, wake, pauses, news, carrier;
    const volatile uint64_t *epoch;
    uint32_t salt;
    struct as_turnstile *turnstile;
    struct port *ports; /* by descriptor */
    int size;
    struct as_closed closed;
    double closed_until; /* nobody is looked for before; INFINITY: before something changes */
    unsigned head, tail;
    struct as_handed handed[ROOM];
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void ring(int bell) {
    eventfd_write(bell, 1);
}

/* A mutex is whoever's is quickest, and that is the thread, which has just left it. */
static void enter(struct as_door *door) {
    atomic_fetch_add(&door->asking, 1);
    pthread_mutex_lock(&door->lock);
    atomic_fetch_sub(&door->asking, 1);
}

static void leave(struct as_door *door) {
    pthread_mutex_unlock(&door->lock);
}

static void enter_last(struct as_door *door) {
    while (atomic_load(&door->asking)) sched_yield();
    pthread_mutex_lock(&door->lock);
}

struct as_door *as_door_open(int epoch_fd, uint32_t salt, struct as_turnstile *turnstile) {
    struct as_door *door = calloc(1, sizeof *door);
    if (!door) return NULL;
    pthread_mutex_init(&door->lock, NULL);
    door->salt = salt;
    door->turnstile = turnstile;
    door->carrier = -1;
    door->epoll = epoll_create1(EPOLL_CLOEXEC);
    door->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    door->pauses = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    door->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    void *page = mmap(NULL, sizeof *door->epoch, PROT_READ, MAP_SHARED, epoch_fd, 0);
    door->epoch = page == MAP_FAILED ? NULL : page;
    struct epoll_event woken = {.events = EPOLLIN, .data.fd = door->wake};
    if (door->epoch && door->pauses >= 0 && door->news >= 0 &&
        !epoll_ctl(door->epoll, EPOLL_CTL_ADD, door->wake, &woken))
        return door;
    int error = errno;
    as_door_free(door);
    errno = error;
    return NULL;
}

void as_door_free(struct as_door *door) {
    int own[] = {door->epoll, door->wake, door->pauses, door->news, door->carrier};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (own[i] >= 0) close(own[i]);
    if (door->epoch) munmap((void *)door->epoch, sizeof *door->epoch);
    for (int i = 0; i < door->size; i++)
        if (door->ports[i].paused.why && door->ports[i].paused.accepted >= 0) close(door->ports[i].paused.accepted);
    free(door->ports);
    free(door);
}

int as_door_pauses(const struct as_door *door) {
    return door->pauses;
}

int as_door_news(const struct as_door *door) {
    return door->news;
}

void as_door_stop(struct as_door *door) {
    door->stopped = 1;
    ring(door->wake);
}

void as_look_again(struct as_door *door) {
    enter(door);
    door->closed.full = 0;
    door->closed_until = 0;
    ring(door->wake);
    leave(door);
}

/* --- the ports --- */

static int wait_at(struct as_door *door, int how, int listening) {
    struct epoll_event readable = {.events = EPOLLIN, .data.fd = listening};
    return epoll_ctl(door->epoll, how, listening, &readable) ? -errno : 0;
}

static int make_room_for(struct as_door *door, int listening) {
    if (listening < door->size) return 0;
    int size = 2 * (listening + 1);
    struct port *more = realloc(door->ports, (size_t)size * sizeof *more);
    if (!more) return -ENOMEM;
    memset(more + door->size, 0, (size_t)(size - door->size) * sizeof *more);
    door->ports = more;
    door->size = size;
    return 0;
}

int as_serve(struct as_door *door, int listening, uint64_t epoch, struct as_instance *instances, int count) {
    enter(door);
    int error = make_room_for(door, listening);
    struct port *port = error ? NULL : &door->ports[listening];
    if (port && port->paused.why) error = -EBUSY;
    if (port && !error && !port->running) error = wait_at(door, EPOLL_CTL_ADD, listening);
    if (port && !error) *port = (struct port){.running = 1, .epoch = epoch, .instances = instances, .count = count};
    leave(door);
    return error;
}

void as_leave(struct as_door *door, int listening) {
    enter(door);
    struct port *port = listening < door->size ? &door->ports[listening] : NULL;
    if (port && port->running) wait_at(door, EPOLL_CTL_DEL, listening);
    if (port && port->paused.why && port->paused.accepted >= 0) close(port->paused.accepted);
    if (port) *port = (struct port){0};
    leave(door);
}

/* It waits at no port that is paused: one that has been shut down would wake it for ever. */
static void pause_port(struct as_door *door, int listening, enum as_why why, int accepted, int error) {
    wait_at(door, EPOLL_CTL_DEL, listening);
    door->ports[listening].running = 0;
    door->ports[listening].paused = (struct as_paused){listening, why, accepted, error};
    ring(door->pauses);
}

int as_next_paused(struct as_door *door, struct as_paused *paused) {
    int found = 0;
    enter(door);
    for (int i = 0; i < door->size && !found; i++) {
        found = door->ports[i].paused.why;
        if (found) *paused = door->ports[i].paused;
        door->ports[i].paused.why = 0;
    }
    leave(door);
    return found;
}

/* --- what was handed over --- */

int as_take(struct as_door *door, struct as_handed *handed, int most) {
    enter(door);
    int count = 0;
    for (; count < most && door->tail != door->head; count++) handed[count] = door->handed[door->tail++ % ROOM];
    leave(door);
    return count;
}

/* `news` rings for the first one of those that are taken together. */
static void note(struct as_door *door, int listening, int instance, int accepted, const struct as_client_name *name) {
    struct as_handed *each = &door->handed[door->head % ROOM];
    socklen_t size = sizeof each->cookie;
    each->listening = listening;
    each->instance = instance;
    memcpy(each->name, name, sizeof *name);
    getsockopt(accepted, SOL_SOCKET, SO_COOKIE, &each->cookie, &size);
    if (door->head++ == door->tail) ring(door->news);
}

/* --- the thread --- */

void as_what_closes(struct as_door *door, struct as_closed *closed) {
    enter(door);
    *closed = door->closed;
    leave(door);
}

/* Nobody comes in for so long, who is there waits in the kernel's queue. Python is told of what it didn't know. */
static void close_for(struct as_door *door, double seconds, int error, int full) {
    int is_news = error != door->closed.error || (full && !door->closed.full);
    door->closed = (struct as_closed){error, full};
    door->closed_until = now() + seconds;
    if (is_news) ring(door->pauses);
}

/* Whether there is room for one more, as far as can be known before one comes. */
static int is_open(struct as_door *door) {
    if (door->carrier < 0) door->carrier = make_carrier();
    if (door->carrier < 0) {
        close_for(door, PAUSE, -door->carrier, 0);
        return 0;
    }
    if (as_is_full(door->turnstile)) {
        close_for(door, INFINITY, 0, 1);
        return 0;
    }
    double pause = as_pause(door->turnstile, now());
    if (pause) close_for(door, pause, 0, 0);
    return !pause;
}

static struct as_instance *whose_turn(struct port *port) {
    double time = now();
    struct as_instance *first = NULL;
    int64_t all = 0;
    for (int i = 0; i < port->count; i++) {
        struct as_instance *each = &port->instances[i];
        if (each->rests_until > time) continue;
        each->credit += each->part;
        all += each->part;
        if (!first || each->credit > first->credit) first = each;
    }
    if (first) first->credit -= all;
    return first;
}

/* False: it has to go, or to be counted. */
static int has_room(struct as_door *door, int listening, const struct comer *comer) {
    uint8_t ip[16];
    put_ip(&comer->peer, ip);
    as_let_in(door->turnstile, ip);
    if (!as_has_too_many(door->turnstile, ip)) return 1;
    if (!as_may_count_in(door->turnstile, now())) {
        pause_port(door, listening, AS_CROWDED, comer->fd, 0);
    } else {
        as_turn_away(door->turnstile, ip);
        reset(comer->fd);
    }
    return 0;
}

static void bring_in(struct as_door *door, int listening, const struct comer *comer) {
    struct as_instance *to = whose_turn(&door->ports[listening]);
    struct as_client_name name = name_of(comer, door->salt, to ? to->family : 0);
    if (to && deliver(door->carrier, comer->fd, &name, to->handle)) {
        note(door, listening, (int)(to - door->ports[listening].instances), comer->fd, &name);
        close(comer->fd); /* before anything else: till then its program's close isn't the last */
    } else {
        if (to) to->rests_until = now() + REST;
        pause_port(door, listening, AS_UNTAKEN, comer->fd, 0);
    }
    if (to) close(door->carrier);
    if (to) door->carrier = make_carrier();
}

/* Lets the next one in, if somebody is there and the port can be served now. */
static void serve_next(struct as_door *door, int listening) {
    struct port *port = listening < door->size ? &door->ports[listening] : NULL;
    struct comer comer;
    if (!port || !port->running || door->stopped) return;
    if (port->epoch != *door->epoch || door->head - door->tail == ROOM) {
        pause_port(door, listening, AS_STALE, -1, 0);
        return;
    }
    if (!is_open(door)) return;
    int error = accept_next(listening, &comer);
    if (error == -EMFILE || error == -ENFILE || error == -ENOBUFS || error == -ENOMEM)
        close_for(door, PAUSE, -error, 0);
    else if (error && error != -EAGAIN)
        pause_port(door, listening, AS_UNACCEPTED, -1, -error);
    if (error) {
        as_give_back(door->turnstile);
        return;
    }
    if (door->closed.error || door->closed.full) close_for(door, 0, 0, 0);
    if (has_room(door, listening, &comer)) bring_in(door, listening, &comer);
}

/* One a round: to ask whether there is another costs more than to be told so. */
static void serve(struct as_door *door, int listening) {
    enter_last(door);
    if (door->closed_until <= now()) serve_next(door, listening);
    leave(door);
}

/* Until it is woken, or the time is over. */
static void wait_closed(struct as_door *door, double seconds) {
    struct pollfd woken = {door->wake, POLLIN, 0};
    struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
    ppoll(&woken, 1, seconds == INFINITY ? NULL : &time, NULL);
}

void as_door_run(struct as_door *door) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_NAME, "appswitch-door");
    while (!door->stopped) {
        struct epoll_event events[EVENTS];
        enter_last(door);
        double pause = door->closed_until - now();
        leave(door);
        if (pause > 0) wait_closed(door, pause);
        int count = epoll_wait(door->epoll, events, EVENTS, pause > 0 ? 0 : -1);
        for (int i = 0; i < count; i++) {
            eventfd_t rung;
            if (events[i].data.fd == door->wake)
                eventfd_read(door->wake, &rung);
            else
                serve(door, events[i].data.fd);
        }
    }
}
