/* Which programs are handed on to the tracer at exec. */
#ifndef APPSWITCH_HAND_ON_H
#define APPSWITCH_HAND_ON_H

/* Whether `path` is a program that LD_PRELOAD can't reach, or a script for one, and the tracer isn't there already.
 * Writes to nothing, as a vfork child must. */
int needs_tracer(const char *path);

/* A descriptor, not close-on-exec, for a program that has no path for the tracer: one that is named by execveat(2)'s
 * arguments, or in /proc. -1: it has one, or needs no tracer. A script's interpreter isn't looked at. */
int open_for_tracer(int directory, const char *path, int flags);

#endif
