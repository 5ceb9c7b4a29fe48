/* What epoll's data.ptr leads to: the first member of whatever is watched. */
#ifndef APPSWITCH_RELAY_WATCHED_H
#define APPSWITCH_RELAY_WATCHED_H

#include <stdint.h>

struct watched {
    void (*on_event)(struct watched *watched, uint32_t events);
};

#endif
