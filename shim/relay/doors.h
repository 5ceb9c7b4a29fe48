/* Doors: ports of a gateway whose clients the relay takes in by itself, and lanes (lane/lane.h), by which it brings
 * them to instances on other hosts. cffi reads this file, too, as it does wire.h.
 *
 * `appswitch serve` says what there is, and hears what has happened, by a SOCK_SEQPACKET channel of its own, one
 * message each (AS_DOORS in join.h): when it is closed, all doors are shut, and what is joined goes on.
 */
#ifndef APPSWITCH_RELAY_DOORS_H
#define APPSWITCH_RELAY_DOORS_H

#include <stdint.h>

#include "lane/lane.h"

enum {
    AS_MOST_DOORS = 1024,
    AS_MOST_TURNS = 1024,  /* of a door */
    AS_MOST_ENTRIES = 512, /* in one message */
    AS_TELL_EVERY = 100    /* milliseconds at most that entries wait */
};

enum as_door_op {
    AS_LANE_OPEN =
        1, /* number (of the relay's; what had it goes), lane, key, and where the other host's peer port is */
    AS_DOOR_OPEN = 2,  /* number, idle_ms, turns; with a listening socket (SCM_RIGHTS) */
    AS_DOOR_TURNS = 3, /* number: other turns from now on */
    AS_DOOR_SHUT = 4,  /* number */
    AS_TELL_ALL = 5    /* number: of the question -> entries that haven't been told, then AS_TOLD_ALL */
};

struct as_door_order {
    uint32_t op;
    uint32_t number;
    uint32_t idle_ms; /* as of as_join */
    uint32_t count;   /* of turns, uint16_t each, that follow: numbers of lanes, which take turns */
    uint64_t lane;
    uint8_t key[16];
    uint8_t ip[16];
    uint16_t port;
    uint16_t zero[3];
};

enum as_door_word {
    AS_ENTRIES = 1,    /* count of as_lane_entry follow: connections that stand */
    AS_GIVEN_BACK = 2, /* door, lane (the relay's numbers), error; with a client (SCM_RIGHTS) of whom nothing has been
                          read: ECONNREFUSED: the other host refuses it, others: it can't be reached */
    AS_TOLD_ALL = 3    /* door: the number of the question */
};

struct as_door_report {
    uint32_t word;
    uint32_t count;
    uint32_t door;
    uint32_t lane;
    int32_t error;
    uint32_t zero;
};

#endif
