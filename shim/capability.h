/* Connecting without asking (DESIGN 3.4): with O_PATH descriptors of listeners' sockets that the trap handler gave. */
#ifndef APPSWITCH_CAPABILITY_H
#define APPSWITCH_CAPABILITY_H

#include "channel.h"
#include "wire.h"

/* A Unix socket connected to an instance that serves `remote`; or -1: ask the trap handler. It then is known whether
 * this destination comes up again: see wanted_capabilities. */
int connect_by_capability(const struct as_addr *remote);

/* The same for a fresh socket (fresh.h), whose F_GETFL is `status`. 0 or -errno: then it may have its name already. */
long connect_fresh_by_capability(int fd, const struct as_addr *remote, int status);

/* The flags of an AS_CONNECT request for `remote`: capabilities are wanted from the second connect on. */
int wanted_capabilities(const struct as_addr *remote);

/* Keeps what came with the answer to it: passed->fd[1] and what follows, which are closed or kept here. */
void keep_capabilities(const struct as_addr *remote, const struct as_reply *reply, struct passed *passed);

#endif
