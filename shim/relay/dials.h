/* Clients on their way to an instance on another host, by lanes (lane/lane.h). */
#ifndef APPSWITCH_RELAY_DIALS_H
#define APPSWITCH_RELAY_DIALS_H

#include <stdbool.h>
#include <stdint.h>

struct as_door_order;
struct comer;

/* AS_LANE_OPEN. */
void put_lane(const struct as_door_order *order);

/* Brings a client there by the lane at this place; door, idle_ms: of the door that it came to. */
void dial_by(uint16_t place, uint16_t door, uint32_t idle_ms, const struct comer *comer);

/* Whether there is room for one more. */
bool may_dial(void);

/* Whether clients are on their way. */
bool dials_open(void);

/* The trap handler has gone: clients that were to be given back end. */
void drop_returning(void);

/* Once a round; and when next, by round_time; UINT64_MAX: never. */
void end_dials_round(void);
uint64_t next_dial_at(void);

#endif
