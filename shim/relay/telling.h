/* What the trap handler is told of doors and lanes (doors.h). */
#ifndef APPSWITCH_RELAY_TELLING_H
#define APPSWITCH_RELAY_TELLING_H

#include <stdbool.h>
#include <stdint.h>

struct as_lane_record;

enum { TRY_AGAIN = 20 }; /* milliseconds; where nothing can be told, or accepted */

/* By this channel from now on; what hasn't been told is forgotten. -1: nobody hears. */
void tell_by(int channel);
bool is_heard(void);

/* Whether there is room for clients' entries; else nobody is accepted until they are told. */
bool may_note(void);

/* One that stands, to the other host by `inner`. */
void note(const struct as_lane_record *record, int inner);

/* A client comes back: to which door, from which lane (the relay's numbers), why. False: not now. */
bool say_given_back(uint16_t door, uint16_t lane, int32_t error, int client);

/* AS_TELL_ALL. */
void tell_all(uint32_t question);

/* Once a round; and when next, by round_time; UINT64_MAX: never. */
void end_telling_round(void);
uint64_t next_telling_at(void);

#endif
