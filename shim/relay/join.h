/* What `appswitch serve` says to its relay (main.c), one SOCK_SEQPACKET message each.
 *
 * cffi reads this file, too, as it does wire.h: the same rules hold.
 */
#ifndef APPSWITCH_RELAY_JOIN_H
#define APPSWITCH_RELAY_JOIN_H

#include <stdint.h>

enum {
    AS_MOST_HEAD = 4096 /* bytes that an empty pipe takes at once (PIPE_BUF in pipe(7)) */
};

enum as_relay_op {
    AS_JOIN =
        1, /* with two stream sockets (SCM_RIGHTS); after the struct: bytes that the second gets before all else */
    AS_TALLY = 2, /* -> as_tally, of the relay that takes new ones */
    AS_DOORS = 3  /* with a SOCK_SEQPACKET socket (SCM_RIGHTS): the channel of doors.h, in the place of any before */
};

struct as_join {
    uint32_t op;
    uint32_t idle_ms; /* 0: however long nothing passes */
};

struct as_tally {
    uint32_t pid;
    uint32_t pairs; /* open now */
    uint32_t pipes; /* taken now */
    uint32_t zero;
    uint64_t joined; /* in all */
    uint64_t bytes;  /* passed on in all, both ways */
};

#endif
