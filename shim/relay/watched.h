/* What is watched, by the one epoll(7) that there is. Its data.ptr leads to the first member of whatever it is. */
#ifndef APPSWITCH_RELAY_WATCHED_H
#define APPSWITCH_RELAY_WATCHED_H

#include <stdbool.h>
#include <stdint.h>

struct watched {
    void (*on_event)(struct watched *watched, uint32_t events);
    void *owner; /* for on_event's use */
};

/* From now on, by this one. */
void watch_by(int epoll);

/* False: it can't be watched. */
bool watch(int fd, uint32_t events, struct watched *as);

/* Closing isn't enough while another process has it, too (epoll(7)). */
void unwatch(int fd);

#endif
