/* Whether a UDP socket of this network namespace would get a datagram (sock_diag(7)). */
#ifndef APPSWITCH_RECEIVERS_H
#define APPSWITCH_RECEIVERS_H

#include "wire.h"

/* False: none would get one from (ip, port) to `dest`, or it can't be found out. As appswitch/edge/receivers.py. */
int has_receiver(const uint8_t ip[16], uint16_t port, const struct as_addr *dest);

#endif
