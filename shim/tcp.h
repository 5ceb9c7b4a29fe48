/* Connections that are TCP: between hosts, and where `spawn --tcp` asks for it. Their sockets are of another network
 * namespace, so the kernel's names of them aren't those that the program is to see. */
#ifndef APPSWITCH_TCP_H
#define APPSWITCH_TCP_H

#include "names.h"

/* Puts the TCP socket that `accepted` delivers in its place. name: of `accepted`; flags: accept4's.
 * 0; -ECONNABORTED: there is none, the trap handler has broken off; -EMFILE: no room for it. */
long receive_delivery(int accepted, int flags, const struct as_client_name *name);

/* From now on `fd` is known to have this name. */
void remember_name(int fd, const struct as_client_name *name);

/* The name of a TCP socket of ours: of the client's end or, by name->medium, the server's. False: it isn't one.
 * identity: what `identify` says of fd. */
int find_name(int fd, const struct identity *identity, struct as_client_name *name);

#endif
