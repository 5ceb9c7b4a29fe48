/* Delivery: a client outside that comes by a lane is delivered to one program, once, or is refused; whatever somebody on
 * the wire does who hasn't the key. `spin` tries all orders of all steps (tests/test_models.py); -DWITHOUT_... takes
 * one precaution away, and then it has to find a way to two programs.
 *
 * What is modelled: the relay at the gateway (shim/relay/dials.c), which goes a second way where the first host has
 * refused, and the hosts' threads (shim/lane/lanes_in.c). The one on the wire repeats records on a connection of its own,
 * says in the relay's connection what it has heard in its own, resets the relay's, and may be first. Each way has
 * one record: in a lane a number is never used again.
 */
#define WAYS 2
#define OURS 0  /* the connection of the relay */
#define THEIRS 1

mtype = { REFUSAL, RESET, BYTE };

chan to_host[WAYS] = [3] of { byte };         /* a record, on which connection; with Fast Open before that one stands */
chan to_relay[WAYS] = [4] of { mtype };       /* what comes on the relay's connection, whoever has put it there */

byte deliveries[WAYS]; /* of this record, to a program */
bool ours[WAYS];       /* on the relay's connection */
bool shown[WAYS];      /* the client's bytes have been sent that way */
bool sent[WAYS];       /* the record is on the wire, to be seen by all */
bool refused[WAYS];    /* the host has made the refusal, which has a MAC, and can't be made without the key */
bool joined[WAYS];     /* the relay has the client and this way's connection as a pair, or takes them for one */

proctype host(byte way) {
    byte connection;
    bool used = false;
end:
    do
    :: to_host[way] ? connection ->
        if
        :: used ->
#ifdef WITHOUT_SILENCE
            refused[way] = true;
            if
            :: connection == OURS -> to_relay[way] ! REFUSAL
            :: else
            fi
#else
            if
            :: connection == OURS -> to_relay[way] ! RESET
            :: else
            fi
#endif
        :: else ->
#ifndef WITHOUT_WINDOW
            used = true;
#endif
            if
            :: true -> /* the epoch holds and the queue has room */
                deliveries[way]++;
                if
                :: connection == OURS -> ours[way] = true
                :: else
                fi;
                assert(deliveries[way] == 1)
            :: true ->
                refused[way] = true;
                if
                :: connection == OURS -> to_relay[way] ! REFUSAL
                :: else
                fi
            fi
        fi
    :: ours[way] && nfull(to_relay[way]) -> to_relay[way] ! BYTE; break /* the program says something, and more */
    od
}

active proctype relay() {
    byte way;
    bool stands;
    mtype word;
    for (way : 0 .. WAYS - 1) {
        stands = false;
        sent[way] = true;
        to_host[way] ! OURS;
        do
        :: !stands -> stands = true
        :: stands && !shown[way] -> shown[way] = true /* they stay in the client's queue, too */
        :: stands -> joined[way] = true; goto settled /* a second has passed, or 16 KiB: a refusal is a reset from now on */
        :: to_relay[way] ? word ->
            if
            :: word == BYTE -> joined[way] = true; goto settled
            :: word == REFUSAL -> goto another
            :: word == RESET ->
#ifndef WITHOUT_STANDING
                if
                :: stands -> goto settled /* the client is reset */
                :: else -> goto another
                fi
#else
                goto another
#endif
            fi
        od;
another:
        /* Nobody has it, or had a connection that ended before a word was said. */
        assert(!(ours[way] && shown[way]));
        assert(word == RESET || deliveries[way] == 0)
    };
settled:
    assert(!(joined[0] && joined[1]))
}

active proctype somebody() { /* on the wire */
    byte way, times;
    for (times : 1 .. 2) {
        way = 0;
        if
        :: way = 1
        :: true
        fi;
        if
        :: sent[way] && nfull(to_host[way]) -> to_host[way] ! THEIRS
        :: refused[way] && nfull(to_relay[way]) -> to_relay[way] ! REFUSAL
#ifdef WITHOUT_MAC
        :: nfull(to_relay[way]) -> to_relay[way] ! REFUSAL
#endif
        :: nfull(to_relay[way]) -> to_relay[way] ! RESET
        :: true
        fi
    }
}

init {
    run host(0);
    run host(1)
}
