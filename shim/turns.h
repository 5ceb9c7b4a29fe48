/* Whose turn it is. The turns are counted in memory that a process shares with those that it forks: so its children,
 * which know the same instances, go on with the turns where each would else begin anew, all with the same one. */
#ifndef APPSWITCH_TURNS_H
#define APPSWITCH_TURNS_H

#include <stdint.h>

enum { COUNTERS = 16 };

/* The number of the turn that comes next; it begins anywhere, and may wrap round. 0 where there is no memory. */
uint32_t coming_turn(int counter);

/* Takes it. */
uint32_t take_turn(int counter);

/* Which of `count` it is at this turn, by their weights: smooth weighted round robin (appswitch/core/balance.py). */
int whose_turn(uint32_t turn, const uint32_t *weight, int count);

#endif
