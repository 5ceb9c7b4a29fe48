/* A lane: what a gateway and the host of an instance have agreed on once (edge/doors.py, edge/lanes_in.py), so that
 * nothing is to be decided for each of the clients that go that way. cffi reads this file, too, as it does wire.h.
 *
 * A connection by a lane begins with a record, and is the client's and the program's from there on. It goes to the peer
 * port of the other host, and begins as all openings there do (wire/peer_channel.py). The record is good once: it has
 * a number, and a MAC by the lane's key, which only the two trap handlers know. Whoever doesn't take a connection whose
 * record was good answers with a refusal, a MAC over the same record, before anything else, and closes.
 */
#ifndef APPSWITCH_LANE_LANE_H
#define APPSWITCH_LANE_LANE_H

#include <stdint.h>

enum {
    AS_PEER_VERSION = 3, /* of the protocol between trap handlers */
    AS_LANE_KIND = 5,    /* of the opening */
    AS_LANE_KEY = 16,    /* bytes */
    AS_REFUSAL = 16,     /* bytes */
    AS_MOST_LANES = 4096 /* that lead to one host; and that one gateway has */
};

/* Integers are big-endian; addresses are as in wire.h. */
struct as_lane_record {
    uint8_t magic[4]; /* "ASPC" */
    uint8_t version;
    uint8_t kind;
    uint16_t size; /* of what follows, less the MAC */
    uint64_t lane;
    uint64_t number; /* of this connection; from 1 on, never again in this lane */
    uint8_t source_ip[16];
    uint8_t dest_ip[16]; /* of the gateway, as the client has dialled it */
    uint16_t source_port;
    uint16_t dest_port;
    uint32_t zero;
    uint8_t mac[16];
};

/* A connection that has gone its way: the cookie of its socket at this end (SO_COOKIE), the lane, and a struct
 * as_client_name. */
struct as_lane_entry {
    uint64_t cookie;
    uint64_t lane;
    uint8_t name[52];
    uint32_t zero;
};

#endif
