/* answer IP PORT: a server that answers what transfer says, until its client has gone; then the next. */
#define OWN_MAIN
#include "test.h"

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int listener = tcp(argv[1]);
    OK(BIND(listener, argv[1], atoi(argv[2])));
    OK(listen(listener, 64));
    for (;;) {
        struct address from = {.size = sizeof from.storage};
        char got[16];
        int server = OK(accept(listener, &from.any, &from.size));
        struct address peer = peer_of(server), own = name_of(server);
        TEXT(show(&peer), show(&from));
        printf("from %s at %s\n", show(&from), show(&own));
        fflush(stdout);
        while (recv(server, got, 15, MSG_WAITALL) == 15) SAME(write(server, "answer", 6), 6);
        close(server);
    }
}
