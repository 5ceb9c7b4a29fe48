#define _GNU_SOURCE
#include "deliver.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int pass(int carrier, int fd) {
    char byte = 0;
    struct iovec vector = {&byte, 1};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    return sendmsg(carrier, &message, MSG_NOSIGNAL) == 1 ? 0 : -1;
}

int make_carrier(void) {
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return made < 0 ? -errno : made;
}

int deliver(int carrier, int fd, const struct as_client_name *name, int handle) {
    struct sockaddr_un own = {.sun_family = AF_UNIX}, to = {.sun_family = AF_UNIX};
    memcpy(own.sun_path, name, sizeof *name);
    int size = snprintf(to.sun_path, sizeof to.sun_path, "/proc/self/fd/%d", handle);
    socklen_t head = offsetof(struct sockaddr_un, sun_path);
    return !bind(carrier, (struct sockaddr *)&own, head + sizeof *name) &&
           !connect(carrier, (struct sockaddr *)&to, head + (socklen_t)size + 1) && !pass(carrier, fd);
}
