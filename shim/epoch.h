/* The epoch: a number in memory that the trap handler shares with everybody, for reading. It grows whenever what was
 * learnt from the trap handler may no longer be true: a listener came or went, policy changed.
 *
 * When the trap handler ends, killed or not, the kernel changes the number's upper half (appswitch/edge/epoch.py). What
 * was true then stays true until another trap handler is there. */
#ifndef APPSWITCH_EPOCH_H
#define APPSWITCH_EPOCH_H

#include <stdint.h>

/* True while what was learnt at `epoch` is still true. False, too, when the page isn't mapped yet. */
int still_true(uint64_t epoch);

/* AS_WANT_EPOCH while the page isn't mapped, or is that of a trap handler that has ended; else 0. */
int wanted_epoch(void);

/* Maps the page that came with a reply; the descriptor stays open. */
void map_epoch(int fd);

#endif
