/* Clients at doors (doors.h), on their way to an instance on another host. */
#ifndef APPSWITCH_RELAY_TAKE_IN_H
#define APPSWITCH_RELAY_TAKE_IN_H

#include <stdbool.h>

/* To be watched by this epoll(7). */
void open_doors(int epoll);

/* The channel to the trap handler; what came by one before is gone. */
void use_channel(int channel);

/* All doors are shut; what is under way goes on. */
void leave_doors(void);

/* Whether clients may be accepted now: while there is room for their sockets. */
void let_in(bool may);

/* Whether clients are on their way. */
bool dials_open(void);

/* As of pairs.h, once a round. */
void end_doors_round(void);
int next_doors_round_in(void);

#endif
