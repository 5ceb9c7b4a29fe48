/* Raw system calls: the shim's "real" functions.
 *
 * No libc function is called, so there is nothing to look up, no lock to meet and no initialisation to wait for
 * (DESIGN 3.2). Each `sys_*` returns what the kernel returns: a value >= 0 or -errno.
 */
#ifndef APPSWITCH_SYS_H
#define APPSWITCH_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>

static inline long sys6(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    /* Our mark (below) mustn't stay for a call of the program's that has fewer arguments. */
    __asm__ volatile("syscall\n\txorl %%r9d, %%r9d"
                     : "=a"(result), "+r"(r9)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory", "cc");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#else
#error "libappswitch.so knows the system calls of x86_64 and aarch64 only"
#endif
}

/* Our own calls are told from the program's by a mark where the kernel doesn't look: the upper half of the sixth
 * argument, which is no pointer in any of them. So a seccomp filter can stop at the program's only (tracer/filter.c).
 * recvfrom's sixth is a pointer: there it is the upper half of the flags; of pselect6 and epoll_pwait the sixth is
 * looked at whole: there it is that of the first, an int. */
#define AS_MARK 0x41535721 /* "!WSA" */
#define AS_OURS ((long)AS_MARK << 32)

#define SYS_ARG_(x) ((long)(x))
#define sys0(n) sys6(n, 0, 0, 0, 0, 0, AS_OURS)
#define sys1(n, a) sys6(n, SYS_ARG_(a), 0, 0, 0, 0, AS_OURS)
#define sys2(n, a, b) sys6(n, SYS_ARG_(a), SYS_ARG_(b), 0, 0, 0, AS_OURS)
#define sys3(n, a, b, c) sys6(n, SYS_ARG_(a), SYS_ARG_(b), SYS_ARG_(c), 0, 0, AS_OURS)
#define sys4(n, a, b, c, d) sys6(n, SYS_ARG_(a), SYS_ARG_(b), SYS_ARG_(c), SYS_ARG_(d), 0, AS_OURS)
#define sys5(n, a, b, c, d, e) sys6(n, SYS_ARG_(a), SYS_ARG_(b), SYS_ARG_(c), SYS_ARG_(d), SYS_ARG_(e), AS_OURS)

/* The only thing imported from libc: where this thread keeps errno (glibc and musl alike). */
extern int *__errno_location(void) __attribute__((const));

static inline long result(long value) {
    if (value < 0 && value > -4096) {
        *__errno_location() = (int)-value;
        return -1;
    }
    return value;
}

/* Freestanding stand-ins; gcc itself emits calls to memcpy, memset and memcmp. */
void *memcpy(void *restrict to, const void *restrict from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *a, const void *b, size_t size);

/* What is of a constant size, the compiler writes out. */
#define memcpy __builtin_memcpy
#define memset __builtin_memset
#define memcmp __builtin_memcmp

size_t as_strlen(const char *text);

/* Whether `text` begins so; nothing is read behind its end. */
int starts_with(const char *text, const char *prefix);

/* FNV-1a: which place of a table is that of `key`, whose padding is zero. */
uint32_t hash_of(const void *key, size_t size);

/* Writes `number` in decimal, and a NUL; returns where that is. `at` needs room for 11 bytes. */
char *write_number(char *at, unsigned number);

/* Of CLOCK_MONOTONIC; never 0. */
uint64_t milliseconds(void);

/* A socket option that is an int; 0: there is none. */
int int_option(int fd, int level, int name);

/* SO_COOKIE: the same for every descriptor of a socket in every process, never used again; 0: no socket. */
uint64_t cookie_of(int fd);

/* SO_NETNS_COOKIE: of a socket's network namespace, never used again; 0: not known. */
uint64_t netns_of(int fd);

#endif
