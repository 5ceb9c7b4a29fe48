/* herald IP PORT: tells each client at which of its addresses it has been reached. */
#define OWN_MAIN
#include "test.h"

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    signal(SIGPIPE, SIG_IGN);
    for (int listener = listening(argv[1], atoi(argv[2]));;) {
        int server = OK(accept(listener, 0, 0));
        struct address own = name_of(server);
        dprintf(server, "%s", show(&own));
        close(server);
    }
}
