/* One message of a SOCK_SEQPACKET channel, with the descriptors that came along. */
#ifndef APPSWITCH_RELAY_RECEIVE_H
#define APPSWITCH_RELAY_RECEIVE_H

#include <stddef.h>

enum { MOST_FDS = 2 };

struct received {
    size_t size; /* 0: it was cut, it or its descriptors */
    int fds[MOST_FDS], found;
};

enum came { A_MESSAGE, NOT_NOW, NO_MORE };

/* NO_MORE: the other end has gone; it sends no empty message. */
enum came receive(int channel, void *data, size_t room, struct received *got);

#endif
