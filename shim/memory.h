/* Whether the program's pointers lead anywhere: where the kernel says EFAULT, the shim mustn't crash. The kernel is
 * asked, by a call that does nothing but read or write there. */
#ifndef APPSWITCH_MEMORY_H
#define APPSWITCH_MEMORY_H

#include <errno.h>
#include <sys/socket.h>

#include "sys.h"

/* A variable of who calls us, as most are: no need to ask. No pointer that is wild gets so near. */
static inline int is_near(const void *at) {
    return (uintptr_t)at - (uintptr_t)__builtin_frame_address(0) < 16384;
}

/* Whether `at` holds an int that can be read; `fd`: any socket, else the answer is no. (An option that doesn't exist is
 * read, and refused.) */
static inline int can_read(int fd, const void *at) {
    if (is_near(at)) return 1;
    long error = sys5(SYS_setsockopt, fd, SOL_SOCKET, -1, at, sizeof(int));
    return error != -EFAULT && error != -EBADF && error != -ENOTSOCK;
}

/* Whether `at` has room for a result of `size` bytes, of which the first four are looked at, and written to. */
static inline int can_write(int fd, void *at, socklen_t size) {
    return is_near(at) || sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, at, &size) != -EFAULT;
}

#endif
