#define _GNU_SOURCE
#include "pipes.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

enum {
    KEPT = 64,           /* pipes */
    SPARE = 64,          /* descriptors that sockets don't get */
    SIZE = 256 * 1024,   /* bytes asked for a pipe */
    MOST_FILES = 1 << 20 /* the kernel's own default of what a process may have (fs.nr_open, proc_sys_fs(5)) */
};

static struct pipe kept[KEPT];
static unsigned kept_count, taken;
static unsigned limit, descriptors;

void open_pipes(unsigned already) {
    struct rlimit now, most;
    descriptors = already;
    getrlimit(RLIMIT_NOFILE, &now);
    most.rlim_cur = most.rlim_max = now.rlim_max < MOST_FILES ? MOST_FILES : now.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &most) < 0) { /* only root may raise the hard one */
        most.rlim_cur = most.rlim_max = now.rlim_max;
        setrlimit(RLIMIT_NOFILE, &most);
    }
    limit = (unsigned)most.rlim_cur;
}

static bool make_pipe(struct pipe *pipe) {
    int ends[2];
    if (descriptors + 2 > limit || pipe2(ends, O_NONBLOCK | O_CLOEXEC) < 0) return false;
    fcntl(ends[0], F_SETPIPE_SZ, SIZE); /* a user with very many pipes has small ones (pipe-user-pages-soft, pipe(7)) */
    *pipe = (struct pipe){.out = ends[0], .in = ends[1]};
    descriptors += 2;
    return true;
}

bool take_pipe(struct pipe *pipe) {
    if (kept_count)
        *pipe = kept[--kept_count];
    else if (!make_pipe(pipe))
        return false;
    taken++;
    return true;
}

static void close_pipe(struct pipe *pipe) {
    close(pipe->in);
    close(pipe->out);
    descriptors -= 2;
}

void give_pipe(struct pipe *pipe) {
    if (kept_count == KEPT) return drop_pipe(pipe);
    kept[kept_count++] = *pipe;
    pipe->in = pipe->out = NO_PIPE;
    taken--;
}

void drop_pipe(struct pipe *pipe) {
    close_pipe(pipe);
    pipe->in = pipe->out = NO_PIPE;
    taken--;
}

uint32_t pipes_taken(void) {
    return taken;
}

void count_sockets(int count) {
    descriptors += (unsigned)count;
}

bool have_room(unsigned sockets) {
    while (descriptors + sockets + SPARE > limit && kept_count) close_pipe(&kept[--kept_count]);
    return descriptors + sockets + SPARE <= limit;
}

bool have_pipe(void) {
    if (!kept_count && make_pipe(&kept[0])) kept_count = 1;
    return kept_count;
}
