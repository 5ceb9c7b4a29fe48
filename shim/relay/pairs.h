/* Pairs of stream sockets: what comes from one goes to the other, both ways, until both have ended. */
#ifndef APPSWITCH_RELAY_PAIRS_H
#define APPSWITCH_RELAY_PAIRS_H

#include <stddef.h>
#include <stdint.h>

#include "watched.h"

/* Takes both sockets. head: the second one gets it before all else; idle_ms: 0: for ever. */
void join_pair(int one, int other, const void *head, size_t length, uint32_t idle_ms);

/* The same for two that are non-blocking, without Nagle's algorithm, and watched already. refusal: AS_REFUSAL bytes; if
 * the second one begins with these, the pair is reset (lane/lane.h). NULL: it doesn't. */
void join_watched(int one, int other, const uint8_t *refusal, uint32_t idle_ms);

/* What begin_round has read, in milliseconds. */
uint64_t round_time(void);

/* After a round of events: frees what has ended, resets what was idle too long, goes on where a pipe was missing. */
void end_round(void);

/* Milliseconds until end_round has something to do; -1: nothing. */
int next_round_in(void);

/* Reads the clock: once a round. */
void begin_round(void);

uint32_t pairs_open(void);
uint64_t pairs_joined(void);
uint64_t bytes_passed(void);

#endif
