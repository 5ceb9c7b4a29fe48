#define _GNU_SOURCE
#include "receive.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static int take_fds(struct msghdr *message, int fds[MOST_FDS]) {
    int found = 0;
    for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each)) {
        if (each->cmsg_level != SOL_SOCKET || each->cmsg_type != SCM_RIGHTS) continue;
        int size = (int)((each->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        for (int i = 0; i < size && found < MOST_FDS; i++)
            memcpy(&fds[found++], CMSG_DATA(each) + (size_t)i * sizeof(int), sizeof(int));
    }
    return found;
}

enum came receive(int channel, void *data, size_t room, struct received *got) {
    union {
        char space[CMSG_SPACE(MOST_FDS * sizeof(int))];
        struct cmsghdr aligned;
    } control;
    struct iovec iov = {data, room};
    struct msghdr message = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t size = recvmsg(channel, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (size < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOMEM)) return NOT_NOW;
    if (size < 0) return NO_MORE;
    got->found = take_fds(&message, got->fds);
    if (size == 0 && !got->found) return NO_MORE;
    got->size = message.msg_flags & (MSG_TRUNC | MSG_CTRUNC) ? 0 : (size_t)size;
    return A_MESSAGE;
}
