/* Handing connections of clients outside over to instances here (edge/express.py); cffi reads this, as it does wire.h.
 *
 * How it works. All that wait in the queue of a gateway's port, up to so many, are taken and passed on in one call:
 * each as edge/deliver.py does it, by a Unix socket that bears the client's name. Nothing is decided here.
 */
#ifndef APPSWITCH_GATEWAY_HAND_OVER_H
#define APPSWITCH_GATEWAY_HAND_OVER_H

#include <stdint.h>

/* Which instance is next: an O_PATH descriptor of its listener, and that one's family (4 or 6). */
struct as_turn {
    int32_t handle;
    int32_t family;
};

/* One that was accepted. The name's bytes are a struct as_client_name. */
struct as_handed {
    int32_t fd; /* the accepted socket, where the instance didn't take it; else -1: it has it */
    int32_t pad;
    uint64_t cookie; /* of the accepted socket */
    uint8_t name[52];
};

/* How many were accepted; 0 where none waits, -errno where accept fails. The n-th is for the n-th of `turns`. */
int as_hand_over(int listening, uint32_t salt, const struct as_turn *turns, int count, struct as_handed *handed);

#endif
