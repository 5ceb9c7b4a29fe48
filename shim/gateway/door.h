/* The usual way in for clients outside (edge/express.py): to instances on this host, where nothing is to be decided for
 * each connection but whether there is room for it. cffi reads this, without its lines that begin with #.
 *
 * How it works. A thread of its own waits at the ports that are served, accepts, and hands over to the instance whose
 * turn it is (deliver.c), so no client waits for Python. What it has done is in a list, which Python takes from time
 * to time. What isn't usual, or anything that Python has to decide, pauses a port until Python serves it again: so it
 * does for each port once the epoch (edge/epoch.py) has moved on, for then who is served may be another.
 *
 * All but as_door_run may be called by any other thread, and wait for one hand-over at most.
 */
#ifndef APPSWITCH_GATEWAY_DOOR_H
#define APPSWITCH_GATEWAY_DOOR_H

#include <stdint.h>

#include "turnstile.h"

/* Who takes turns, by smooth weighted round robin (core/balance.py: Rotation). handle: an O_PATH descriptor of its
 * listener; family: that one's, 4 or 6. */
struct as_instance {
    int64_t part, credit;
    int32_t handle, family;
    double rests_until; /* it didn't take a connection: the others have its turns meanwhile */
};

/* One that was handed over, to the n-th instance of its port. cookie: of the accepted socket; name: a struct
 * as_client_name. */
struct as_handed {
    uint64_t cookie;
    uint8_t name[52];
    int32_t listening, instance, pad;
};

/* Why a port is paused. */
enum as_why {
    AS_STALE = 1,  /* the epoch has moved on, or what was handed over is to be taken */
    AS_UNTAKEN,    /* the instance didn't take it: `accepted` */
    AS_CROWDED,    /* its source may have too many, which is to be counted: `accepted`, which is let in so far */
    AS_UNACCEPTED, /* accept(2) fails: `error` */
};

struct as_paused {
    int32_t listening, why, accepted, error;
};

/* What keeps all from coming in, now. error: descriptors or memory are wanting; full: it has to be counted anew. */
struct as_closed {
    int32_t error, full;
};

struct as_door;

/* epoch_fd: of the page; salt: in names; both stay the caller's. NULL: errno says why. */
struct as_door *as_door_open(int epoch_fd, uint32_t salt, struct as_turnstile *turnstile);

/* Lets clients in, until as_door_stop. */
void as_door_run(struct as_door *door);
void as_door_stop(struct as_door *door);

/* Once nobody runs it. */
void as_door_free(struct as_door *door);

/* Descriptors to poll: a port is paused, or nobody can come in; something was handed over. Reading is the reader's. */
int as_door_pauses(const struct as_door *door);
int as_door_news(const struct as_door *door);

/* The port is served, also once more, as long as that is the epoch. The instances stay the caller's, and must be there
 * until the port is served by others, or left. 0, or -errno. */
int as_serve(struct as_door *door, int listening, uint64_t epoch, struct as_instance *instances, int count);

/* It isn't served any longer. */
void as_leave(struct as_door *door, int listening);

/* The next one that has been paused, which isn't told again. 0: there is none. */
int as_next_paused(struct as_door *door, struct as_paused *paused);

/* What was handed over, in order; at most `most`. To be had before a port is served by others, or left for good. */
int as_take(struct as_door *door, struct as_handed *handed, int most);

void as_what_closes(struct as_door *door, struct as_closed *closed);

/* It was counted: whether there is room is asked again. */
void as_look_again(struct as_door *door);

#endif
