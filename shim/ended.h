/* What a program sees at the end: sending on a connection whose other end has closed; shutdown. */
#ifndef APPSWITCH_ENDED_H
#define APPSWITCH_ENDED_H

#include <stddef.h>
#include <sys/uio.h>

/* Another EPIPE than TCP's? Says what TCP would: `count` bytes are sent, or some; -ECONNRESET; or -EPIPE after all. */
long reconsider_epipe(int fd, size_t count);

/* write(2) and writev(2), of any file. */
long do_write(int fd, const void *data, size_t count);
long do_writev(int fd, const struct iovec *parts, int count);

/* Bytes in all. */
size_t size_of_parts(const struct iovec *parts, size_t count);

/* accept(2)'s EAGAIN; -EINVAL when the listener has been shut down. */
long reconsider_eagain(int fd);

/* shutdown(2). */
long do_shutdown(int fd, int how);

#endif
