#define _GNU_SOURCE
#include "lanes_in.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gateway/deliver.h"
#include "record.h"
#include "reset.h"
#include "window.h"

enum {
    EVENTS = 64,      /* a round */
    WAITING = 256,    /* connections of which less than a record has come; the oldest goes for a new one */
    PATIENCE = 2000,  /* milliseconds, with one of those */
    PAUSE = 100,      /* milliseconds, where nothing can be accepted */
    ENTRIES = 1 << 18 /* that may wait to be taken; then lanes are refused until they are */
};

struct lane {
    uint64_t number; /* 0: none is here */
    uint64_t epoch;
    int handle, family, client_family;
    uint8_t key[AS_LANE_KEY];
    struct as_window window;
};

struct waiting {
    int fd; /* -1: none is here */
    uint64_t until;
};

struct as_lanes_in {
    int listening, told, epoll, unsaid; /* unsaid: a descriptor that the trap handler is to hear of first, or -1 */
    int carrier;                        /* for the next one who comes (deliver.h), or less than 0 */
    bool open;
    uint64_t paused_until;
    const uint64_t *epoch;
    uint32_t salt;
    struct waiting waiting[WAITING];
    unsigned next_place;
    pthread_mutex_t lock; /* of all that follows */
    struct lane *lanes[AS_MOST_LANES];
    struct as_lane_entry *entries;
    int count, room;
    bool news, stale; /* the trap handler has been told so */
};

/* What epoll says it of: a place among those that wait, or ... */
enum { LISTENING = WAITING, TOLD };

static uint64_t milliseconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000 + (uint64_t)time.tv_nsec / 1000000;
}

static void watch(struct as_lanes_in *lanes, int operation, int fd, uint32_t events, uint32_t what) {
    struct epoll_event event = {.events = events, .data.u32 = what};
    epoll_ctl(lanes->epoll, operation, fd, &event);
}

struct as_lanes_in *as_lanes_in_new(int listening, int told, int epoch_fd, uint32_t salt) {
    struct as_lanes_in *lanes = calloc(1, sizeof *lanes);
    if (lanes == NULL) return NULL;
    lanes->epoch = mmap(NULL, sizeof *lanes->epoch, PROT_READ, MAP_SHARED, epoch_fd, 0);
    lanes->epoll = lanes->epoch == MAP_FAILED ? -1 : epoll_create1(EPOLL_CLOEXEC);
    if (lanes->epoll < 0) {
        if (lanes->epoch != MAP_FAILED) munmap((void *)lanes->epoch, sizeof *lanes->epoch);
        free(lanes);
        return NULL;
    }
    lanes->listening = listening;
    lanes->told = told;
    lanes->unsaid = -1;
    lanes->carrier = -1;
    lanes->open = true;
    lanes->salt = salt;
    for (int i = 0; i < WAITING; i++) lanes->waiting[i].fd = -1;
    pthread_mutex_init(&lanes->lock, NULL);
    watch(lanes, EPOLL_CTL_ADD, listening, EPOLLIN, LISTENING);
    watch(lanes, EPOLL_CTL_ADD, told, 0, TOLD);
    return lanes;
}

/* --- what lanes there are; the lock is held */

static struct lane **place_of(struct as_lanes_in *lanes, uint64_t number) {
    return &lanes->lanes[number % AS_MOST_LANES];
}

static struct lane *find(struct as_lanes_in *lanes, uint64_t number) {
    struct lane *lane = *place_of(lanes, number);
    return lane && lane->number == number ? lane : NULL;
}

static void drop(struct lane **place) {
    if (*place == NULL) return;
    close((*place)->handle);
    free(*place);
    *place = NULL;
}

int as_lane_put(struct as_lanes_in *lanes, uint64_t number, const uint8_t *key, int handle, int family,
                int client_family, uint64_t epoch) {
    struct lane *lane = calloc(1, sizeof *lane);
    int own = lane ? fcntl(handle, F_DUPFD_CLOEXEC, 0) : -1;
    if (own < 0) {
        int error = -errno;
        free(lane);
        return error;
    }
    lane->number = number;
    lane->epoch = epoch;
    lane->handle = own;
    lane->family = family;
    lane->client_family = client_family;
    memcpy(lane->key, key, AS_LANE_KEY);
    pthread_mutex_lock(&lanes->lock);
    drop(place_of(lanes, number));
    *place_of(lanes, number) = lane;
    pthread_mutex_unlock(&lanes->lock);
    return 0;
}

void as_lane_judged(struct as_lanes_in *lanes, uint64_t number, uint64_t epoch) {
    pthread_mutex_lock(&lanes->lock);
    struct lane *lane = find(lanes, number);
    if (lane) lane->epoch = epoch;
    lanes->stale = false;
    pthread_mutex_unlock(&lanes->lock);
}

