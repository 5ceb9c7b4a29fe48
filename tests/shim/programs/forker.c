/* forker: makes children that end at once, without end; until it is killed. */
#define OWN_MAIN
#include "test.h"

int main(void) {
    int listener = listening("127.0.0.1", 0);
    signal(SIGCHLD, SIG_IGN); /* nobody waits for them */
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (fork()) continue;
        port_of(listener);
        _exit(0);
    }
}
