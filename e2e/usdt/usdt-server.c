/* A server by its probes only: it has those of a MySQL built with DTrace, and performs a script of what clients did.
 *
 *   cc -O2 -g -Wall -Wextra -Werror -pthread -o usdt-server usdt-server.c      (sys/sdt.h: Debian's systemtap-sdt-dev)
 *
 * The script comes in on standard input, one action a line, and what was done goes out on standard output. Fields are
 * separated by tabs; \t \n \\ and \xHH stand for themselves; a field of - alone is a null pointer.
 *
 *   THREAD connect    CONNECTION USER HOST
 *   THREAD refuse     CONNECTION                 a login that was not let in: an end without a beginning
 *   THREAD command    CONNECTION COMMAND USER HOST DATABASE SQL STATUS [MICROSECONDS [TIMES]]
 *   THREAD hang       CONNECTION COMMAND USER HOST DATABASE SQL            begins a command and never ends it
 *   THREAD disconnect CONNECTION
 *   semaphores                                   prints each probe's counter of tracers
 *   wait                                         prints `idle` when all threads but hanging ones have done their actions
 *
 * THREAD is a number from 0 to 63: actions of one number happen in order, on one thread. The program ends with its input.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define _SDT_HAS_SEMAPHORES 1
#include <sys/sdt.h>

#define PROBES(EACH)                                                                                                   \
    EACH(connection__start) EACH(connection__done) EACH(command__start) EACH(command__done) EACH(query__start)         \
    EACH(query__done) EACH(query__exec__start) EACH(query__exec__done)
#define SEMAPHORE(name) __extension__ unsigned short mysql_##name##_semaphore __attribute__((section(".probes"), used));
PROBES(SEMAPHORE)
#define ENABLED(name) __builtin_expect(*(volatile unsigned short *)&mysql_##name##_semaphore, 0)

enum { THREADS = 64, FIELDS = 11, QUIT = 1, INIT_DB = 2, QUERY = 3, STMT_EXECUTE = 23 };

/* Shaped so that the compiler addresses the probes' arguments as it does in a server: far into large structures. */
struct security {
    char padding[104];
    char priv_user[128];
    char gap[96];
    char *host_or_ip;
};

struct thd {
    char padding[80];
    char *query;
    char gap[48];
    char *database;
    char much[6880];
    uint64_t thread_id;
    struct security *security;
};

struct action {
    struct action *next;
    char *line;
    char *field[FIELDS];
    int fields;
};

struct worker {
    pthread_t thread;
    struct action *first, **last;
    int started, hangs;
};

static struct worker workers[THREADS];
static unsigned pending;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void die(const char *reason, const char *what)
{
    fprintf(stderr, "usdt-server: %s: %s\n", reason, what);
    exit(2);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void sleep_us(long microseconds)
{
    struct timespec span = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&span, NULL);
}

/* Statements run in one of four places, as in mysql_execute_command and the prepared statements' execution. */
static __attribute__((noinline)) void execute(struct thd *thd, int kind)
{
#define EXEC(kind) \
    STAP_PROBE6(mysql, query__exec__start, thd->query, thd->thread_id, thd->database ? thd->database : "", \
                thd->security->priv_user, thd->security->host_or_ip, kind)
    switch (kind) {
    case 0: EXEC(0); break;
    case 1: EXEC(1); break;
    case 2: EXEC(2); break;
    default: EXEC(3); break;
    }
    if (ENABLED(query__exec__done)) {
        STAP_PROBE1(mysql, query__exec__done, 0);
    }
}

static __attribute__((noinline)) void query(struct thd *thd, int status, int cached)
{
    if (cached) {
        STAP_PROBE5(mysql, query__start, thd->query, thd->thread_id, thd->database, thd->security->priv_user,
                    thd->security->host_or_ip);
        if (ENABLED(query__done)) {
            char failed = status != 0;
            STAP_PROBE1(mysql, query__done, failed);
        }
        return;
    }
    STAP_PROBE5(mysql, query__start, thd->query, thd->thread_id, thd->database ? thd->database : "",
                thd->security->priv_user, thd->security->host_or_ip);
    execute(thd, thd->query[0] & 1);
    if (ENABLED(query__done)) {
        STAP_PROBE1(mysql, query__done, status);
    }
}

static __attribute__((noinline)) int dispatch_command(unsigned command, struct thd *thd, int status, long microseconds)
{
    STAP_PROBE4(mysql, command__start, thd->thread_id, command, thd->security->priv_user, thd->security->host_or_ip);
    if (thd->query != NULL) {
        if (command == STMT_EXECUTE) {
            execute(thd, 2 + (thd->query[0] & 1));
        } else if (command == QUERY) {
            query(thd, status, strncmp(thd->query, "/* cached */", 12) == 0);
        }
    }
    if (microseconds > 0) {
        sleep_us(microseconds);
    }
    if (microseconds < 0) {
        return -1;
    }
    if (ENABLED(command__done)) {
        STAP_PROBE1(mysql, command__done, status);
    }
    return 0;
}

static char *or_null(char *field)
{
    return strcmp(field, "-") == 0 ? NULL : field;
}

/* The server frees and reuses what its pointers point to when a command is done. */
static void fill(struct thd *thd, char **field, int fields)
{
    thd->thread_id = strtoull(field[2], NULL, 10);
    snprintf(thd->security->priv_user, sizeof thd->security->priv_user, "%s", fields > 4 ? field[4] : "");
    thd->security->host_or_ip = fields > 5 ? or_null(field[5]) : NULL;
    thd->database = fields > 6 ? or_null(field[6]) : NULL;
    thd->query = fields > 7 ? or_null(field[7]) : NULL;
}

