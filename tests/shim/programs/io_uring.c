/* io_uring: what its calls say, made past libc ("raw"), as programs of the other architectures make them, and through
 * syscall(2). */
#define OWN_MAIN
#include "test.h"

static long raw(long number) {
    long result;
#if defined(__x86_64__)
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(1L), "S"(0L), "d"(0L) : "rcx", "r11", "memory");
#else
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = 1, x1 __asm__("x1") = 0, x2 __asm__("x2") = 0;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    result = x0;
#endif
    return result;
}

#if defined(__x86_64__)
static void no_i386(int number) {
    (void)number;
    puts("i386 none");
    exit(0);
}
#endif

int main(void) {
    enum { SETUP = 425, ENTER, REGISTER };
    for (long number = SETUP; number <= REGISTER; number++) printf("raw %ld\n", -raw(number));
    printf("libc %d\n", syscall(SETUP, 1, 0) < 0 ? errno : 0);
    printf("beside it %ld %ld\n", -raw(SETUP - 1), -raw(REGISTER + 1));
#if defined(__x86_64__)
    long result;
    printf("x32 %ld\n", -raw(SETUP | 0x40000000));
    signal(SIGSEGV, no_i386);
    __asm__ volatile("int $0x80" : "=a"(result) : "0"((long)SETUP), "b"(1L), "c"(0L), "d"(0L) : "memory");
    printf("i386 %ld\n", -result);
#endif
    return 0;
}
