/* How it works. Clients that stand are noted, and told of many at a time, at most AS_TELL_EVERY later; whoever asks
 * hears of all. What the channel doesn't take now is tried again.
 */
#define _GNU_SOURCE
#include "telling.h"

#include <endian.h>
#include <string.h>
#include <sys/socket.h>

#include "doors.h"
#include "lane/record.h"
#include "pairs.h"

enum {
    MOST_UNTOLD = 1024, /* entries; then no client is accepted until they are told */
    ENTRIES = 4 * 1024  /* for the dials that are begun then, too */
};

static int channel = -1;
static struct as_lane_entry entries[ENTRIES];
static unsigned untold;
static uint64_t tell_at = UINT64_MAX;
static uint32_t question;
static bool asked;

void tell_by(int fd) {
    channel = fd;
    untold = 0;
    asked = false;
    tell_at = UINT64_MAX;
}

bool is_heard(void) {
    return channel >= 0;
}

bool may_note(void) {
    return untold < MOST_UNTOLD;
}

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

void note(const struct as_lane_record *record, int inner) {
    struct as_lane_entry *entry = &entries[untold];
    socklen_t size = sizeof entry->cookie;
    if (channel < 0 || untold == ENTRIES) return;
    if (getsockopt(inner, SOL_SOCKET, SO_COOKIE, &entry->cookie, &size) < 0) return;
    struct as_client_name name = name_of_record(record, 0, 0, AS_TCP_CLIENT);
    memcpy(entry->name, &name, sizeof name);
    entry->lane = be64toh(record->lane);
    if (!untold++) tell_at = round_time() + AS_TELL_EVERY;
}

bool say_given_back(uint16_t door, uint16_t lane, int32_t error, int client) {
    return say(AS_GIVEN_BACK, &(struct as_door_report){.door = door, .lane = lane, .error = error}, NULL, 0, client);
}

void tell_all(uint32_t number) {
    question = number;
    asked = true;
    tell_at = 0;
}

void end_telling_round(void) {
    if (tell_at <= round_time() || untold >= AS_MOST_ENTRIES) tell();
}

uint64_t next_telling_at(void) {
    return tell_at;
}
