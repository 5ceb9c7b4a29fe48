#include "watched.h"

#include <stddef.h>
#include <sys/epoll.h>

static int epoll;

void watch_by(int watching) {
    epoll = watching;
}

bool watch(int fd, uint32_t events, struct watched *as) {
    struct epoll_event event = {.events = events, .data.ptr = as};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

void unwatch(int fd) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}
