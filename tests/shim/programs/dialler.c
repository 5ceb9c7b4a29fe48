/* dialler IP PORT: connects, and says whom it became; or the errno. A line on stdin: once more. */
#define OWN_MAIN
#include "test.h"

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    do {
        int client = tcp(argv[1]);
        if (CONNECT(client, argv[1], atoi(argv[2])) < 0) {
            printf("errno %d\n", errno);
        } else {
            struct address own = name_of(client), peer = peer_of(client);
            printf("%s to %s\n", show(&own), show(&peer));
        }
        fflush(stdout);
        close(client);
    } while (getchar() != EOF);
    return 0;
}
