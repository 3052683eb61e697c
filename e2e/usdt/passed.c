/* Passes values of every integer type to the probe `mysql:command__start` in places that the compiler chooses, and prints
 * them.
 *
 *   cc -O2 -o passed passed.c      (sys/sdt.h: Debian's systemtap-sdt-dev)
 *
 * Prints `ready`, waits for a line, passes the probes, prints one value a line and then `idle`, and ends with its input.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

#define SEMAPHORE(name) __extension__ unsigned short mysql_##name##_semaphore __attribute__((section(".probes"), used));
SEMAPHORE(command__start)
SEMAPHORE(command__done)
SEMAPHORE(query__start)

enum { MOST = 256 };
static uint64_t values[MOST];
static unsigned passed;

/* As the processor extends what has the type of the argument. A pointer has no sign. */
#define PASS(value)                                                                                                    \
    do {                                                                                                               \
        values[passed++] = (uint64_t)(value);                                                                          \
        STAP_PROBE4(mysql, command__start, value, 3, 0, 0);                                                            \
        done();                                                                                                        \
    } while (0)

static __attribute__((noipa)) void done(void)
{
    STAP_PROBE1(mysql, command__done, 0);
}

struct inner {
    int8_t a;
    uint16_t b;
    int32_t c;
};

struct outer {
    char gap[7000];
    int64_t number;
    struct inner many[8];
    uint8_t byte;
    const char *text;
};

static int8_t hidden_byte = -3;
static uint16_t hidden_short = 0xfedc;
static int32_t hidden_int = -123456789;
static uint64_t hidden_long = 0xfedcba9876543210;
static int16_t table[16] = {-1, 2, -3, 4, -5, 6, -7, 8, -9, 10, -11, 12, -13, 14, -15, 16};
int32_t shown[8] = {100, -200, 300, -400, 500, -600, 700, -800};

static __attribute__((noipa)) void constants(void)
{
    PASS(-1);
    PASS(INT32_MIN);
    PASS((uint8_t)255);
    PASS((int16_t)-32768);
    PASS((uint32_t)4294967295u);
    PASS((uint64_t)UINT64_MAX);
    PASS((uint64_t)0x0123456789abcdef);
}

static __attribute__((noipa)) void statics(void)
{
    PASS(hidden_byte);
    PASS(hidden_int);
    PASS(hidden_long);
    PASS(table[3]);
    PASS(&shown[2]);
}

static __attribute__((noipa)) void indexed(unsigned long at, const int32_t *numbers, const struct inner *many)
{
    PASS(table[at]);
    PASS(numbers[at + 2]);
    PASS(many[at].a);
    PASS(many[at].c);
    PASS(&many[at].c);
}

static __attribute__((noipa)) void members(struct outer *outer)
{
    PASS(outer->number);
    PASS(outer->byte);
    PASS(outer->text);
    PASS(outer->many[1].b);
    PASS(&outer->many[2].c);
}

static __attribute__((noipa)) void parameters(int8_t a, uint8_t b, int16_t c, uint16_t d, int32_t e, uint32_t f,
                                                 int64_t g, uint64_t h, int8_t i, uint16_t j)
{
    PASS(a);
    PASS(b);
    PASS(c);
    PASS(d);
    PASS(e);
    PASS(f);
    PASS(g);
    PASS(h);
    PASS(i);
    PASS(j);
    PASS((int8_t)(e >> 8));
}

static __attribute__((noipa)) void pressed(volatile int32_t *from)
{
    /* More than the registers hold. */
    int32_t a = from[0], b = from[1], c = from[2], d = from[3], e = from[4], f = from[5], g = from[6], h = from[7];
    int64_t i = (int64_t)a * b, j = (int64_t)c * d, k = (int64_t)e * f, l = (int64_t)g * h, m = i ^ j, n = k ^ l;
    PASS(a);
    PASS(b);
    PASS(c);
    PASS(d);
    PASS(e);
    PASS(f);
    PASS(g);
    PASS(h);
    PASS(i);
    PASS(j);
    PASS(m);
    PASS(n);
    from[0] = a + b + c + d + e + f + g + h + (int32_t)(i + j + k + l + m + n);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    if (getchar() == EOF) {
        return 0;
    }
    /* So that the compiler does not know them. */
    volatile int nothing = 0;
    hidden_byte += nothing;
    hidden_short += nothing;
    hidden_int += nothing;
    hidden_long += nothing;
    table[3] += nothing;
    shown[5] += nothing;
    struct outer *outer = calloc(1, sizeof *outer);
    outer->number = -7000000000;
    outer->byte = 200;
    outer->text = "text";
    for (int i = 0; i < 8; i++) {
        outer->many[i] = (struct inner){(int8_t)(-i - 1), (uint16_t)(60000 + i), -1000000 * i};
    }
    constants();
    statics();
    indexed(3, shown, outer->many);
    members(outer);
    parameters(-5, 250, -30000, 60000, -2000000000, 4000000000u, -9000000000000000000, 18000000000000000000u, -128, 65535);
    pressed(shown);
    if (outer->byte == 0) {
        STAP_PROBE5(mysql, query__start, 0, 0, 0, 0, 0);
    }
    for (unsigned i = 0; i < passed; i++) {
        printf("%llu\n", (unsigned long long)values[i]);
    }
    puts("idle");
    while (getchar() != EOF) {
    }
    return 0;
}
