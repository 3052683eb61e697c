/* Passes the probes of operands.S and prints what each had as its first argument.
 *
 *   cc -O2 -o operands operands.c operands.S
 *
 * Prints `ready`, waits for a line, passes the probes, prints one value a line and then `idle`, and ends with its input.
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

extern uint64_t expected[];
extern const signed char widths[];
extern const uint64_t cases;
void perform(void);

/* Behind the last byte of a page that no page follows. */
char *last;

static uint64_t extended(uint64_t value, int width)
{
    switch (width) {
    case 1: return (uint8_t)value;
    case 2: return (uint16_t)value;
    case 4: return (uint32_t)value;
    case -1: return (uint64_t)(int8_t)value;
    case -2: return (uint64_t)(int16_t)value;
    case -4: return (uint64_t)(int32_t)value;
    default: return value;
    }
}

int main(void)
{
    long page = sysconf(_SC_PAGESIZE);
    char *pages = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED || munmap(pages + page, page) != 0) {
        perror("operands: mmap");
        return 2;
    }
    last = pages + page;
    for (int i = 1; i <= 8; i++) {
        last[-i] = (char)(0xf0 + i);
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    int next = getchar();
    if (next == EOF) {
        return 0;
    }
    perform();
    for (uint64_t i = 0; i < cases; i++) {
        printf("%llu\n", (unsigned long long)extended(expected[i], widths[i]));
    }
    puts("idle");
    while (getchar() != EOF) {
    }
    return 0;
}
