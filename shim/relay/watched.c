#include "watched.h"

#include <stddef.h>
#include <sys/epoll.h>

static int epoll;

void watch_by(int watching) {
    epoll = watching;
}

static bool control(int how, int fd, uint32_t events, struct watched *as) {
    struct epoll_event event = {.events = events, .data.ptr = as};
    return epoll_ctl(epoll, how, fd, &event) == 0;
}

bool watch(int fd, uint32_t events, struct watched *as) {
    return control(EPOLL_CTL_ADD, fd, events, as);
}

bool watch_for(int fd, uint32_t events, struct watched *as) {
    return control(EPOLL_CTL_MOD, fd, events, as);
}

void unwatch(int fd) {
    epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
}