static int perform(struct thd *thd, struct action *action)
{
    char **field = action->field;
    const char *verb = field[1];
    int hangs = 0;
    long times = 1;
    uint64_t began = now_ns();
    if (strcmp(verb, "connect") == 0 && action->fields == 5) {
        thd->thread_id = strtoull(field[2], NULL, 10);
        snprintf(thd->security->priv_user, sizeof thd->security->priv_user, "%s", field[3]);
        thd->security->host_or_ip = or_null(field[4]);
        STAP_PROBE3(mysql, connection__start, thd->thread_id, thd->security->priv_user, thd->security->host_or_ip);
    } else if ((strcmp(verb, "disconnect") == 0 || strcmp(verb, "refuse") == 0) && action->fields == 3) {
        int status = verb[0] == 'r';
        thd->thread_id = strtoull(field[2], NULL, 10);
        STAP_PROBE2(mysql, connection__done, status, thd->thread_id);
    } else if (strcmp(verb, "hang") == 0 && action->fields == 8) {
        fill(thd, field, action->fields);
        hangs = dispatch_command((unsigned)strtoul(field[3], NULL, 10), thd, 0, -1) != 0;
    } else if (strcmp(verb, "command") == 0 && action->fields >= 9) {
        unsigned command = (unsigned)strtoul(field[3], NULL, 10);
        int status = atoi(field[8]);
        long microseconds = action->fields > 9 ? atol(field[9]) : 0;
        times = action->fields > 10 ? atol(field[10]) : 1;
        fill(thd, field, action->fields);
        for (long time = 0; time < times; time++) {
            dispatch_command(command, thd, status, microseconds);
        }
    } else {
        die("no such action", verb);
    }
    uint64_t took = now_ns() - began;
    pthread_mutex_lock(&lock);
    printf("did\t%s\t%s\t%s\t%ld\t%llu\t%llu\n", field[0], verb, field[2], times, (unsigned long long)began,
           (unsigned long long)took);
    pthread_mutex_unlock(&lock);
    /* What the pointers point to is freed, and means nothing from here on. */
    thd->query = thd->database = NULL;
    return hangs;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct thd *thd = calloc(1, sizeof *thd);
    thd->security = calloc(1, sizeof *thd->security);
    for (;;) {
        pthread_mutex_lock(&lock);
        while (worker->first == NULL) {
            pthread_cond_wait(&changed, &lock);
        }
        struct action *action = worker->first;
        worker->first = action->next;
        if (worker->first == NULL) {
            worker->last = &worker->first;
        }
        pthread_mutex_unlock(&lock);

        int hangs = perform(thd, action);
        memset(action->line, 'X', strlen(action->line));
        thd->security->host_or_ip = NULL;
        free(action->line);
        free(action);

        pthread_mutex_lock(&lock);
        pending--;
        pthread_cond_broadcast(&changed);
        while (hangs) {
            pthread_cond_wait(&changed, &lock);
        }
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

/* Turns the escapes in place into what they stand for. */
static void unescape(char *text)
{
    char *to = text;
    for (char *from = text; *from != 0; from++) {
        if (*from != '\\') {
            *to++ = *from;
            continue;
        }
        from++;
        if (*from == 't') {
            *to++ = '\t';
        } else if (*from == 'n') {
            *to++ = '\n';
        } else if (*from == 'x' && from[1] != 0 && from[2] != 0) {
            char digits[3] = {from[1], from[2], 0};
            *to++ = (char)strtoul(digits, NULL, 16);
            from += 2;
        } else {
            *to++ = *from;
        }
    }
    *to = 0;
}

static void enqueue(char *line)
{
    struct action *action = calloc(1, sizeof *action);
    action->line = line;
    for (char *rest = line, *field; (field = strsep(&rest, "\t")) != NULL;) {
        if (action->fields == FIELDS) {
            die("too many fields", action->field[1]);
        }
        unescape(field);
        action->field[action->fields++] = field;
    }
    unsigned long number = strtoul(action->field[0], NULL, 10);
    if (action->fields < 3 || number >= THREADS) {
        die("not an action", action->field[0]);
    }
    struct worker *worker = &workers[number];
    pthread_mutex_lock(&lock);
    if (!worker->started) {
        worker->started = 1;
        worker->last = &worker->first;
        if (pthread_create(&worker->thread, NULL, work, worker) != 0) {
            die("cannot start thread", action->field[0]);
        }
    }
    *worker->last = action;
    worker->last = &action->next;
    pending++;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

static void print_semaphores(void)
{
#define PRINT(name) printf("semaphore\t" #name "\t%u\n", (unsigned)*(volatile unsigned short *)&mysql_##name##_semaphore);
    pthread_mutex_lock(&lock);
    PROBES(PRINT)
    puts("semaphores");
    pthread_mutex_unlock(&lock);
}

static void wait_until_idle(int tell)
{
    pthread_mutex_lock(&lock);
    while (pending > 0) {
        pthread_cond_wait(&changed, &lock);
    }
    if (tell) {
        puts("idle");
    }
    pthread_mutex_unlock(&lock);
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready for connections");
    for (;;) {
        char *line = NULL;
        size_t room = 0;
        ssize_t length = getline(&line, &room, stdin);
        if (length < 0) {
            break;
        }
        if (length > 0 && line[length - 1] == '\n') {
            line[length - 1] = 0;
        }
        if (strcmp(line, "semaphores") == 0) {
            print_semaphores();
        } else if (strcmp(line, "wait") == 0) {
            wait_until_idle(1);
        } else if (line[0] != 0 && line[0] != '#') {
            enqueue(line);
            continue;
        }
        free(line);
    }
    wait_until_idle(0);
    return 0;
}
