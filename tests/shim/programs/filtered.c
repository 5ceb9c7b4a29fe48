/* filtered CALL[,CALL]... PATH ARG...: PATH under a seccomp filter of its own, which answers EPERM to these calls:
 * "ptrace", "seccomp", "reboot" (which nobody makes). */
#define OWN_MAIN
#include "filter.h"

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        int number;
    } known[] = {{"ptrace", SYS_ptrace}, {"seccomp", SYS_seccomp}, {"reboot", SYS_reboot}};
    int numbers[8];
    size_t count = 0;
    if (argc < 3) return 2;
    for (char *name = strtok(argv[1], ","); name; name = strtok(0, ","))
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            if (strcmp(name, known[i].name) == 0) numbers[count++] = known[i].number;
    install(numbers, count, REFUSE, ALLOW);
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 127;
}
