/* Who comes to a gateway from outside, and what an instance here gets to know of it (door.c). */
#ifndef APPSWITCH_GATEWAY_COMER_H
#define APPSWITCH_GATEWAY_COMER_H

#include <sys/socket.h>

#include "wire.h"

struct comer {
    int fd; /* non-blocking */
    struct sockaddr_storage peer, own;
};

/* The next one that waits. 0, or -errno: -EAGAIN: nobody does. */
int accept_next(int listening, struct comer *comer);

/* An address as names have it (wire.h); IPv4 as ::ffff:0:0/96. */
void put_ip(const struct sockaddr_storage *from, uint8_t ip[16]);

/* Its port. */
uint16_t port_of(const struct sockaddr_storage *from);

/* By which name the instance gets to know it. family: the listener's, 4 or 6. */
struct as_client_name name_of(const struct comer *comer, uint32_t salt, int family);

#endif