void as_lane_drop(struct as_lanes_in *lanes, uint64_t number) {
    pthread_mutex_lock(&lanes->lock);
    if (find(lanes, number)) drop(place_of(lanes, number));
    pthread_mutex_unlock(&lanes->lock);
}

int as_lanes_in_take(struct as_lanes_in *lanes, struct as_lane_entry *entries, int most) {
    pthread_mutex_lock(&lanes->lock);
    int count = lanes->count < most ? lanes->count : most;
    lanes->count -= count;
    if (count) {
        memcpy(entries, lanes->entries, (size_t)count * sizeof *entries);
        memmove(lanes->entries, lanes->entries + count, (size_t)lanes->count * sizeof *entries);
    }
    lanes->news = lanes->count != 0;
    pthread_mutex_unlock(&lanes->lock);
    return count;
}

void as_lanes_in_free(struct as_lanes_in *lanes) {
    for (int i = 0; i < AS_MOST_LANES; i++) drop(&lanes->lanes[i]);
    for (int i = 0; i < WAITING; i++)
        if (lanes->waiting[i].fd >= 0) close(lanes->waiting[i].fd);
    if (lanes->unsaid >= 0) close(lanes->unsaid);
    if (lanes->carrier >= 0) close(lanes->carrier);
    close(lanes->epoll);
    munmap((void *)lanes->epoch, sizeof *lanes->epoch);
    pthread_mutex_destroy(&lanes->lock);
    free(lanes->entries);
    free(lanes);
}

static bool have_entry(struct as_lanes_in *lanes) {
    if (lanes->count < lanes->room) return true;
    int room = lanes->room ? 2 * lanes->room : 256;
    struct as_lane_entry *entries = room > ENTRIES ? NULL : realloc(lanes->entries, (size_t)room * sizeof *entries);
    if (entries == NULL) return false;
    lanes->entries = entries;
    lanes->room = room;
    return true;
}

static bool give(struct as_lanes_in *lanes, const struct lane *lane, const struct as_lane_record *record, int fd) {
    struct as_client_name name = name_of_record(record, lanes->salt, lane->family, AS_TCP_SERVER);
    if (lane->epoch != __atomic_load_n(lanes->epoch, __ATOMIC_ACQUIRE) || name.client_family != lane->client_family)
        return false;
    struct as_lane_entry *entry;
    socklen_t size = sizeof entry->cookie;
    if (!have_entry(lanes)) return false;
    entry = &lanes->entries[lanes->count];
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &entry->cookie, &size) < 0) return false;
    if (lanes->carrier < 0 || !deliver(lanes->carrier, fd, &name, lane->handle)) return false;
    entry->lane = lane->number;
    memcpy(entry->name, &name, sizeof name);
    lanes->count++;
    return true;
}

/* --- what comes; from here on the lock isn't held */

