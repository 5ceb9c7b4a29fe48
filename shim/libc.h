/* libc's own functions, for the hooks that go on with them: host names and interfaces. Looked up at each call, and only
 * where there is a dlsym. */
#ifndef APPSWITCH_LIBC_H
#define APPSWITCH_LIBC_H

extern void *dlsym(void *handle, const char *name) __attribute__((weak));

/* What our hook of this name stands before. */
static inline void *next(const char *name) {
    return dlsym ? dlsym((void *)-1L /* RTLD_NEXT */, name) : 0;
}

/* What the program itself, and libc, calls by this name: another allocator's, if it has one. */
static inline void *in_use(const char *name) {
    return dlsym ? dlsym((void *)0 /* RTLD_DEFAULT */, name) : 0;
}

#endif
