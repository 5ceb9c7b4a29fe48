/* Which programs are handed on to the tracer at exec. */
#ifndef APPSWITCH_HAND_ON_H
#define APPSWITCH_HAND_ON_H

/* Whether `path` is a program that LD_PRELOAD can't reach, or a script for one, and the tracer isn't there already.
 * Writes to nothing, as a vfork child must. */
int needs_tracer(const char *path);

#endif
