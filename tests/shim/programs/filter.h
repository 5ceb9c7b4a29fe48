/* A seccomp filter (seccomp(2)) that gives some system calls one verdict, and all others another. musl comes without
 * the kernel's headers. */
#ifndef FILTER_H
#define FILTER_H

#include "test.h"

enum { ALLOW = 0x7fff0000, KILL = (int)0x80000000, REFUSE = 0x00050000 | EPERM };

struct instruction {
    uint16_t code;
    uint8_t if_so, if_not;
    uint32_t operand;
};

struct filter {
    uint16_t length;
    struct instruction *code;
};

/* numbers: `count` of them, at most 60. As an ordinary user a filter costs NO_NEW_PRIVS. */
__attribute__((unused)) static void install(const int *numbers, size_t count, int theirs, int others) {
    struct instruction code[128] = {{0x20 /* load a word */, 0, 0, 0 /* the number */}};
    uint16_t length = 1;
    for (size_t i = 0; i < count; i++) {
        code[length++] = (struct instruction){0x15 /* equal? */, 0, 1, (uint32_t)numbers[i]};
        code[length++] = (struct instruction){0x06 /* return */, 0, 0, (uint32_t)theirs};
    }
    code[length++] = (struct instruction){0x06, 0, 0, (uint32_t)others};
    struct filter filter = {length, code};
    if (geteuid()) OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(prctl(PR_SET_SECCOMP, 2 /* SECCOMP_MODE_FILTER */, &filter));
}

#endif
