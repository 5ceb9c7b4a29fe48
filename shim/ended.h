/* What a program sees that sends on a connection whose other end has closed. */
#ifndef APPSWITCH_ENDED_H
#define APPSWITCH_ENDED_H

#include <stddef.h>

/* Another EPIPE than TCP's? Says what TCP would: `count` bytes are sent, -ECONNRESET, or -EPIPE after all. */
long reconsider_epipe(int fd, size_t count);

/* shutdown(2). */
long do_shutdown(int fd, int how);

#endif
