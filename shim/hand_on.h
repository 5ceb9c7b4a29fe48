/* Which programs are handed on to the tracer at exec. */
#ifndef APPSWITCH_HAND_ON_H
#define APPSWITCH_HAND_ON_H

/* Whether `path` is a program that LD_PRELOAD can't reach, or a script for one, and no tracer is there already. Writes
 * to nothing, as a vfork child must. */
int needs_tracer(const char *path);

/* Whether the tracer is found by its path. */
int is_tracer_there(void);

/* A descriptor, not close-on-exec, for a program that has no path for the tracer: one that is named by execveat(2)'s
 * arguments, or in /proc. -1: it has one, or needs no tracer. A script's interpreter isn't looked at. */
int open_for_tracer(int directory, const char *path, int flags);

/* Before a process gets another root: so that the tracer is found all the same, a descriptor of its directory is kept.
 */
void keep_tracer_home(void);

/* In a program that the tracer has so begun: the descriptor. */
void keep_given_home(int fd);

/* For a tracer that isn't found by its path: a descriptor of its directory, not close-on-exec; -1: there is none. */
int open_tracer_home(void);

#endif
