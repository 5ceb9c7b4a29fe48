/* Pipes for what is under way: splice(2) moves data through one, by reference.
 *
 * Who has something to pass on takes one, and gives it back empty; a few are kept for the next. So connections on which
 * nothing happens cost none. Here is known how many descriptors this process has, too: where there are no more, who
 * wants a pipe waits for one, and new connections wait in the channel that they come by, for a message whose
 * descriptors find no room would lose them (unix(7), SCM_RIGHTS).
 */
#ifndef APPSWITCH_RELAY_PIPES_H
#define APPSWITCH_RELAY_PIPES_H

#include <stdbool.h>
#include <stdint.h>

enum { NO_PIPE = -1 };

struct pipe {
    int in, out; /* NO_PIPE */
};

/* Raises the limit of descriptors as far as it goes. already: how many are open. */
void open_pipes(unsigned already);

/* False: there is none now. */
bool take_pipe(struct pipe *pipe);

/* It is empty. */
void give_pipe(struct pipe *pipe);

/* Whatever is in it. */
void drop_pipe(struct pipe *pipe);

uint32_t pipes_taken(void);

/* Sockets come, or (count < 0) have been closed. */
void count_sockets(int count);

/* Whether so many more sockets have room, and some pipes beside them. */
bool have_room(unsigned sockets);

/* Whether take_pipe would work. */
bool have_pipe(void);

#endif
