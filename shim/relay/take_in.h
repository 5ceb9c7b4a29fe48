/* Clients at doors (doors.h), on their way to an instance on another host. */
#ifndef APPSWITCH_RELAY_TAKE_IN_H
#define APPSWITCH_RELAY_TAKE_IN_H

#include <stdbool.h>

/* The channel to the trap handler; what came by one before is gone. */
void use_channel(int channel);

/* All doors are shut; what is under way goes on. */
void leave_doors(void);

/* Whether clients may be accepted now: while there is room for their sockets. */
void let_in(bool may);

/* As of pairs.h, once a round. */
void end_doors_round(void);
int next_doors_round_in(void);

#endif
