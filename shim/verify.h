/* Who connected: checked on the server's side by what the kernel says, not by what the client's name says. */
#ifndef APPSWITCH_VERIFY_H
#define APPSWITCH_VERIFY_H

#include "wire.h"

/* 1 when the connection `accepted` by `listener` really is from where its client's name says, and that client may be
 * here; 0 when not; -errno when that can't be found out. An accepted Unix socket belongs to the network namespace of
 * the program that connected (SO_NETNS_COOKIE, Linux 5.14); the trap handler knows whose that is, and its answer is
 * kept while the epoch lasts. */
long verify_client(int accepted, const struct as_listener_name *listener, const struct as_client_name *client);

#endif
