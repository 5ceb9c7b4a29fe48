/* Asking the trap handler. */
#ifndef APPSWITCH_CHANNEL_H
#define APPSWITCH_CHANNEL_H

#include "wire.h"

/* Descriptors that came with a reply, close-on-exec. */
struct passed {
    int count;
    int fd[AS_MOST_FDS];
};

/* A request of `op` with everything else zero. */
void new_request(struct as_request *request, enum as_op op);

/* Sends `request`, waits for `reply`; while a trap handler that was there has gone, it waits for another one, but not
 * for long (channel.c). 0, or -errno: that of the reply; -ENETDOWN when no trap handler answers; -EMFILE when this
 * process has no room for the first descriptor (then none came). Safe in a signal handler, in any thread, after fork
 * and in a vfork child. Keeps no lock. */
int ask(struct as_request *request, struct as_reply *reply, struct passed *passed);

/* Closes passed->fd[from] and what follows. */
void close_passed(struct passed *passed, int from);

/* The process id; 0 in a vfork child, which shares its parent's memory and must not write to it. */
int own_pid(void);

/* The id of the process whose memory it is: in a vfork child its parent's. */
int memory_pid(void);

/* A word of memory for fresh.c, which reads 0 until it is written, and again in a fork child; 0: there is none. */
int *word_of_process(void);

/* Whether a trap handler listens. */
int is_handler_there(void);

/* Whether it is the trap handler, or was its predecessor, that has the other end of a connected Unix socket, by
 * SO_PEERCRED. */
int is_from_handler(int fd);

/* Makes room for a descriptor in a process that has no more: the next request opens a channel again. */
void close_idle_channel(void);

#endif
