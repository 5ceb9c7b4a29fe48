/* Asking the trap handler. */
#ifndef APPSWITCH_CHANNEL_H
#define APPSWITCH_CHANNEL_H

#include "wire.h"

/* A request of `op` with everything else zero. */
void new_request(struct as_request *request, enum as_op op);

/* Sends `request`, waits for `reply`. `*fd` gets the descriptor that came along, close-on-exec, or -1.
 * 0, or -errno: that of the reply; -ENETDOWN when no trap handler answers; -EMFILE when this process has no room for
 * the descriptor. Safe in a signal handler, in any thread, after fork and in a vfork child. Keeps no lock. */
int ask(struct as_request *request, struct as_reply *reply, int *fd);

#endif
