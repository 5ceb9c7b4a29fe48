/* HOOK marks what the library exports; everything else is compiled with -fvisibility=hidden. */
#ifndef APPSWITCH_HOOKS_H
#define APPSWITCH_HOOKS_H

#define HOOK __attribute__((visibility("default")))

#endif
