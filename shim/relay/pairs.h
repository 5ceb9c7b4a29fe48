/* Pairs of stream sockets: what comes from one goes to the other, both ways, until both have ended. */
#ifndef APPSWITCH_RELAY_PAIRS_H
#define APPSWITCH_RELAY_PAIRS_H

#include <stddef.h>
#include <stdint.h>

#include "watched.h"

/* Takes both sockets. head: the second one gets it before all else; idle_ms: 0: for ever. */
void join_pair(const int sockets[2], const void *head, size_t length, uint32_t idle_ms);

/* What epoll is to tell of each end of a pair, once. */
extern const uint32_t END_EVENTS;

/* A pair that is yet to be: its ends are watched already, for somebody else (end_of: 0, 1), so that nothing is to be
 * done about that when they are joined. NULL: there is no memory. */
struct pair *new_pair(void);
struct watched *end_of(struct pair *pair, int index);

/* It won't be one. Freed after the round. */
void forget_pair(struct pair *pair);

/* From now on it is one. Both sockets are non-blocking, without Nagle's algorithm, with urgent data in the stream, and
 * nobody else has them. said: what epoll has told of each so far; refusal: AS_REFUSAL bytes; if the second one begins
 * with these, the pair is reset (lane/lane.h). NULL: it doesn't. */
void join_ends(struct pair *pair, const int sockets[2], const uint32_t said[2], const uint8_t *refusal,
               uint32_t idle_ms);

/* What begin_round has read, in milliseconds. */
uint64_t round_time(void);

/* After a round of events: passes on what can be, frees what has ended, resets what was idle too long. */
void end_round(void);

/* Milliseconds until end_round has something to do; -1: nothing. */
int next_round_in(void);

/* Reads the clock: once a round. */
void begin_round(void);

uint32_t pairs_open(void);
uint64_t pairs_joined(void);
uint64_t bytes_passed(void);

#endif
