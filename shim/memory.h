/* Whether the program's pointers lead anywhere: where the kernel says EFAULT, the shim mustn't crash. The kernel is
 * asked, by calls that do nothing but read or write there. */
#ifndef APPSWITCH_MEMORY_H
#define APPSWITCH_MEMORY_H

#include <errno.h>
#include <sys/socket.h>

#include "sys.h"

enum { MEMORY_PAGE = 4096 /* the smallest that there is: the larger ones are whole numbers of it */ };

/* A variable of who calls us, as most are: no need to ask. No pointer that is wild gets so near. */
static inline int is_near(const void *at) {
    return (uintptr_t)at - (uintptr_t)__builtin_frame_address(0) < 16384;
}

/* Whether all of the `size` bytes can be read: page by page, for a page can be or can't. (What is read as a set of
 * signals is read before it is found that nothing is to be done with it: rt_sigprocmask in kernel/signal.c.) */
static inline int can_read(const void *at, size_t size) {
    uintptr_t page = (uintptr_t)at & ~(uintptr_t)(MEMORY_PAGE - 1), last = (uintptr_t)at + size - 1;
    if (is_near(at) || !size) return 1;
    if (last < (uintptr_t)at || !page) return 0;
    for (; page <= last; page += MEMORY_PAGE)
        if (sys4(SYS_rt_sigprocmask, -1, page, 0, 8) == -EFAULT) return 0;
    return 1;
}

/* Four bytes or fewer; they are what they were afterwards. */
static inline int can_write_few(int fd, void *at, socklen_t size) {
    uint32_t was;
    if (!can_read(at, size)) return 0;
    memcpy(&was, at, size);
    if (sys5(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, at, &size) < 0) return 0;
    memcpy(at, &was, size);
    return 1;
}

/* Whether all of the `size` bytes can be written to, of which there are fewer than a page. fd: any socket,
 * else the answer is no. */
static inline int can_write(int fd, void *at, socklen_t size) {
    if (is_near(at)) return 1;
    socklen_t few = size < 4 ? size : 4;
    char *end = (char *)at + size - few;
    return can_write_few(fd, at, few) && (end == at || can_write_few(fd, end, few));
}

#endif
