/* Ending a TCP connection so that its other end is told: a reset, whatever is on its way. */
#ifndef APPSWITCH_RESET_H
#define APPSWITCH_RESET_H

#include <sys/socket.h>
#include <unistd.h>

static inline void reset(int fd) {
    struct linger at_once = {.l_onoff = 1, .l_linger = 0}; /* socket(7), SO_LINGER */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

#endif
