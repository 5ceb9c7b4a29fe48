/* How it works. dup3 swaps the file under the number. An epoll set holds files, not numbers, so the registration of the
 * old file must go before dup3 (afterwards it can't be removed, and a ghost reports HUP for as long as a dup of the old
 * file lives) and come back after it. What was registered, the kernel tells: /proc/self/fdinfo/EPOLL lists a line
 * "tfd: N events: X data: Y" for each. Reading that costs as much as a connect, so it is done only for descriptors that
 * were added to some set: a bit each, which may be stale (then it only costs time) but is never missing.
 */
#define _GNU_SOURCE
#include "replace.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>

#include "options.h"
#include "sys.h"

enum { BITS = 65536, SETS = 64, MOST = 8 };

static uint8_t added[BITS / 8];
static int epolls[SETS]; /* descriptor + 1 of each epoll set seen; 0: free */

struct registration {
    int epoll;
    struct epoll_event event;
};

void note_epoll_add(int epoll, int fd) {
    if (fd >= 0 && fd < BITS) __atomic_fetch_or(&added[fd / 8], (uint8_t)(1 << fd % 8), __ATOMIC_RELAXED);
    for (int i = 0; i < SETS; i++) {
        int seen = 0;
        if (__atomic_compare_exchange_n(&epolls[i], &seen, epoll + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED) ||
            seen == epoll + 1)
            return;
    }
    __atomic_store_n(&epolls[epoll % SETS], epoll + 1, __ATOMIC_RELAXED); /* the oldest ones are likely closed */
}

int was_added_to_epoll(int fd) {
    return fd >= BITS || added[fd / 8] >> fd % 8 & 1;
}

static const char *read_number(const char *at, int base, uint64_t *number) {
    *number = 0;
    while (*at == ' ' || *at == '\t') at++;
    for (;; at++) {
        int digit = *at >= '0' && *at <= '9' ? *at - '0' : *at >= 'a' && *at <= 'f' ? *at - 'a' + 10 : 16;
        if (digit >= base) return at;
        *number = *number * (unsigned)base + (unsigned)digit;
    }
}

static const char *after(const char *line, const char *label) {
    size_t size = as_strlen(label);
    for (; *line; line++)
        if (memcmp(line, label, size) == 0) return line + size;
    return 0;
}

/* One line of fdinfo. True when it tells of `fd`. */
static int read_line(const char *line, int fd, struct epoll_event *event) {
    uint64_t number, events;
    if (!(line = after(line, "tfd:"))) return 0;
    line = read_number(line, 10, &number);
    if (number != (uint64_t)fd || !(line = after(line, "events:"))) return 0;
    line = read_number(line, 16, &events);
    if (!(line = after(line, "data:"))) return 0;
    read_number(line, 16, &number);
    event->events = (uint32_t)events;
    event->data.u64 = number;
    return 1;
}

static int find_registration(int epoll, int fd, struct epoll_event *event) {
    char path[40] = "/proc/self/fdinfo/", buffer[4096];
    size_t filled = 0, start = 0;
    int found = 0;
    write_number(path + as_strlen(path), (unsigned)epoll);
    long info = sys4(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (info < 0) return 0;
    while (!found) {
        long size = sys3(SYS_read, info, buffer + filled, sizeof buffer - filled);
        if (size <= 0) break;
        filled += (size_t)size;
        start = 0;
        for (size_t i = 0; i < filled && !found; i++)
            if (buffer[i] == '\n') {
                buffer[i] = 0;
                found = read_line(buffer + start, fd, event);
                start = i + 1;
            }
        for (size_t i = start; i < filled; i++) buffer[i - start] = buffer[i];
        filled -= start;
    }
    sys1(SYS_close, info);
    return found;
}

static int find_registrations(int fd, struct registration found[MOST]) {
    int count = 0;
    if (!was_added_to_epoll(fd)) return 0;
    for (int i = 0; i < SETS && count < MOST; i++) {
        int epoll = __atomic_load_n(&epolls[i], __ATOMIC_RELAXED) - 1;
        if (epoll >= 0 && find_registration(epoll, fd, &found[count].event)) found[count++].epoll = epoll;
    }
    return count;
}

static void carry_flags(int fd, int target, int status) {
    struct f_owner_ex owner = {F_OWNER_TID, 0};
    sys3(SYS_fcntl, fd, F_GETOWN_EX, &owner);
    if (owner.pid) sys3(SYS_fcntl, target, F_SETOWN_EX, &owner);
    long number = sys2(SYS_fcntl, fd, F_GETSIG);
    if (number > 0) sys3(SYS_fcntl, target, F_SETSIG, number);
    sys3(SYS_fcntl, target, F_SETFL, status);
}

long replace(int fd, int target, int status) {
    struct registration registrations[MOST];
    long flags = sys2(SYS_fcntl, fd, F_GETFD);
    carry_options(fd, target);
    carry_flags(fd, target, status);
    int count = find_registrations(fd, registrations);
    /* What can't be taken out is another file's, which had this number once and lives on under another. */
    for (int i = 0; i < count; i++)
        if (sys4(SYS_epoll_ctl, registrations[i].epoll, EPOLL_CTL_DEL, fd, 0) < 0) registrations[i].epoll = -1;
    long error = sys3(SYS_dup3, target, fd, flags > 0 && (flags & FD_CLOEXEC) ? O_CLOEXEC : 0);
    for (int i = 0; i < count; i++)
        if (registrations[i].epoll >= 0)
            sys4(SYS_epoll_ctl, registrations[i].epoll, EPOLL_CTL_ADD, fd, &registrations[i].event);
    sys1(SYS_close, target);
    return error < 0 ? error : 0;
}

long replace_by_tcp(int fd, int family, int status) {
    long tcp = sys3(SYS_socket, family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return tcp < 0 ? tcp : replace(fd, (int)tcp, status);
}
