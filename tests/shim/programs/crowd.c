/* crowd IP PORT THREADS: so many threads wait in accept of one listener; each tells its clients who they are. */
#define OWN_MAIN
#include <pthread.h>

#include "test.h"

static int listener;

static void *answer(void *unused) {
    (void)unused;
    for (;;) {
        struct address from = {.size = sizeof from.storage};
        int server = OK(accept(listener, &from.any, &from.size));
        dprintf(server, "%s\n", show(&from));
        close(server);
    }
    return 0;
}

int main(int argc, char **argv) {
    pthread_t thread;
    if (argc != 4) return 2;
    signal(SIGPIPE, SIG_IGN);
    listener = tcp(argv[1]);
    OK(BIND(listener, argv[1], atoi(argv[2])));
    OK(listen(listener, 1000));
    for (int i = 1; i < atoi(argv[3]); i++) SAME(pthread_create(&thread, 0, answer, 0), 0);
    answer(0);
}
