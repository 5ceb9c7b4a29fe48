/* Which numbers of a lane have come: each is good once (as RFC 4303 3.4.3 has it for packets). */
#ifndef APPSWITCH_LANE_WINDOW_H
#define APPSWITCH_LANE_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

enum { AS_WINDOW = 16384 /* so far behind the highest one a number may come: a SYN that was lost is a second late */ };

struct as_window {
    uint64_t highest;
    uint64_t seen[256]; /* bits, AS_WINDOW */
};

/* False: it has come already, or comes too late to know. All zero: none has come. Numbers begin with 1. */
bool use_number(struct as_window *window, uint64_t number);

#endif
