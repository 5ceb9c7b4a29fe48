#define _GNU_SOURCE
#include "threads.h"

#include <errno.h>
#include <sys/mman.h>

#include "../sys.h"

enum { BUCKETS = 1024, PAGE = 4096 };

_Static_assert(sizeof(struct memory) <= PAGE, "it has a page of its own");

static struct thread *buckets[BUCKETS], *unused;
static int threads;

static void *new_page(void) {
    long at = sys6(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at < 0 && at > -PAGE ? 0 : (void *)at;
}

static void leave_memory(struct thread *thread) {
    struct memory *memory = thread->memory;
    if (!memory) return;
    if (thread->stack && memory->count < MOST_FREE) memory->free[memory->count++] = thread->stack;
    thread->memory = 0;
    thread->stack = 0;
    if (--memory->users == 0) sys2(SYS_munmap, memory, PAGE);
}

static struct thread **link_to(int tid) {
    struct thread **link = &buckets[(unsigned)tid % BUCKETS];
    while (*link && (*link)->tid != tid) link = &(*link)->next;
    return link;
}

struct thread *find_thread(int tid) {
    return *link_to(tid);
}

struct thread *add_thread(int tid) {
    if (!unused) {
        struct thread *page = new_page();
        for (size_t i = 0; page && i < PAGE / sizeof *page; i++) {
            page[i].next = unused;
            unused = &page[i];
        }
    }
    struct thread *made = unused;
    if (!made) return 0;
    unused = made->next;
    *made = (struct thread){.tid = tid, .next = buckets[(unsigned)tid % BUCKETS]};
    buckets[(unsigned)tid % BUCKETS] = made;
    threads++;
    return made;
}

void remove_thread(struct thread *thread) {
    *link_to(thread->tid) = thread->next;
    leave_memory(thread);
    thread->next = unused;
    unused = thread;
    threads--;
}

void for_each_waiting(void (*with)(struct thread *thread, const struct thread *given), const struct thread *given) {
    for (int i = 0; i < BUCKETS; i++)
        for (struct thread *each = buckets[i]; each; each = each->next)
            if (each->waits) with(each, given);
}

int no_threads(void) {
    return threads == 0;
}

int renew_memory(struct thread *thread) {
    leave_memory(thread);
    thread->memory = new_page();
    if (!thread->memory) return -ENOMEM;
    thread->memory->users = 1;
    return 0;
}

void share_memory(struct thread *thread, const struct thread *other) {
    leave_memory(thread);
    thread->memory = other->memory;
    if (thread->memory) thread->memory->users++;
}

int copy_memory(struct thread *thread, const struct thread *other) {
    if (renew_memory(thread) < 0) return -ENOMEM;
    if (other->memory) *thread->memory = *other->memory;
    thread->memory->users = 1;
    thread->stack = other->stack;
    return 0;
}