/* False: it can't be told now. */
static bool tell(struct as_lanes_in *lanes, int32_t fd) {
    ssize_t size = send(lanes->told, &fd, sizeof fd, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (size < 0 && errno == EPIPE) lanes->open = false;
    return size == sizeof fd;
}

/* What it says; the lock is held. AS_LANE_NEWS, AS_LANE_STALE: the trap handler is to hear it; 0: nothing. */
static int32_t word_on(struct as_lanes_in *lanes, const struct lane *lane, bool given) {
    if (given && !lanes->news) return lanes->news = true, AS_LANE_NEWS;
    if (!given && !lanes->stale && lane->epoch != __atomic_load_n(lanes->epoch, __ATOMIC_ACQUIRE))
        return lanes->stale = true, AS_LANE_STALE;
    return 0;
}

/* It couldn't be told: the next one tells it. */
static void forget_word(struct as_lanes_in *lanes, int32_t word) {
    pthread_mutex_lock(&lanes->lock);
    *(word == AS_LANE_NEWS ? &lanes->news : &lanes->stale) = false;
    pthread_mutex_unlock(&lanes->lock);
}

static void renew_carrier(struct as_lanes_in *lanes) {
    if (lanes->carrier >= 0) close(lanes->carrier);
    lanes->carrier = make_carrier();
}

/* A record is there: whoever knows its lane's key gets an answer, but for one who shows it twice. */
static void take_record(struct as_lanes_in *lanes, int fd) {
    struct as_lane_record record;
    uint8_t refusal[AS_REFUSAL];
    bool known = false, given = false;
    int32_t word = 0;
    if (recv(fd, &record, sizeof record, MSG_DONTWAIT) != sizeof record) return reset(fd);
    pthread_mutex_lock(&lanes->lock);
    struct lane *lane = find(lanes, be64toh(record.lane));
    if (lane && is_sealed(&record, lane->key) && use_number(&lane->window, be64toh(record.number))) {
        known = true;
        given = give(lanes, lane, &record, fd);
        if (!given) make_refusal(&record, lane->key, refusal);
        word = word_on(lanes, lane, given);
    }
    pthread_mutex_unlock(&lanes->lock);
    if (!known) return reset(fd);
    if (!given) send(fd, refusal, sizeof refusal, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd); /* before anything else: till then its program's close isn't the last */
    if (word && !tell(lanes, word)) forget_word(lanes, word);
    renew_carrier(lanes);
}

/* A stranger, or a peer; the trap handler finds out. */
static void pass_up(struct as_lanes_in *lanes, int fd) {
    if (tell(lanes, fd)) return;
    lanes->unsaid = fd;
    watch(lanes, EPOLL_CTL_DEL, lanes->listening, 0, LISTENING);
    watch(lanes, EPOLL_CTL_MOD, lanes->told, EPOLLOUT, TOLD);
}

static void go_on(struct as_lanes_in *lanes) {
    if (lanes->unsaid < 0 || !tell(lanes, lanes->unsaid)) return;
    lanes->unsaid = -1;
    watch(lanes, EPOLL_CTL_MOD, lanes->told, 0, TOLD);
    watch(lanes, EPOLL_CTL_ADD, lanes->listening, EPOLLIN, LISTENING);
}

enum what { A_RECORD, NO_RECORD, TOO_LITTLE, GONE };

static enum what look_at(int fd) {
    struct as_lane_record record;
    ssize_t size = recv(fd, &record, sizeof record, MSG_PEEK | MSG_DONTWAIT);
    if (size < 0) return errno == EAGAIN ? TOO_LITTLE : GONE;
    if (size == 0) return GONE;
    if (!may_be_record(&record, (size_t)size)) return NO_RECORD;
    return size == sizeof record ? A_RECORD : TOO_LITTLE;
}

/* Edge-triggered, for what has come stays where it is. */
static void let_wait(struct as_lanes_in *lanes, int fd) {
    unsigned place = lanes->next_place++ % WAITING;
    if (lanes->waiting[place].fd >= 0) reset(lanes->waiting[place].fd);
    lanes->waiting[place] = (struct waiting){fd, milliseconds() + PATIENCE};
    watch(lanes, EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLRDHUP | EPOLLET, place);
}

/* place: where it waits, -1: nowhere yet. */
static void sort(struct as_lanes_in *lanes, int fd, int place) {
    enum what what = look_at(fd);
    if (what == TOO_LITTLE) {
        if (place < 0) let_wait(lanes, fd);
        return;
    }
    if (place >= 0) {
        watch(lanes, EPOLL_CTL_DEL, fd, 0, 0);
        lanes->waiting[place].fd = -1;
    }
    if (what == A_RECORD)
        take_record(lanes, fd);
    else if (what == NO_RECORD && lanes->unsaid < 0)
        pass_up(lanes, fd);
    else
        close(fd);
}

/* One a round: to ask whether there is another costs more than to be told so. */
static void accept_next(struct as_lanes_in *lanes) {
    if (!lanes->open || lanes->unsaid >= 0) return;
    int fd = accept4(lanes->listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) return sort(lanes, fd, -1);
    if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) return;
    lanes->paused_until = milliseconds() + PAUSE; /* descriptors are short, or memory is */
    watch(lanes, EPOLL_CTL_DEL, lanes->listening, 0, LISTENING);
}

/* Milliseconds to the next thing to do; -1: none. */
static int clear_up(struct as_lanes_in *lanes) {
    uint64_t now = milliseconds(), next = UINT64_MAX;
    if (lanes->paused_until && lanes->paused_until <= now) {
        lanes->paused_until = 0;
        if (lanes->unsaid < 0) watch(lanes, EPOLL_CTL_ADD, lanes->listening, EPOLLIN, LISTENING);
    }
    if (lanes->paused_until) next = lanes->paused_until;
    for (int i = 0; i < WAITING; i++) {
        struct waiting *each = &lanes->waiting[i];
        if (each->fd >= 0 && each->until <= now) {
            reset(each->fd);
            each->fd = -1;
        }
        if (each->fd >= 0 && each->until < next) next = each->until;
    }
    return next == UINT64_MAX ? -1 : (int)(next - now) + 1;
}

void as_lanes_in_run(struct as_lanes_in *lanes) {
    struct epoll_event events[EVENTS];
    while (lanes->open) {
        if (lanes->carrier < 0) renew_carrier(lanes);
        int count = epoll_wait(lanes->epoll, events, EVENTS, clear_up(lanes));
        for (int i = 0; i < count; i++) {
            uint32_t what = events[i].data.u32;
            if (what == TOLD && events[i].events & (EPOLLHUP | EPOLLERR))
                lanes->open = false;
            else if (what == TOLD)
                go_on(lanes);
            else if (what == LISTENING)
                accept_next(lanes);
            else if (lanes->waiting[what].fd >= 0)
                sort(lanes, lanes->waiting[what].fd, (int)what);
        }
    }
}
