/* What the tracer knows of each thread, and of the memory that threads share. */
#ifndef APPSWITCH_TRACER_THREADS_H
#define APPSWITCH_TRACER_THREADS_H

#include <stdint.h>

enum { LEVELS = 4, MOST_FREE = 500 };

/* An address space. Threads share it, and a vfork child does until its exec; a fork makes a copy of it. */
struct memory {
    int users;
    uint64_t library; /* where the library is; 0: it has come by LD_PRELOAD */
    int count;        /* of stacks that no thread has any more; those that there is no room for stay unused */
    uint64_t free[MOST_FREE];
};

struct thread {
    int tid;
    int waits; /* it has stopped before its maker's stop told whose it is */
    struct memory *memory;
    uint64_t stack; /* where its stack begins; 0: it has none yet */
    struct thread *next;
};

/* The thread, or 0. */
struct thread *find_thread(int tid);

/* A new one; 0: there is no memory. */
struct thread *add_thread(int tid);

/* It has ended: its stack is another's now. */
void remove_thread(struct thread *thread);

/* Calls `with` for each thread that waits. */
void for_each_waiting(void (*with)(struct thread *thread, const struct thread *given), const struct thread *given);

/* True when there are none. */
int no_threads(void);

/* Another address space for a thread: a new one; that of `other`; a copy of that. 0, or -ENOMEM. */
int renew_memory(struct thread *thread);
void share_memory(struct thread *thread, const struct thread *other);
int copy_memory(struct thread *thread, const struct thread *other);

#endif
